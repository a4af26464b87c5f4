"""Late exit handlers: registered before the library's import, they run after its own handler (promises 5, 6, 7)."""

from __future__ import annotations

import sys
import textwrap
import threading
from pathlib import Path

import pytest

from faults.scenario import Scenario
from support.process import Ended, run_python
from support.server import Reply, TelemetryServer, refused_url

WITH_THE_PROCESS = "the process ended"

# `late` runs after the library's exit handler and prints its exceptions. A ResourceWarning is an error.
BEFORE = """
import atexit, os, sqlite3, sys, threading, time, traceback, warnings
warnings.simplefilter("error", ResourceWarning)
late = None

@atexit.register
def run_late():
    began = time.monotonic()
    late()
    print("late", time.monotonic() - began, flush=True)

from adbc_telemetry import TelemetryClient, TelemetryClientManager, TelemetryConfiguration, instrument
from adbc_telemetry import InMemoryTelemetryExporter, OtlpTelemetryExporter
from adbc_telemetry.schema import TelemetryFrontendLog

def config(**settings):
    return TelemetryConfiguration(**{"enabled": True, "flush_interval_ms": 60_000, **settings})

def connect():
    return instrument(sqlite3.connect(":memory:"), sys.argv[1], config=config())

def enqueue(client, count, prefix=""):
    for number in range(count):
        client.enqueue(TelemetryFrontendLog(frontend_log_event_id=f"{prefix}{number}"))

def tell(client):
    import msgspec
    print(msgspec.json.encode(client.stats()).decode(), flush=True)

def wait_until(condition):
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.001)

"""


def run_late(body: str, *arguments: str) -> Ended:
    """Run a program that sets `late`; it must print nothing to stderr."""
    out = run_python(BEFORE + textwrap.dedent(body), *arguments)
    assert (out.code, out.stderr) == (0, ""), out.stderr
    return out


def seconds(out: Ended) -> float:
    return float(out.told("late")[0])


def operations(server: TelemetryServer) -> list[str]:
    return [
        log["entry"]["sql_driver_log"]["sql_operation"]["operation_detail"]["operation_type"]
        for request in server.requests
        for log in request.logs
    ]


SENT_BEFORE = pytest.mark.parametrize(
    "before", ["", "client().flush()"], ids=["nothing was sent before", "something was sent before"]
)


@SENT_BEFORE
def test_a_late_handler_uses_a_connection_and_closes_it(
    fault: Scenario, server: TelemetryServer, before: str
) -> None:
    """A late exit handler executes two statements on a connection and closes it."""
    run_late(
        f"""
        def client():
            return connection._adbc_telemetry.connection.session.client

        connection = connect()
        connection.execute("SELECT 1").fetchall()
        {before}

        def late():
            connection.execute("SELECT 2").fetchall()
            connection.execute("SELECT 3").fetchall()
            connection.close()
        """,
        server.url,
    )
    told = operations(server)
    assert told[0] == "CREATE_SESSION"
    assert told[-1] == "DELETE_SESSION"
    assert told.count("EXECUTE_STATEMENT") == 3
    fault.seen(sent=5, delivered=len(set(server.accepted)))


@SENT_BEFORE
def test_a_late_handler_makes_a_connection(fault: Scenario, server: TelemetryServer, before: str) -> None:
    """A late exit handler opens a connection and closes it."""
    run_late(
        f"""
        def client():
            return other._adbc_telemetry.connection.session.client

        other = connect()
        {before}
        other.close()

        def late():
            with connect() as connection:
                connection.execute("SELECT 2").fetchall()
            connection.close()
        """,
        server.url,
    )
    assert operations(server).count("DELETE_SESSION") == 2
    fault.seen(sent=5, delivered=len(set(server.accepted)))


def test_a_late_handler_makes_a_client_and_uses_it_later(fault: Scenario, server: TelemetryServer) -> None:
    """A late exit handler makes a client, waits longer than `close_timeout_ms`, and then enqueues."""
    out = run_late(
        """
        def late():
            client = TelemetryClient(sys.argv[1], config(close_timeout_ms=50))
            began = time.monotonic()
            wait_until(lambda: time.monotonic() > began + 0.3)
            enqueue(client, 10)
            wait_until(lambda: client.stats().delivered == 10)  # at once
            assert client.close()
            tell(client)
        """,
        server.url,
    )
    (stats,) = out.accounts
    fault.settled(stats, sent=10, arrived=server.accepted)
    assert fault.delivered == 10


def test_a_late_handler_leaves_its_connection_open(fault: Scenario, server: TelemetryServer) -> None:
    """A late exit handler executes a statement; nothing closes the connection."""
    out = run_late(
        """
        connection = connect()
        client = connection._adbc_telemetry.connection.session.client

        def late():
            connection.execute("SELECT 2").fetchall()
            wait_until(lambda: client.stats().delivered == 2)  # at once, and not after a minute
            tell(client)
        """,
        server.url,
    )
    (stats,) = out.accounts
    fault.settled(stats, sent=2, arrived=server.accepted)
    assert fault.delivered == 2


def test_a_late_handler_does_not_wait(fault: Scenario, server: TelemetryServer) -> None:
    """A late exit handler enqueues while the endpoint is slow, and the process ends without a close."""
    release = threading.Event()
    server.replies.extend([Reply(), Reply(release=release)])
    out = run_late(
        """
        client = TelemetryClient(sys.argv[1], config())
        enqueue(client, 10)

        def late():
            enqueue(client, 3, "late ")
            tell(client)
        """,
        server.url,
    )
    release.set()
    (stats,) = out.accounts
    assert stats.closes
    assert (stats.enqueued, stats.delivered, stats.queued + stats.in_flight) == (13, 10, 3)
    fault.seen(sent=13, delivered=10, lost={WITH_THE_PROCESS: 3})


def test_a_late_close_when_the_endpoint_no_longer_answers(fault: Scenario, server: TelemetryServer) -> None:
    """The endpoint takes the events of the exit, but does not answer when a late exit handler closes the client."""
    release = threading.Event()
    server.replies.extend([Reply(), Reply(release=release)])
    out = run_late(
        """
        client = TelemetryClient(sys.argv[1], config(close_timeout_ms=500))
        enqueue(client, 10)

        def late():
            enqueue(client, 3, "late ")
            assert not client.close()
            tell(client)
        """,
        server.url,
    )
    release.set()
    assert 0.4 < seconds(out) < 0.5 + 0.25
    (stats,) = out.accounts
    fault.settled(stats, sent=13, seconds=seconds(out))
    assert (fault.delivered, fault.lost) == (10, {"failed": 3})


def test_a_late_handler_after_an_exit_that_could_not_deliver(
    fault: Scenario, server: TelemetryServer
) -> None:
    """The exit's close timed out; a late exit handler then enqueues, flushes and closes without a wait."""
    release = threading.Event()
    server.replies.append(Reply(release=release))
    out = run_late(
        """
        client = TelemetryClient(sys.argv[1], config(close_timeout_ms=300))
        enqueue(client, 10)

        def late():
            enqueue(client, 3, "late ")
            client.flush()
            client.close()
            tell(client)
        """,
        server.url,
    )
    release.set()
    assert seconds(out) < 0.1
    (stats,) = out.accounts
    fault.settled(stats, sent=13)
    assert fault.lost == {"failed": 10, "dropped_closed": 3}


def test_a_late_handler_with_one_healthy_and_two_hanging_hosts(
    fault: Scenario, server: TelemetryServer
) -> None:
    """Two of three hosts do not answer at exit; the third still takes the events of a late exit handler."""
    release = threading.Event()
    with TelemetryServer() as one, TelemetryServer() as two:
        for silent in (one, two):
            silent.replies.append(Reply(release=release))
        out = run_late(
            """
            clients = [TelemetryClient(url, config(close_timeout_ms=500)) for url in sys.argv[1:]]
            for client in clients:
                enqueue(client, 1)

            def late():
                for client in clients:
                    enqueue(client, 1, "late ")
                    client.close()
                    tell(client)
            """,
            *(one.url, server.url, two.url),
        )
        release.set()
    assert seconds(out) < 0.25
    accounts = [(stats.delivered, stats.failed, stats.dropped_closed) for stats in out.accounts]
    assert accounts == [(0, 1, 1), (2, 0, 0), (0, 1, 1)]
    fault.seen(sent=6, delivered=2, lost={"failed": 2, "dropped_closed": 2})


def test_a_late_handler_with_the_programs_exporter(fault: Scenario) -> None:
    """The exit closes the program's exporter, which may need it to deliver; later events are counted as dropped."""
    out = run_late(
        """
        class Exporter(InMemoryTelemetryExporter):
            def close(self):
                super().close()
                print("closed", flush=True)

        exporter = Exporter()
        client = TelemetryClient("host", config(), exporter=exporter)
        enqueue(client, 10)

        def late():
            enqueue(client, 3, "late ")
            client.close()
            tell(client)
            assert len(exporter.logs) == 10
        """
    )
    assert out.stdout.count("closed\n") == 1
    (stats,) = out.accounts
    fault.settled(stats, sent=13)
    assert fault.lost == {"dropped_closed": 3}


def test_a_late_handler_with_an_otlp_exporter(fault: Scenario, server: TelemetryServer) -> None:
    """A late exit handler enqueues for an OpenTelemetry collector that was in use before, and closes the client."""
    out = run_late(
        """
        exporter = OtlpTelemetryExporter(sys.argv[1])
        client = TelemetryClient("host", config(), exporter=exporter)
        enqueue(client, 10)
        client.flush()
        enqueue(client, 10)

        def late():
            enqueue(client, 3, "late ")
            assert client.close()
            tell(client)
        """,
        server_that_takes_anything(server),
    )
    (stats,) = out.accounts
    fault.settled(stats, sent=23)
    assert fault.delivered == 23
    assert len(server.requests) == 3


def server_that_takes_anything(server: TelemetryServer) -> str:
    server.always = lambda request: Reply(body=b"{}")
    return server.url


def test_a_late_handler_and_a_spool(fault: Scenario, tmp_path: Path) -> None:
    """The port refuses connections; the events of the exit and of a late exit handler go to the spool."""
    spool = tmp_path / "spool"
    out = run_late(
        """
        settings = config(spool_dir=sys.argv[2], max_retries=0, batch_size=4)
        client = TelemetryClient(sys.argv[1], settings)
        enqueue(client, 10)

        def late():
            enqueue(client, 3, "late ")
            client.close()
            tell(client)
        """,
        refused_url(),
        str(spool),
    )
    (stats,) = out.accounts
    fault.settled(stats, sent=13, arrived=[])
    assert fault.spooled == 13
    assert sum(len(file.read_bytes().splitlines()) for file in spool.glob("*.spool")) == 13


def test_the_exit_does_not_wait_for_the_circuit(fault: Scenario) -> None:
    """The program ends while the circuit is open and events wait for it (`circuit_open="retain"`)."""
    out = run_late(
        """
        settings = config(circuit_open="retain", circuit_breaker_threshold=1, max_retries=0)
        client = TelemetryClient(sys.argv[1], settings)
        enqueue(client, 1, "opens ")
        client.flush()
        enqueue(client, 10)
        print("last", time.monotonic(), flush=True)

        def late():
            print("began", time.monotonic(), flush=True)
            tell(client)
        """,
        refused_url(),
    )
    assert float(out.told("began")[0]) - float(out.told("last")[0]) < 2
    (stats,) = out.accounts
    fault.settled(stats, sent=11, arrived=[])
    assert fault.lost == {"failed": 1, "dropped_circuit_open": 10}


def test_a_connection_is_closed_during_interpreter_teardown(fault: Scenario, server: TelemetryServer) -> None:
    """A global's destructor closes its connection while Python tears down modules, when threads no longer run."""
    out = run_late(
        """
        import time as clock

        class Repository:
            def __init__(self):
                self.connection = connect()

            def __del__(self, clock=clock, print=print):
                began = clock.monotonic()
                self.connection.execute("SELECT 1").fetchall()
                self.connection.close()
                print("destroyed", clock.monotonic() - began, flush=True)

        repository = Repository()

        def late():
            pass
        """,
        server.url,
    )
    assert float(out.told("destroyed")[0]) < 0.1
    assert operations(server) == ["CREATE_SESSION"]
    fault.seen(sent=3, delivered=1, lost={WITH_THE_PROCESS: 2})


@pytest.mark.parametrize("host", ["127.0.0.1", "a-name.invalid"])
def test_no_thread_can_be_started_at_exit(fault: Scenario, server: TelemetryServer, host: str) -> None:
    """No thread can start once the interpreter ends, as from Python 3.12 on; nothing was sent before."""
    out = run_late(
        """
        import socket
        from urllib.parse import urlsplit
        port = urlsplit(sys.argv[1]).port
        look_up = socket.getaddrinfo
        socket.getaddrinfo = lambda host, *arguments: look_up("127.0.0.1", *arguments)
        client = TelemetryClient(f"http://{sys.argv[2]}:{port}", config())
        enqueue(client, 10)

        @atexit.register  # before the library's exit handler
        def start_no_more():
            def start_new_thread(*_):
                raise RuntimeError("can't create new thread at interpreter shutdown")

            threading._start_new_thread = start_new_thread

        def late():
            enqueue(client, 3, "late ")
            assert client.close()
            tell(client)
        """,
        server.url,
        host,
    )
    (stats,) = out.accounts
    fault.settled(stats, sent=13, arrived=server.accepted)
    assert fault.delivered == 13


# Subinterpreters.

SUBINTERPRETER = """
try:
    import _interpreters as interpreters
    isolated, plain = "isolated", "legacy"
    def run(config, code):
        made = interpreters.create(config)
        failure = interpreters.run_string(made, code)
        assert failure is None, failure
        interpreters.destroy(made)
except ImportError:
    import _xxsubinterpreters as interpreters
    isolated, plain = True, False
    def run(config, code):
        made = interpreters.create(isolated=config)
        interpreters.run_string(made, code)
        interpreters.destroy(made)

import sys
code = '''
import sys, time
sys.path[:0] = {path!r}
try:
    from adbc_telemetry import TelemetryClient, TelemetryClientManager, TelemetryConfiguration
except ImportError:  # a required extension module does not load in this kind of subinterpreter
    print("cannot be imported", flush=True)
else:
    import msgspec
    from adbc_telemetry.schema import TelemetryFrontendLog
    config = TelemetryConfiguration(enabled=True, flush_interval_ms=60_000)
    {body}
'''

def run_in(config, body, **names):
    body = body.strip().replace("\\n", "\\n    ")
    run(config, code.format(path=[*sys.path], body=body))

"""


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="extension modules do not load in isolated subinterpreters"
)
def test_a_subinterpreter_that_cannot_start_threads(fault: Scenario) -> None:
    """An isolated subinterpreter cannot start threads: `flush` returns False at once, and every event is dropped."""
    out = run_python(
        SUBINTERPRETER
        + textwrap.dedent(
            '''
            run_in(isolated, """
            client = TelemetryClient("http://127.0.0.1:9", config)
            for number in range(10):
                client.enqueue(TelemetryFrontendLog())
            began = time.monotonic()
            assert not client.flush()
            assert client.stats().dropped_closed == 10, client.stats()
            client.enqueue(TelemetryFrontendLog())
            manager = TelemetryClientManager.get_instance()
            leases = [manager.acquire("host", config) for _ in range(2)]
            assert leases[0].client is leases[1].client and manager.ref_count("host") == 2
            leases[0].client.enqueue(TelemetryFrontendLog())
            for lease in leases:
                lease.release()
            assert manager.hosts() == []
            assert leases[0].client.stats().dropped_closed == 1
            assert not client.close()
            assert time.monotonic() - began < 1
            client.enqueue(TelemetryFrontendLog())
            print(msgspec.json.encode(client.stats()).decode(), flush=True)
            """)
            '''
        )
    )
    assert (out.code, out.stderr) == (0, "")
    (stats,) = out.accounts
    fault.settled(stats, sent=12)
    assert fault.lost == {"dropped_closed": 12}


@pytest.mark.skipif(
    sys.version_info[:2] == (3, 12), reason="Python 3.12 crashes in legacy subinterpreters by itself"
)
def test_a_subinterpreter_ends_with_events(fault: Scenario, server: TelemetryServer) -> None:
    """A subinterpreter with events runs its exit handlers; if they left a thread, its end would abort the process."""
    out = run_python(
        SUBINTERPRETER
        + textwrap.dedent(
            f'''
            run_in(plain, """
            client = TelemetryClient({server.url!r}, config)
            for number in range(10):
                client.enqueue(TelemetryFrontendLog(frontend_log_event_id=str(number)))
            import atexit
            atexit._run_exitfuncs()
            """)
            '''
        )
    )
    assert "Fatal" not in out.stderr, out.stderr
    assert "more than one thread" not in out.stderr, out.stderr
    assert out.code == 0
    fault.seen(sent=10, delivered=len(set(server.accepted)))
