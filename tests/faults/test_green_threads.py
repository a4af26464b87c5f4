"""Under gevent and eventlet, patched first or late, the sender is a real thread and the hub keeps running."""

from __future__ import annotations

import json
import signal
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from faults.scenario import Scenario
from support.endpoints import TlsTelemetryServer, server_context
from support.gunicorn import running_gunicorn
from support.process import Ended, running_python
from support.server import TelemetryServer, black_hole, raw_endpoint

pytest.importorskip("gevent")
pytest.importorskip("eventlet")

PATCH = {
    "gevent": "from gevent import monkey\nmonkey.patch_all()\n",
    "eventlet": "import eventlet\neventlet.monkey_patch()\n",
}
SPAWN = {
    "gevent": "import gevent\nspawn, pause, kill_all = gevent.spawn, gevent.sleep, gevent.killall\n",
    "eventlet": "import eventlet\nspawn, pause = eventlet.spawn, eventlet.sleep\n",
}

CLIENT = """
import json, sys, time
from adbc_telemetry import TelemetryClient, TelemetryConfiguration
from adbc_telemetry.schema import TelemetryFrontendLog

def make_client(**settings):
    return TelemetryClient(sys.argv[1], TelemetryConfiguration(**{"enabled": True, "batch_size": 10, **settings}))

def enqueue(client, count, prefix=""):
    for number in range(count):
        client.enqueue(TelemetryFrontendLog(frontend_log_event_id=f"{prefix}{number}"))

def tell(client):
    stats = client.stats()
    print(json.dumps([stats.enqueued, stats.delivered, stats.failed]), flush=True)

"""

GREEN = pytest.mark.parametrize("library", ["gevent", "eventlet"])
WHEN = pytest.mark.parametrize("patched", ["first", "late", "after the client", "never"])


def run(code: str, *arguments: str, timeout: float = 30) -> Ended:
    """Run a program without warnings: gevent and eventlet warn about late patching and about themselves."""
    with running_python(code, *arguments, options=("-W", "ignore")) as running:
        return running.end(timeout)


def program(library: str, patched: str, body: str) -> str:
    """A program that patches at the given time, makes `client`, and runs `body`."""
    patch, spawn, make = PATCH[library], SPAWN[library], "client = make_client()\n"
    if patched == "first":
        code = patch + spawn + CLIENT + make
    elif patched == "late":
        code = CLIENT + patch + spawn + make
    elif patched == "after the client":
        code = CLIENT + make + "enqueue(client, 5, 'early ')\nclient.flush(10)\n" + patch + spawn
    else:
        code = spawn + CLIENT + make
    return code + textwrap.dedent(body)


@GREEN
@WHEN
def test_all_events_of_green_threads_arrive(
    fault: Scenario, server: TelemetryServer, library: str, patched: str
) -> None:
    """Twenty green threads enqueue and flush; the brackets say when the program patches."""
    body = """
    flushed = []

    def work(number):
        enqueue(client, 10, f"{number} ")
        pause(0)
        flushed.append(client.flush(20))

    threads = [spawn(work, number) for number in range(20)]
    deadline = time.monotonic() + 20
    while len(flushed) < 20 and time.monotonic() < deadline:
        pause(0.01)
    assert flushed == [True] * 20, flushed
    assert client.close()
    tell(client)
    """
    out = run(program(library, patched, body), server.url)
    assert (out.code, out.stderr) == (0, "")
    early = 5 if patched == "after the client" else 0
    assert json.loads(out.stdout) == [200 + early, 200 + early, 0]
    assert len(set(server.accepted)) == len(server.accepted)
    fault.seen(sent=200 + early, delivered=len(server.accepted))


@GREEN
@pytest.mark.parametrize("patched", ["first", "late", "after the client"])
def test_a_program_that_just_ends_delivers(
    fault: Scenario, server: TelemetryServer, library: str, patched: str
) -> None:
    """A patched program ends with unflushed events."""
    out = run(program(library, patched, "enqueue(client, 10)\n"), server.url)
    assert (out.code, out.stderr) == (0, "")
    sent = 15 if patched == "after the client" else 10
    fault.seen(sent=sent, delivered=len(set(server.accepted)))
    assert fault.delivered == sent


@GREEN
@pytest.mark.parametrize("patched", ["first", "late", "after the client"])
def test_tls_works_in_a_patched_program(
    fault: Scenario,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    library: str,
    patched: str,
) -> None:
    """A patched program delivers over TLS."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with TlsTelemetryServer(server_context(authority.issue_cert("127.0.0.1"))) as server:
        out = run(program(library, patched, "enqueue(client, 10)\nassert client.close()\n"), server.url)
    assert (out.code, out.stderr) == (0, "")
    sent = 15 if patched == "after the client" else 10
    fault.seen(sent=sent, delivered=len(set(server.accepted)))
    assert fault.delivered == sent


@GREEN
@pytest.mark.parametrize("waits", ["client.flush(1)", "client.close(1)"])
@pytest.mark.parametrize("patched", ["first", "late", "never"])
def test_the_hub_runs_while_a_green_thread_waits(
    fault: Scenario, library: str, waits: str, patched: str
) -> None:
    """One green thread waits a second for an endpoint that does not answer; another one keeps reading the clock."""
    body = f"""
    enqueue(client, 10)
    ended = []

    def wait():
        {waits}
        ended.append(True)

    spawn(wait)
    gaps, last = [], time.monotonic()
    while not ended and len(gaps) < 10_000:
        pause(0.001)
        now = time.monotonic()
        gaps.append(now - last)
        last = now
    print(len(gaps), max(gaps))
    import os
    os._exit(0)
    """
    with raw_endpoint(black_hole) as url:
        out = run(program(library, patched, body), url)
    assert (out.code, out.stderr) == (0, "")
    turns, longest = out.stdout.split()
    assert int(turns) > 50
    assert float(longest) < 0.5  # a blocked hub would stand still for the whole second
    fault.seen(sent=10, delivered=0, lost={"the program ends itself": 10})


@GREEN
def test_two_green_threads_close_one_client(fault: Scenario, server: TelemetryServer, library: str) -> None:
    """Two green threads close the client; the second waits for the first, and both return True."""
    body = """
    enqueue(client, 100)
    closed = []
    for _ in range(2):
        spawn(lambda: closed.append(client.close(10)))
    deadline = time.monotonic() + 15
    while len(closed) < 2 and time.monotonic() < deadline:
        pause(0.01)
    assert closed == [True, True], closed
    tell(client)
    """
    out = run(program(library, "first", body), server.url)
    assert (out.code, out.stderr) == (0, "")
    assert json.loads(out.stdout) == [100, 100, 0]
    fault.seen(sent=100, delivered=len(set(server.accepted)))


APPLICATION = """
import os
from adbc_telemetry import TelemetryClient, TelemetryConfiguration
from adbc_telemetry.schema import TelemetryFrontendLog

client = TelemetryClient(
    os.environ["TEST_ENDPOINT"], TelemetryConfiguration(enabled=True, flush_interval_ms=60_000)
)

def application(environ, start_response):
    client.enqueue(TelemetryFrontendLog(frontend_log_event_id=environ["PATH_INFO"].lstrip("/")))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")
@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["not preloaded", "preloaded"])
def test_gunicorn_with_gevent_workers(
    fault: Scenario, server: TelemetryServer, tmp_path: Path, preload: tuple[str, ...]
) -> None:
    """gunicorn with two gevent workers serves 60 requests with one event each, then SIGTERM."""
    pytest.importorskip("gunicorn")
    options = (*preload, "--worker-class", "gevent", "--graceful-timeout", "2")
    warnings = ("-W", "ignore")  # gevent warns about late patching
    with running_gunicorn(tmp_path, APPLICATION, server.url, *options, interpreter_options=warnings) as (
        running,
        ask,
    ):
        with ThreadPoolExecutor(4) as threads:
            assert set(threads.map(ask, (f"request-{number}" for number in range(60)))) == {b"ok"}
        running.send(signal.SIGTERM)
        out = running.end()
    assert out.code == 0, out.stderr
    assert "Traceback" not in out.stderr
    assert sorted(server.accepted) == sorted(f"request-{number}" for number in range(60))
    fault.seen(sent=60, delivered=60)


GUARDED = """
import pytest_socket, sys
from adbc_telemetry import TelemetryClient, TelemetryConfiguration
from adbc_telemetry.schema import TelemetryFrontendLog

def send(prefix):
    for number in range(10):
        client.enqueue(TelemetryFrontendLog(frontend_log_event_id=f"{prefix} {number}"))
    assert client.flush(10)

guard = {"all": pytest_socket.disable_socket, "hosts": lambda: pytest_socket.socket_allow_hosts(["192.0.2.1"])}
guard[sys.argv[2]]()
client = TelemetryClient(
    sys.argv[1], TelemetryConfiguration(enabled=True, max_retries=0, circuit_breaker_threshold=5)
)
send("guarded")
pytest_socket._remove_restrictions()
send("free")
client.close()
stats = client.stats()
print(stats.delivered, stats.failed, stats.closes)
"""


@pytest.fixture
def guarded(request: pytest.FixtureRequest) -> str:
    pytest.importorskip("pytest_socket")
    return str(request.param)


@pytest.mark.parametrize("guarded", ["all", "hosts"], indirect=True)
def test_sockets_that_are_replaced_for_a_while(
    fault: Scenario, server: TelemetryServer, guarded: str
) -> None:
    """pytest-socket blocks sockets before the first delivery and unblocks them later: the first batch fails, the second
    arrives."""
    out = run(GUARDED, server.url, guarded)
    assert (out.code, out.stderr) == (0, "")
    assert out.stdout.split() == ["10", "10", "True"]
    assert server.accepted == [f"free {number}" for number in range(10)]
    fault.seen(sent=20, delivered=10, lost={"failed": 10})


PROXIED = """
import socket, sys
made = []

class Traced(socket.socket):
    def connect(self, address):
        made.append(address)
        return super().connect(address)

socket.socket = Traced
from adbc_telemetry import TelemetryClient, TelemetryConfiguration
from adbc_telemetry.schema import TelemetryFrontendLog
client = TelemetryClient(sys.argv[1], TelemetryConfiguration(enabled=True))
client.enqueue(TelemetryFrontendLog(frontend_log_event_id="an event"))
client.close()
print(client.stats().delivered, len(made))
"""


def test_connections_go_through_the_programs_socket_class(fault: Scenario, server: TelemetryServer) -> None:
    """The program replaces `socket.socket` with its own class, as SOCKS libraries do."""
    out = run(PROXIED, server.url)
    assert (out.code, out.stderr) == (0, "")
    assert out.stdout.split() == ["1", "1"]
    fault.seen(sent=1, delivered=1)
