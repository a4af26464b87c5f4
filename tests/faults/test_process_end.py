"""The end of the program (promise 7), in real processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from faults.processes import WITH_THE_PROCESS, arrived_once, ended_cleanly, numbers
from faults.scenario import Scenario
from support.differential import PACKAGE
from support.process import run_program, running_program
from support.server import Reply, TelemetryServer, black_hole, raw_endpoint
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        pytest.param("", 0, id="normally"),
        pytest.param("sys.exit(3)", 3, id="by sys.exit"),
        pytest.param("raise RuntimeError('of the program')", 1, id="by an exception"),
        pytest.param(
            "threading.Thread(target=client.close, daemon=True).start()", 0, id="while a thread closes"
        ),
        pytest.param(
            "threading.Thread(target=client.flush, daemon=True).start()", 0, id="while a thread flushes"
        ),
    ],
)
def test_the_program_ends(fault: Scenario, server: TelemetryServer, ending: str, code: int) -> None:
    """The program ends with 10 unflushed events, in the way that the brackets say."""
    out = run_program("client = make_client(sys.argv[1])\nenqueue(client, 10)\n" + ending, server.url)
    assert out.code == code
    if code == 1:
        traceback = (
            r"Traceback \(most recent call last\):\n  File \"<string>\", line \d+, in <module>\n(    .*\n)?"
        )
        assert re.fullmatch(traceback + r"RuntimeError: of the program\n", out.stderr), out.stderr
    else:
        assert out.stderr == ""
    arrived_once(server, numbers(10))
    (stats,) = out.accounts
    fault.settled(stats, sent=10, arrived=server.accepted)
    assert fault.delivered == 10


def test_the_program_ends_after_it_has_sent(fault: Scenario, server: TelemetryServer) -> None:
    """The program ends with 10 unflushed events after a flush of 10 others: urllib3 is in use, and its exit hooks close
    its connections."""
    out = run_program(
        """
        client = make_client(sys.argv[1], close_timeout_ms=1_000)
        enqueue(client, 10)
        assert client.flush(10)
        enqueue(client, 10, "late ")
        """,
        server.url,
    )
    ended_cleanly(out)
    arrived_once(server, numbers(10), numbers(10, "late "))
    (stats,) = out.accounts
    fault.settled(stats, sent=20, arrived=server.accepted)
    assert fault.delivered == 20


def test_a_thread_makes_clients_while_the_interpreter_ends(fault: Scenario, server: TelemetryServer) -> None:
    """The program ends with events in ten queues while a daemon thread keeps making clients."""
    out = run_program(
        """
        for number in range(10):
            enqueue(make_client(sys.argv[1]), 1, f"{number} ")
        config = TelemetryConfiguration(enabled=True)
        others = [TelemetryClient(sys.argv[1], config) for _ in range(500)]  # the exit visits each of them
        sys.setswitchinterval(0.00001)

        def make_more():
            while True:
                others.append(TelemetryClient(sys.argv[1], config))

        threading.Thread(target=make_more, daemon=True).start()
        """,
        server.url,
    )
    ended_cleanly(out)
    assert [(stats.enqueued, stats.delivered) for stats in out.accounts] == [(1, 1)] * 10
    fault.seen(sent=10, delivered=arrived_once(server, [f"{number} 0" for number in range(10)]))


def test_the_user_presses_ctrl_c(fault: Scenario, server: TelemetryServer, tmp_path: Path) -> None:
    """SIGINT: Python raises a KeyboardInterrupt that the program does not catch."""
    program = """
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process inherits an ignored SIGINT
        client = make_client(sys.argv[1])
        enqueue(client, 10)
        print("ready", flush=True)
        time.sleep(30)
        """
    with running_program(program, server.url, file=tmp_path / "program.py") as running:
        running.wait_for("ready")
        running.send(signal.SIGINT)
        out = running.end()
    # The signal, or 1: CPython forgets the signal when the exit imports modules.
    assert out.code in (-signal.SIGINT, 1)
    assert out.stderr.endswith("\nKeyboardInterrupt\n")
    assert PACKAGE not in out.stderr
    arrived_once(server, numbers(10))
    (stats,) = out.accounts
    fault.settled(stats, sent=10, arrived=server.accepted)
    assert fault.delivered == 10


def test_the_user_presses_ctrl_c_again_while_the_exit_waits(fault: Scenario) -> None:
    """SIGINT during the close at exit, which waits up to 20 s for a black hole."""
    program = """
        signal.signal(signal.SIGINT, signal.default_int_handler)
        client = make_client(sys.argv[1], close_timeout_ms=20_000)
        enqueue(client, 10)
        """
    held = threading.Event()

    def hold(connection: socket.socket) -> None:
        held.set()
        black_hole(connection)

    with raw_endpoint(hold) as url, running_program(program, url) as running:
        assert held.wait(20)
        running.send(signal.SIGINT)
        began = time.monotonic()
        out = running.end()
    assert out.at - began < 2
    assert "KeyboardInterrupt" in out.stderr  # Python prints the user's second Ctrl-C
    fault.seen(sent=10, delivered=0, lost={"the user interrupted the exit": 10})


def test_sigterm_with_the_default_handler(fault: Scenario, server: TelemetryServer) -> None:
    """SIGTERM kills a Python process without a handler; 10 of 20 events were flushed."""
    program = """
        client = make_client(sys.argv[1])
        enqueue(client, 10)
        assert client.flush(10)
        enqueue(client, 10, "late ")
        print("ready", flush=True)
        time.sleep(30)
        """
    with running_program(program, server.url) as running:
        running.wait_for("ready")
        running.send(signal.SIGTERM)
        out = running.end()
    assert (out.code, out.stderr, out.accounts) == (-signal.SIGTERM, "", [])
    arrived_once(server, numbers(10))
    fault.seen(sent=20, delivered=10, lost={WITH_THE_PROCESS: 10})


@pytest.mark.parametrize("moment", ["time.sleep(30)", "client.flush()"], ids=["at rest", "during a flush"])
def test_sigterm_with_a_handler_that_exits(fault: Scenario, server: TelemetryServer, moment: str) -> None:
    """SIGTERM with a handler that calls `sys.exit`, as servers have; the brackets say what the main thread is doing."""
    program = f"""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
        client = make_client(sys.argv[1])
        enqueue(client, 10)
        print("ready", flush=True)
        {moment}
        time.sleep(30)
        """
    release = threading.Event()
    server.replies.append(Reply(release=release))
    with running_program(program, server.url) as running:
        running.wait_for("ready")
        if "flush" in moment:
            wait_until(lambda: server.requests)
        running.send(signal.SIGTERM)
        wait_until(lambda: server.requests)
        release.set()
        out = running.end()
    assert (out.code, out.stderr) == (5, "")
    arrived_once(server, numbers(10))
    (stats,) = out.accounts
    fault.settled(stats, sent=10, arrived=server.accepted)
    assert fault.delivered == 10


def test_the_program_ends_by_os_exit(fault: Scenario, server: TelemetryServer) -> None:
    """`os._exit` skips every exit handler; 10 of 20 events were flushed."""
    out = run_program(
        """
        client = make_client(sys.argv[1])
        enqueue(client, 10)
        assert client.flush(10)
        enqueue(client, 10, "late ")
        os._exit(7)
        """,
        server.url,
    )
    assert (out.code, out.stderr) == (7, "")
    arrived_once(server, numbers(10))
    fault.seen(sent=20, delivered=10, lost={WITH_THE_PROCESS: 10})


def test_the_program_is_killed_with_a_request_in_flight(fault: Scenario, server: TelemetryServer) -> None:
    """`kill -9` while the fourth of ten batches waits for its answer."""
    program = """
        client = make_client(sys.argv[1], batch_size=10)
        enqueue(client, 100)
        time.sleep(30)
        """
    release = threading.Event()
    server.replies.extend([Reply(), Reply(), Reply(), Reply(release=release)])
    with running_program(program, server.url) as running:
        wait_until(lambda: len(server.requests) == 4)
        running.send(signal.SIGKILL)
        assert running.end().code == -signal.SIGKILL
    release.set()
    wait_until(lambda: len(server.accepted) == 40)
    # In order, none torn, none twice. The endpoint already had the fourth batch.
    assert server.accepted == numbers(40)
    fault.seen(sent=100, delivered=40, lost={WITH_THE_PROCESS: 60})


def test_a_daemon_thread_enqueues_while_the_interpreter_ends(
    fault: Scenario, server: TelemetryServer
) -> None:
    """The program ends while a daemon thread enqueues as fast as it can."""
    out = run_program(
        """
        client = make_client(sys.argv[1], max_queue_size=1_000_000)
        enough = threading.Event()

        def produce():
            number = 0
            while True:
                client.enqueue(TelemetryFrontendLog(frontend_log_event_id=str(number)))
                number += 1
                if number == 500:
                    enough.set()
                if number > 500:
                    time.sleep(0.0001)  # slow enough for loopback to keep up

        threading.Thread(target=produce, daemon=True).start()
        assert enough.wait(20)
        """,
        server.url,
    )
    ended_cleanly(out)
    (stats,) = out.accounts
    assert stats.closes
    # Every event up to the moment when the interpreter stops its threads, without a gap.
    assert server.accepted == numbers(len(server.accepted))
    assert len(server.accepted) >= max(500, stats.delivered)
    # Events after the account was printed may be delivered, too.
    sent = max(stats.enqueued, len(server.accepted))
    fault.seen(
        sent=sent, delivered=len(server.accepted), lost={WITH_THE_PROCESS: sent - len(server.accepted)}
    )


def test_a_thread_outlives_the_main_one(fault: Scenario, server: TelemetryServer) -> None:
    """The main thread ends first; a non-daemon thread still enqueues 10 events."""
    out = run_program(
        """
        client = make_client(sys.argv[1])
        enqueue(client, 10)

        def work():
            threading.main_thread().join()
            enqueue(client, 10, "late ")

        threading.Thread(target=work).start()
        """,
        server.url,
    )
    ended_cleanly(out)
    arrived_once(server, numbers(10), numbers(10, "late "))
    (stats,) = out.accounts
    fault.settled(stats, sent=20, arrived=server.accepted)
    assert fault.delivered == 20


def seconds_of_a_bare_exit() -> float:
    """Seconds that the interpreter itself takes to end, with the same modules loaded and no client."""
    out = run_program(
        "import urllib3, adbc_telemetry.transport.http; print('last', time.monotonic(), flush=True)"
    )
    return out.at - float(out.told("last")[0])


def test_a_black_hole_at_exit(fault: Scenario) -> None:
    """The program ends while the endpoint takes requests and never answers."""
    with raw_endpoint(black_hole) as url:
        out = run_program(
            """
            client = make_client(sys.argv[1], close_timeout_ms=500)
            enqueue(client, 10)
            print("last", time.monotonic(), flush=True)
            """,
            url,
        )
    ended_cleanly(out)
    seconds = out.at - float(out.told("last")[0])
    assert 0.4 < seconds < 0.5 + 0.25 + seconds_of_a_bare_exit()
    (stats,) = out.accounts
    fault.settled(stats, sent=10, arrived=[], seconds=seconds)
    assert fault.lost == {"failed": 10}


def test_three_black_holes_at_exit(fault: Scenario, server: TelemetryServer) -> None:
    """The program ends while three hosts take requests and never answer, and a fourth is healthy."""
    with raw_endpoint(black_hole) as one, raw_endpoint(black_hole) as two, raw_endpoint(black_hole) as three:
        out = run_program(
            """
            for url in sys.argv[1:]:
                enqueue(make_client(url, close_timeout_ms=500), 10)
            print("last", time.monotonic(), flush=True)
            """,
            *(one, two, three, server.url),
        )
    ended_cleanly(out)
    seconds = out.at - float(out.told("last")[0])
    assert 0.4 < seconds < 0.5 + 0.25 + seconds_of_a_bare_exit()
    assert all(stats.closes and stats.queued == stats.in_flight == 0 for stats in out.accounts), out.accounts
    assert [(stats.delivered, stats.failed) for stats in out.accounts] == [(0, 10)] * 3 + [(10, 0)]
    fault.seen(sent=40, delivered=arrived_once(server, numbers(10)), lost={"failed": 30}, seconds=seconds)
