"""The end of the program, and its beginning over again in a fork (promise 7), in real processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from faults.fork_sweep import sweep
from faults.scenario import Scenario
from support.differential import PACKAGE
from support.gunicorn import running_gunicorn
from support.process import PROGRAM, run_program, run_python, running_program
from support.server import Reply, TelemetryServer, black_hole, raw_endpoint
from support.waiting import wait_until

if TYPE_CHECKING:
    from support.process import Ended

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")

WITH_THE_PROCESS = "the process was killed"


def numbers(count: int, prefix: str = "") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def arrived_once(server: TelemetryServer, *expected: list[str]) -> int:
    """Assert that these events have arrived, each once, and no other; returns how many."""
    assert sorted(server.accepted) == sorted(name for names in expected for name in names)
    return len(server.accepted)


def ended_well(out: Ended) -> None:
    assert (out.code, out.stderr) == (0, "")


# The program just ends.


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
    """The program ends, as its name in brackets says, with 10 events that nobody has flushed."""
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
    """The program ends with 10 events that nobody has flushed, after a flush of 10 others: urllib3, whose own exit
    hooks close its connections, is loaded and in use."""
    out = run_program(
        """
        client = make_client(sys.argv[1], close_timeout_ms=1_000)
        enqueue(client, 10)
        assert client.flush(10)
        enqueue(client, 10, "late ")
        """,
        server.url,
    )
    ended_well(out)
    arrived_once(server, numbers(10), numbers(10, "late "))
    (stats,) = out.accounts
    fault.settled(stats, sent=20, arrived=server.accepted)
    assert fault.delivered == 20


def test_a_thread_makes_clients_while_the_interpreter_ends(fault: Scenario, server: TelemetryServer) -> None:
    """The program ends with events in ten queues, under a daemon thread that makes one client after another."""
    out = run_program(
        """
        for number in range(10):
            enqueue(make_client(sys.argv[1]), 1, f"{number} ")
        config = TelemetryConfiguration(enabled=True)
        others = [TelemetryClient(sys.argv[1], config) for _ in range(500)]  # what the exit has to go through
        sys.setswitchinterval(0.00001)

        def make_more():
            while True:
                others.append(TelemetryClient(sys.argv[1], config))

        threading.Thread(target=make_more, daemon=True).start()
        """,
        server.url,
    )
    ended_well(out)
    assert [(stats.enqueued, stats.delivered) for stats in out.accounts] == [(1, 1)] * 10
    fault.seen(sent=10, delivered=arrived_once(server, [f"{number} 0" for number in range(10)]))


def test_the_user_presses_ctrl_c(fault: Scenario, server: TelemetryServer, tmp_path: Path) -> None:
    """SIGINT, which Python turns into a KeyboardInterrupt that nobody catches."""
    program = """
        signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where tests run in the background
        client = make_client(sys.argv[1])
        enqueue(client, 10)
        print("ready", flush=True)
        time.sleep(30)
        """
    with running_program(program, server.url, file=tmp_path / "program.py") as running:
        running.wait_for("ready")
        running.send(signal.SIGINT)
        out = running.end()
    # By the signal itself, or 1: modules that are first loaded at exit make CPython forget that it was the signal.
    assert out.code in (-signal.SIGINT, 1)
    assert out.stderr.endswith("\nKeyboardInterrupt\n")
    assert PACKAGE not in out.stderr
    arrived_once(server, numbers(10))
    (stats,) = out.accounts
    fault.settled(stats, sent=10, arrived=server.accepted)
    assert fault.delivered == 10


def test_the_user_presses_ctrl_c_again_while_the_exit_waits(fault: Scenario) -> None:
    """SIGINT during the close at exit, which waits for a black hole and has 20 s for it."""
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
    assert "KeyboardInterrupt" in out.stderr  # the user's own
    fault.seen(sent=10, delivered=0, lost={"the user did not wait": 10})


def test_sigterm_with_the_default_handler(fault: Scenario, server: TelemetryServer) -> None:
    """SIGTERM, which kills a Python process that does not handle it; 10 of 20 events had been flushed."""
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
    """SIGTERM, whose handler calls `sys.exit`, as servers do; the main thread is where the brackets say."""
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
    """`os._exit`, past everything that could deliver; 10 of 20 events had been flushed."""
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
    # In their order, none torn, none twice. The fourth batch was with the endpoint already.
    assert server.accepted == numbers(40)
    fault.seen(sent=100, delivered=40, lost={WITH_THE_PROCESS: 60})


def test_a_daemon_thread_enqueues_while_the_interpreter_ends(
    fault: Scenario, server: TelemetryServer
) -> None:
    """The program ends under a daemon thread that enqueues as fast as it can."""
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
                    time.sleep(0.0001)  # not to fill the queue faster than loopback takes it

        threading.Thread(target=produce, daemon=True).start()
        assert enough.wait(20)
        """,
        server.url,
    )
    ended_well(out)
    (stats,) = out.accounts
    assert stats.closes
    # All up to the moment at which the interpreter stops its threads, and nothing after it: no gap.
    assert server.accepted == numbers(len(server.accepted))
    assert len(server.accepted) >= max(500, stats.delivered)
    # More may come after the account was told, and some of that, too, goes out.
    sent = max(stats.enqueued, len(server.accepted))
    fault.seen(
        sent=sent, delivered=len(server.accepted), lost={WITH_THE_PROCESS: sent - len(server.accepted)}
    )


def test_a_thread_outlives_the_main_one(fault: Scenario, server: TelemetryServer) -> None:
    """The main thread ends first; another one, no daemon, still enqueues 10 events."""
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
    ended_well(out)
    arrived_once(server, numbers(10), numbers(10, "late "))
    (stats,) = out.accounts
    fault.settled(stats, sent=20, arrived=server.accepted)
    assert fault.delivered == 20


def seconds_of_a_bare_exit() -> float:
    """What the interpreter takes for its own end, with the same modules loaded and no client."""
    out = run_program(
        "import urllib3, adbc_telemetry.transport.http; print('last', time.monotonic(), flush=True)"
    )
    return out.at - float(out.told("last")[0])


def test_a_black_hole_at_exit(fault: Scenario) -> None:
    """The endpoint takes requests and never answers; the program ends."""
    with raw_endpoint(black_hole) as url:
        out = run_program(
            """
            client = make_client(sys.argv[1], close_timeout_ms=500)
            enqueue(client, 10)
            print("last", time.monotonic(), flush=True)
            """,
            url,
        )
    ended_well(out)
    seconds = out.at - float(out.told("last")[0])
    assert 0.4 < seconds < 0.5 + 0.25 + seconds_of_a_bare_exit()
    (stats,) = out.accounts
    fault.settled(stats, sent=10, arrived=[], seconds=seconds)
    assert fault.lost == {"failed": 10}


def test_three_black_holes_at_exit(fault: Scenario, server: TelemetryServer) -> None:
    """Three hosts take requests and never answer, a fourth is well; the program ends."""
    with raw_endpoint(black_hole) as one, raw_endpoint(black_hole) as two, raw_endpoint(black_hole) as three:
        out = run_program(
            """
            for url in sys.argv[1:]:
                enqueue(make_client(url, close_timeout_ms=500), 10)
            print("last", time.monotonic(), flush=True)
            """,
            *(one, two, three, server.url),
        )
    ended_well(out)
    seconds = out.at - float(out.told("last")[0])
    assert 0.4 < seconds < 0.5 + 0.25 + seconds_of_a_bare_exit()
    assert all(stats.closes and stats.queued == stats.in_flight == 0 for stats in out.accounts), out.accounts
    assert [(stats.delivered, stats.failed) for stats in out.accounts] == [(0, 10)] * 3 + [(10, 0)]
    fault.seen(sent=40, delivered=arrived_once(server, numbers(10)), lost={"failed": 30}, seconds=seconds)


# multiprocessing, whose children end past `atexit`.

# Defined where children can import it: `spawn` and `forkserver` start from the file.
CHILDREN = (
    PROGRAM
    + """
import io, multiprocessing
client = None

def get_client():
    global client
    if client is None:
        client = make_client(sys.argv[1])
    return client

def work(name):
    get_client().enqueue(TelemetryFrontendLog(frontend_log_event_id=name))
    return os.getpid()

def context():
    # This file's arguments, since a forkserver's children are not given them by themselves.
    return multiprocessing.get_context(sys.argv[2])

"""
)


def run_children(main: str, tmp_path: Path, server: TelemetryServer, method: str) -> Ended:
    body = "if __name__ == '__main__':\n" + textwrap.indent(textwrap.dedent(main), "    ")
    return run_python(CHILDREN + body, server.url, method, file=tmp_path / "program.py")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_end(
    fault: Scenario, server: TelemetryServer, method: str, tmp_path: Path
) -> None:
    """Three children each make a client and enqueue; one returns, one exits, one raises. The parent has sent too."""
    main = """
        def end(name):
            work(name)
            if name == "child 1":
                sys.exit(0)
            if name == "child 2":
                sys.stderr = io.StringIO()  # multiprocessing tells of what a child raises
                raise RuntimeError("of the program")

        """
    children = """
        work("parent")
        children = [context().Process(target=end, args=(f"child {n}",)) for n in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0, 0, 1]
        """
    body = textwrap.dedent(main) + "if __name__ == '__main__':\n" + textwrap.indent(children, "    ")
    out = run_python(CHILDREN + textwrap.dedent(body), server.url, method, file=tmp_path / "program.py")
    ended_well(out)
    fault.seen(sent=4, delivered=arrived_once(server, ["parent"], numbers(3, "child ")))


def test_children_of_multiprocessing_inherit_the_parents_client(
    fault: Scenario, server: TelemetryServer, tmp_path: Path
) -> None:
    """Three forked children use the client that the parent made, whose queue holds 10 events at that time."""
    out = run_children(
        """
        enqueue(get_client(), 10)
        children = [context().Process(target=work, args=(f"child {n}",)) for n in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        """,
        tmp_path,
        server,
        "fork",
    )
    ended_well(out)
    (stats,) = out.accounts
    assert (stats.enqueued, stats.delivered) == (10, 10)  # the parent's alone
    fault.seen(sent=13, delivered=arrived_once(server, numbers(10), numbers(3, "child ")))


def test_a_child_of_multiprocessing_is_terminated(
    fault: Scenario, server: TelemetryServer, tmp_path: Path
) -> None:
    """`Process.terminate`, which is SIGTERM: the child has enqueued one event and not flushed it."""
    out = run_children(
        """
        def wait(connection):
            work("child")
            connection.send("ready")
            time.sleep(30)

        work("parent")
        here, there = context().Pipe()
        child = context().Process(target=wait, args=(there,))
        child.start()
        here.recv()
        child.terminate()
        child.join()
        """,
        tmp_path,
        server,
        "fork",
    )
    ended_well(out)
    fault.seen(sent=2, delivered=arrived_once(server, ["parent"]), lost={WITH_THE_PROCESS: 1})


def test_a_child_of_multiprocessing_ends_before_a_black_hole(fault: Scenario) -> None:
    """A forked child of multiprocessing ends; the endpoint never answers."""
    with raw_endpoint(black_hole) as url:
        out = run_program(
            """
            import multiprocessing
            def child():
                enqueue(make_client(sys.argv[1], close_timeout_ms=500), 10)
                os.write(1, f"last {time.monotonic()}\\n".encode())
            process = multiprocessing.get_context("fork").Process(target=child)
            process.start()
            process.join()
            print("joined", time.monotonic())
            """,
            url,
        )
    ended_well(out)
    seconds = float(out.told("joined")[0]) - float(out.told("last")[0])
    assert 0.4 < seconds < 0.5 + 0.25 + 0.1
    fault.seen(sent=10, delivered=0, lost={"failed": 10}, seconds=seconds)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_workers_of_a_pool_end(
    fault: Scenario, server: TelemetryServer, method: str, tmp_path: Path
) -> None:
    """`multiprocessing.Pool` of two runs 40 tasks, each with an event, and is closed and joined."""
    out = run_children(
        """
        work("parent")
        pool = context().Pool(2)
        assert os.getpid() not in pool.map(work, [f"task {n}" for n in range(40)], chunksize=1)
        pool.close()
        pool.join()
        """,
        tmp_path,
        server,
        method,
    )
    ended_well(out)
    fault.seen(sent=41, delivered=arrived_once(server, ["parent"], numbers(40, "task ")))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_workers_of_an_executor_end(
    fault: Scenario, server: TelemetryServer, method: str, tmp_path: Path
) -> None:
    """`ProcessPoolExecutor` of two runs 40 tasks, each with an event, and is shut down."""
    out = run_children(
        """
        from concurrent.futures import ProcessPoolExecutor
        work("parent")
        with ProcessPoolExecutor(2, mp_context=context()) as pool:
            assert os.getpid() not in pool.map(work, [f"task {n}" for n in range(40)])
        """,
        tmp_path,
        server,
        method,
    )
    ended_well(out)
    fault.seen(sent=41, delivered=arrived_once(server, ["parent"], numbers(40, "task ")))


# os.fork by hand.

FORK = """
def fork(child):
    # The child runs `child` and leaves by os._exit, with its assertions in its exit code.
    pid = os.fork()
    if pid:
        return pid
    import faulthandler, traceback
    faulthandler.dump_traceback_later(20, exit=True)  # a hang is told, and ends
    code = 1
    try:
        child()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)

def join(pid):
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0, code

"""


def test_a_forked_child_flushes_and_leaves_by_os_exit(fault: Scenario, server: TelemetryServer) -> None:
    """`os.fork` with 10 events in the parent's queue; the child enqueues 3, flushes, enqueues 2 and `os._exit`s."""
    out = run_program(
        FORK
        + textwrap.dedent(
            """
            client = make_client(sys.argv[1])
            enqueue(client, 10)

            def child():
                assert client.stats().enqueued == 0
                enqueue(client, 3, "child ")
                assert client.flush(10)
                assert client.stats().delivered == 3
                enqueue(client, 2, "lost ")

            join(fork(child))
            """
        ),
        server.url,
    )
    ended_well(out)
    (stats,) = out.accounts
    assert (stats.enqueued, stats.delivered) == (10, 10)
    delivered = arrived_once(server, numbers(10), numbers(3, "child "))
    fault.seen(sent=15, delivered=delivered, lost={WITH_THE_PROCESS: 2})


def test_a_forked_child_leaves_the_parents_idle_connection_alone(
    fault: Scenario, server: TelemetryServer
) -> None:
    """`os.fork` with a connection to the endpoint kept alive; child and parent then send, one after the other."""
    out = run_program(
        FORK
        + textwrap.dedent(
            """
            client = make_client(sys.argv[1])
            enqueue(client, 2, "first ")
            assert client.flush(10)

            def child():
                enqueue(client, 2, "child ")
                assert client.flush(10)

            join(fork(child))
            enqueue(client, 2, "parent ")
            assert client.flush(10)
            """
        ),
        server.url,
    )
    ended_well(out)
    connections = {request.ids[0].split()[0]: request.connection for request in server.requests}
    assert connections["first"] == connections["parent"] != connections["child"]
    delivered = arrived_once(server, numbers(2, "first "), numbers(2, "child "), numbers(2, "parent "))
    fault.seen(sent=6, delivered=delivered)


def test_a_forked_child_leaves_by_sys_exit(fault: Scenario, server: TelemetryServer) -> None:
    """`os.fork` with 10 events in the parent's queue; the child enqueues 3 and `sys.exit`s."""
    out = run_program(
        """
        client = make_client(sys.argv[1])
        enqueue(client, 10)
        pid = os.fork()
        if pid == 0:
            enqueue(client, 3, "child ")
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        """,
        server.url,
    )
    ended_well(out)
    assert sorted((stats.enqueued, stats.delivered) for stats in out.accounts) == [(3, 3), (10, 10)]
    fault.seen(sent=13, delivered=arrived_once(server, numbers(10), numbers(3, "child ")))


def test_the_parent_forks_while_its_threads_are_in_the_middle_of_everything(
    fault: Scenario, server: TelemetryServer
) -> None:
    """30 forks while four threads enqueue, flush, close, acquire and release without a pause."""
    out = run_program(
        FORK
        + textwrap.dedent(
            """
            client = make_client(sys.argv[1], batch_size=10)
            manager = TelemetryClientManager.get_instance()
            config = TelemetryConfiguration(enabled=True, flush_interval_ms=60_000)
            stop = threading.Event()
            sent = 0

            def enqueue_and_flush():
                global sent
                while not stop.is_set():
                    enqueue(client, 1, f"parent {sent} ")
                    sent += 1
                    client.flush(0.001)
                    client.stats()

            def close():
                while not stop.is_set():
                    TelemetryClient(sys.argv[1], config).close()

            def acquire_and_release():
                while not stop.is_set():
                    manager.acquire("host", config).release()

            enqueue(client, 1, "warm ")  # what sending needs is loaded by then: see the test after this one
            assert client.flush(10)
            work = [enqueue_and_flush, close, acquire_and_release, acquire_and_release]
            threads = [threading.Thread(target=target, daemon=True) for target in work]
            for thread in threads:
                thread.start()

            def child(number):
                assert client.stats().enqueued == 0
                enqueue(client, 2, f"child {number} ")
                assert client.flush(10)
                assert client.stats().delivered == 2
                with manager.acquire(sys.argv[1], config) as lease:
                    enqueue(lease.client, 1, f"lease {number} ")

            for number in range(30):
                join(fork(lambda: child(number)))
            stop.set()
            for thread in threads:
                thread.join()
            assert client.close(10)
            assert client.stats().delivered == client.stats().enqueued == sent + 1
            print("sent", sent)
            """
        ),
        server.url,
    )
    ended_well(out)
    sent = int(out.told("sent")[0])
    arrived_once(
        server,
        ["warm 0"],
        [f"parent {number} 0" for number in range(sent)],
        [f"child {number} {event}" for number in range(30) for event in range(2)],
        [f"lease {number} 0" for number in range(30)],
    )
    fault.seen(sent=sent + 91, delivered=len(server.accepted))


def test_the_parent_forks_while_its_sender_loads_what_it_needs(
    fault: Scenario, server: TelemetryServer
) -> None:
    """`os.fork` in the middle of the sender's first import of urllib3, whose module lock the child inherits, held."""
    out = run_program(
        FORK
        + textwrap.dedent(
            """
            loading = threading.Event()

            class Slow:
                def find_spec(self, name, path=None, target=None):
                    if name == "urllib3.connection":
                        loading.set()
                        time.sleep(0.2)

            sys.meta_path.insert(0, Slow())
            client = make_client(sys.argv[1], close_timeout_ms=2_000)
            enqueue(client, 5)
            client.flush(0)
            assert loading.wait(10)

            def child():
                enqueue(client, 3, "child ")
                assert client.flush(3)

            join(fork(child))
            """
        ),
        server.url,
    )
    ended_well(out)
    (stats,) = out.accounts
    assert stats.delivered == 5
    fault.seen(sent=8, delivered=arrived_once(server, numbers(5), numbers(3, "child ")))


def test_the_parent_forks_with_a_request_in_flight(fault: Scenario, server: TelemetryServer) -> None:
    """`os.fork` while the parent's request waits for its answer, on a connection that has served one before."""
    program = FORK + textwrap.dedent(
        """
        client = make_client(sys.argv[1])
        enqueue(client, 5, "first ")
        assert client.flush(10)
        enqueue(client, 5, "parent ")
        assert not client.flush(0)
        signal.sigwait([signal.SIGUSR1])
        assert client.stats().in_flight == 5

        def child():
            assert client.stats().in_flight == 0
            enqueue(client, 3, "child ")
            assert client.flush(10)

        join(fork(child))
        print("child is over", flush=True)
        """
    )
    release = threading.Event()
    server.replies.extend([Reply(), Reply(release=release)])
    blocked = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
    with running_program(blocked + program, server.url) as running:
        wait_until(lambda: len(server.requests) == 2)
        running.send(signal.SIGUSR1)
        running.wait_for("child is over")
        assert server.accepted == [*numbers(5, "first "), *numbers(3, "child ")]
        release.set()
        ended_well(out := running.end())
    connections = {request.ids[0].split()[0]: request.connection for request in server.requests}
    assert connections["first"] == connections["parent"] != connections["child"]
    (stats,) = out.accounts
    assert (stats.enqueued, stats.delivered) == (10, 10)
    delivered = arrived_once(server, numbers(5, "first "), numbers(5, "parent "), numbers(3, "child "))
    fault.seen(sent=13, delivered=delivered)


def test_the_program_becomes_a_daemon(fault: Scenario, server: TelemetryServer) -> None:
    """The double fork: events before it, in the process between, and in the daemon, which ends normally."""
    out = run_program(
        """
        client = make_client(sys.argv[1])
        enqueue(client, 5, "program ")
        if os.fork():
            sys.exit(0)
        enqueue(client, 2, "between ")
        os.setsid()
        if os.fork():
            os._exit(0)
        assert client.stats().enqueued == 0
        enqueue(client, 5, "daemon ")
        """,
        server.url,
    )  # and to its pipes' end, which the daemon holds
    ended_well(out)
    delivered = arrived_once(server, numbers(5, "program "), numbers(5, "daemon "))
    fault.seen(sent=12, delivered=delivered, lost={WITH_THE_PROCESS: 2})


def test_a_program_with_three_hosts_forks(fault: Scenario) -> None:
    """`os.fork` with events in the queues of three hosts; parent and child end normally."""
    with TelemetryServer() as one, TelemetryServer() as two, TelemetryServer() as three:
        servers = (one, two, three)
        out = run_program(
            """
            for url in sys.argv[1:]:
                enqueue(make_client(url), 5)
            pid = os.fork()
            if pid == 0:
                for client in clients:
                    enqueue(client, 3, "child ")
                sys.exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            """,
            *(server.url for server in servers),
        )
        ended_well(out)
        assert sorted(stats.delivered for stats in out.accounts) == [3, 3, 3, 5, 5, 5]
        delivered = sum(arrived_once(server, numbers(5), numbers(3, "child ")) for server in servers)
    fault.seen(sent=24, delivered=delivered)


@pytest.mark.parametrize("way", ["close_fds=False", "preexec_fn=os.getpid"])
def test_another_program_is_started_while_sending(fault: Scenario, server: TelemetryServer, way: str) -> None:
    """`subprocess`, in the way in brackets, with a request in flight: the other program inherits no socket."""
    look = "import os, stat; print(sum(is_socket(fd) for fd in range(3, 256)))"
    look = f"""
import os, stat
def is_socket(fd):
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False
{look}
"""
    program = f"""
        import subprocess
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        client = make_client(sys.argv[1])
        enqueue(client, 5)
        client.flush(0)
        signal.sigwait([signal.SIGUSR1])
        assert client.stats().in_flight == 5
        out = subprocess.run([sys.executable, "-c", sys.argv[2]], capture_output=True, text=True, {way})
        print("sockets", out.stdout.strip(), out.stderr, flush=True)
        print("over", flush=True)
        """
    release = threading.Event()
    server.replies.append(Reply(release=release))
    with running_program(program, server.url, look) as running:
        wait_until(lambda: server.requests)
        running.send(signal.SIGUSR1)
        running.wait_for("over")
        release.set()
        ended_well(out := running.end())
    assert out.told("sockets") == ["0"]
    arrived_once(server, numbers(5))
    (stats,) = out.accounts
    fault.settled(stats, sent=5, arrived=server.accepted)


# A server that forks its workers.

APPLICATION = """
import os, pathlib, time
from adbc_telemetry import TelemetryClientManager, TelemetryConfiguration
from adbc_telemetry.schema import TelemetryFrontendLog

config = TelemetryConfiguration(enabled=True, flush_interval_ms=60_000, batch_size=7)
lease = TelemetryClientManager.get_instance().acquire(os.environ["TEST_ENDPOINT"], config)
lease.client.enqueue(TelemetryFrontendLog(frontend_log_event_id="master"))
here = pathlib.Path(__file__).parent
master = os.getpid()

def application(environ, start_response):
    assert os.getpid() != master
    name = environ["PATH_INFO"][1:]
    lease.client.enqueue(TelemetryFrontendLog(frontend_log_event_id=name))
    if name.startswith("held"):
        (here / name).touch()
        while not (here / "release").exists():
            time.sleep(0.005)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_a_server_forks_its_workers_and_is_stopped(
    fault: Scenario, server: TelemetryServer, worker: str, tmp_path: Path
) -> None:
    """gunicorn preloads an application that makes its client in the master; requests to 2 workers, then SIGTERM."""
    pytest.importorskip("gunicorn")
    threads_each = "2" if worker == "gthread" else "1"
    options = ("--preload", "--worker-class", worker, "--threads", threads_each, "--graceful-timeout", "20")
    with running_gunicorn(tmp_path, APPLICATION, server.url, *options) as (running, ask):
        with ThreadPoolExecutor(4) as threads:
            # Two at once, which a sync worker cannot have: both workers are at work.
            held = [threads.submit(ask, name) for name in numbers(2, "held-")]
            wait_until(lambda: len(list(tmp_path.glob("held-*"))) == 2)
            (tmp_path / "release").touch()
            answers = list(threads.map(ask, numbers(58, "request-")))
            assert {*answers, *(future.result() for future in held)} == {b"ok"}
        running.send(signal.SIGTERM)
        out = running.end()
    assert out.code == 0, out.stderr
    assert "Traceback" not in out.stderr
    delivered = arrived_once(server, ["master"], numbers(2, "held-"), numbers(58, "request-"))
    fault.seen(sent=61, delivered=delivered)


def test_forks_at_random_moments_of_the_first_deliveries_lose_nothing(fault: Scenario) -> None:
    """Twelve programs, each of which forks three times at random moments while its sender sends for the first time."""
    done = sweep(seed=1, rounds=12)
    assert done.wrong == []
    assert done.forks == 36
    fault.seen(sent=done.sent, delivered=done.arrived)
