"""Forked children start afresh (promise 7), in real processes."""

from __future__ import annotations

import os
import signal
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faults.fork_sweep import sweep
from faults.processes import WITH_THE_PROCESS, arrived_once, ended_cleanly, numbers
from faults.scenario import Scenario
from support.gunicorn import running_gunicorn
from support.process import run_program, running_program
from support.server import Reply, TelemetryServer
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

FORK = """
def fork(child):
    # The child runs `child` and leaves by os._exit, with its assertions in its exit code.
    pid = os.fork()
    if pid:
        return pid
    import faulthandler, traceback
    faulthandler.dump_traceback_later(20, exit=True)  # a hang prints its stacks and ends
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
    """`os.fork` with 10 events in the parent's queue; the child enqueues 3, flushes, enqueues 2, calls `os._exit`."""
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
    ended_cleanly(out)
    (stats,) = out.accounts
    assert (stats.enqueued, stats.delivered) == (10, 10)
    delivered = arrived_once(server, numbers(10), numbers(3, "child "))
    fault.seen(sent=15, delivered=delivered, lost={WITH_THE_PROCESS: 2})


def test_a_forked_child_leaves_the_parents_idle_connection_alone(
    fault: Scenario, server: TelemetryServer
) -> None:
    """`os.fork` while a connection to the endpoint is kept alive; then the child sends, and after it the parent."""
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
    ended_cleanly(out)
    connections = {request.ids[0].split()[0]: request.connection for request in server.requests}
    assert connections["first"] == connections["parent"] != connections["child"]
    delivered = arrived_once(server, numbers(2, "first "), numbers(2, "child "), numbers(2, "parent "))
    fault.seen(sent=6, delivered=delivered)


def test_a_forked_child_leaves_by_sys_exit(fault: Scenario, server: TelemetryServer) -> None:
    """`os.fork` with 10 events in the parent's queue; the child enqueues 3 and calls `sys.exit`."""
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
    ended_cleanly(out)
    assert sorted((stats.enqueued, stats.delivered) for stats in out.accounts) == [(3, 3), (10, 10)]
    fault.seen(sent=13, delivered=arrived_once(server, numbers(10), numbers(3, "child ")))


def test_the_parent_forks_while_its_threads_use_the_library(fault: Scenario, server: TelemetryServer) -> None:
    """30 forks while four threads keep enqueuing, flushing, closing, acquiring and releasing."""
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

            enqueue(client, 1, "warm ")  # loads what sending needs; the next test forks during that load
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
    ended_cleanly(out)
    sent = int(out.told("sent")[0])
    arrived_once(
        server,
        ["warm 0"],
        [f"parent {number} 0" for number in range(sent)],
        [f"child {number} {event}" for number in range(30) for event in range(2)],
        [f"lease {number} 0" for number in range(30)],
    )
    fault.seen(sent=sent + 91, delivered=len(server.accepted))


def test_the_parent_forks_while_its_sender_imports_urllib3(fault: Scenario, server: TelemetryServer) -> None:
    """`os.fork` during the sender's first import of urllib3; the child inherits the module's lock while it is held."""
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
    ended_cleanly(out)
    (stats,) = out.accounts
    assert stats.delivered == 5
    fault.seen(sent=8, delivered=arrived_once(server, numbers(5), numbers(3, "child ")))


def test_the_parent_forks_with_a_request_in_flight(fault: Scenario, server: TelemetryServer) -> None:
    """`os.fork` while the parent's request waits for its answer, on a reused connection."""
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
        ended_cleanly(out := running.end())
    connections = {request.ids[0].split()[0]: request.connection for request in server.requests}
    assert connections["first"] == connections["parent"] != connections["child"]
    (stats,) = out.accounts
    assert (stats.enqueued, stats.delivered) == (10, 10)
    delivered = arrived_once(server, numbers(5, "first "), numbers(5, "parent "), numbers(3, "child "))
    fault.seen(sent=13, delivered=delivered)


def test_the_program_becomes_a_daemon(fault: Scenario, server: TelemetryServer) -> None:
    """A double fork, with events before it, in the intermediate process and in the daemon, which ends normally."""
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
    )  # reads until the daemon, too, has closed its end of the pipes
    ended_cleanly(out)
    delivered = arrived_once(server, numbers(5, "program "), numbers(5, "daemon "))
    fault.seen(sent=12, delivered=delivered, lost={WITH_THE_PROCESS: 2})


def test_a_program_with_three_hosts_forks(fault: Scenario) -> None:
    """`os.fork` with events in three hosts' queues; parent and child end normally."""
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
        ended_cleanly(out)
        assert sorted(stats.delivered for stats in out.accounts) == [3, 3, 3, 5, 5, 5]
        delivered = sum(arrived_once(server, numbers(5), numbers(3, "child ")) for server in servers)
    fault.seen(sent=24, delivered=delivered)


@pytest.mark.parametrize("way", ["close_fds=False", "preexec_fn=os.getpid"])
def test_another_program_is_started_while_sending(fault: Scenario, server: TelemetryServer, way: str) -> None:
    """`subprocess.run` (argument in brackets) while a request is in flight; the other program inherits no socket."""
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
        ended_cleanly(out := running.end())
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
    """gunicorn preloads an application that makes its client in the master; 2 workers serve requests, then SIGTERM."""
    pytest.importorskip("gunicorn")
    threads_each = "2" if worker == "gthread" else "1"
    options = ("--preload", "--worker-class", worker, "--threads", threads_each, "--graceful-timeout", "20")
    with running_gunicorn(tmp_path, APPLICATION, server.url, *options) as (running, ask):
        with ThreadPoolExecutor(4) as threads:
            # A sync worker serves one request at a time, so two at once reach both workers.
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
    """Twelve programs each fork three times, at random moments while their sender sends for the first time."""
    done = sweep(seed=1, rounds=12)
    assert done.wrong == []
    assert done.forks == 36
    fault.seen(sent=done.sent, delivered=done.arrived)
