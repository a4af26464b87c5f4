"""The library's threads import only inside the fork gate: a child would inherit a held module lock for ever."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from support.endpoints import TlsTelemetryServer, server_context
from support.process import run_python
from support.server import Reply, TelemetryServer, black_hole, raw_endpoint, refused_url

WATCHED = """
import atexit, sys, threading
outside = []

@atexit.register  # registered before the library's import, so that it runs after its exit handler
def tell():
    import collections  # prints the imports of the exit, too
    print("outside", sorted(set(outside)))
    print("imported", bool(inside))

inside = []

def watch(event, arguments):
    if event == "import" and threading.current_thread().name.startswith("adbc-telemetry"):
        from adbc_telemetry.core.fork import fork_gate
        (inside if fork_gate._lock._is_owned() else outside).append(arguments[0])

from adbc_telemetry import *
from adbc_telemetry.schema import OperationType, StatementType, TelemetryFrontendLog
sys.addaudithook(watch)

def settings(**given):
    quick = {"flush_interval_ms": 1, "max_retries": 1, "retry_delay_ms": 1}
    return TelemetryConfiguration(**{"enabled": True, **quick, **given})

def send(client, count=10):
    for _ in range(count):
        client.enqueue(TelemetryFrontendLog(frontend_log_event_id="an event"))
    client.flush(10)

"""

DELIVERY = "client = TelemetryClient(sys.argv[1], settings())\nsend(client)\nsend(client)\n"


def imports_outside(body: str, *arguments: str) -> str:
    """What the program's sender imports outside the gate; the program prints it at its end."""
    ended = run_python(WATCHED + textwrap.dedent(body), *arguments, timeout=40)
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.told("imported") == ["True"], "the audit hook saw no import"
    (outside,) = ended.told("outside")
    return outside


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> trustme.CA:
    ca = trustme.CA()
    bundle = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    return ca


@pytest.fixture
def tls_server(authority: trustme.CA) -> Iterator[TlsTelemetryServer]:
    with TlsTelemetryServer(server_context(authority.issue_cert("127.0.0.1", "localhost"))) as running:
        yield running


@pytest.mark.parametrize(
    "replies",
    [
        pytest.param([], id="accepted"),
        pytest.param([Reply(500)], id="500"),
        pytest.param([Reply(429, headers={"Retry-After": "0"})], id="429"),
        pytest.param(
            [Reply(503, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})], id="503 until a date"
        ),
        pytest.param([Reply(413)], id="413"),
        pytest.param([Reply(401)], id="401"),
        pytest.param([Reply(302, headers={"Location": "http://elsewhere.example/"})], id="a redirect"),
        pytest.param([Reply(200, body=b"<html>")], id="not an answer of the service"),
    ],
)
def test_delivery_imports_nothing_outside_the_gate(server: TelemetryServer, replies: list[Reply]) -> None:
    server.replies.extend(replies)
    assert imports_outside(DELIVERY, server.url) == "[]"


@pytest.mark.parametrize("setting", ["compression='gzip'", "circuit_breaker_enabled=False"])
def test_settings_make_no_difference(server: TelemetryServer, setting: str) -> None:
    body = f"client = TelemetryClient(sys.argv[1], settings({setting}))\nsend(client)\n"
    assert imports_outside(body, server.url) == "[]"


def test_tls_imports_nothing_outside_the_gate(tls_server: TlsTelemetryServer) -> None:
    assert imports_outside(DELIVERY, tls_server.url) == "[]"
    assert tls_server.accepted


def test_an_untrusted_server_imports_nothing_outside_the_gate(tls_server: TlsTelemetryServer) -> None:
    os.environ.pop("SSL_CERT_FILE")
    assert imports_outside(DELIVERY, tls_server.url) == "[]"
    assert not tls_server.accepted


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(None, id="a refused connection"),
        pytest.param("https://no-such-name.invalid", id="an unknown name"),
        pytest.param("https://b\u00fccher.invalid", id="an international name"),
        pytest.param(f"https://{'x' * 70}.invalid", id="a label that is too long"),
        pytest.param("http://localhost:1", id="a name of this machine"),
    ],
)
def test_a_dead_endpoint_imports_nothing_outside_the_gate(url: str | None) -> None:
    assert imports_outside(DELIVERY, url or refused_url()) == "[]"


def test_a_timeout_imports_nothing_outside_the_gate() -> None:
    body = "client = TelemetryClient(sys.argv[1], settings(request_timeout_ms=50))\nsend(client)\n"
    with raw_endpoint(black_hole) as url:
        assert imports_outside(body, url) == "[]"


def test_a_proxy_imports_nothing_outside_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", refused_url().replace("http://", "http://name:secret@"))
    assert imports_outside(DELIVERY, "https://telemetry.example") == "[]"


def test_flags_import_nothing_outside_the_gate(server: TelemetryServer) -> None:
    body = """
    import time
    from adbc_telemetry.feature_flags import FeatureFlags
    flags = FeatureFlags(sys.argv[1], settings())
    flags.get("a flag")
    deadline = time.monotonic() + 10
    while flags._fetching and time.monotonic() < deadline:
        time.sleep(0.01)
    """
    assert imports_outside(body, server.url) == "[]"


def test_otlp_imports_nothing_outside_the_gate(server: TelemetryServer) -> None:
    body = """
    exporter = OtlpTelemetryExporter(sys.argv[1])
    send(TelemetryClient(sys.argv[1], settings(), exporter=exporter))
    """
    assert imports_outside(body, server.url) == "[]"


def test_statements_import_nothing_outside_the_gate(server: TelemetryServer) -> None:
    body = """
    client = TelemetryClient(sys.argv[1], settings())
    session = TelemetrySessionContext(session_id="one", client=client)
    with StatementTelemetryContext(
        session, statement_type=StatementType.QUERY, operation_type=OperationType.EXECUTE_STATEMENT
    ) as statement:
        statement.record_error(ValueError("of the program"))
    client.flush(10)
    """
    assert imports_outside(body, server.url) == "[]"


def test_the_spool_imports_nothing_outside_the_gate(server: TelemetryServer, tmp_path: Path) -> None:
    body = """
    client = TelemetryClient(sys.argv[1], settings(spool_dir=sys.argv[2]))
    send(client)
    client.close()
    """
    assert imports_outside(body, refused_url(), str(tmp_path)) == "[]"
    (segment,) = tmp_path.glob("*.spool")
    with segment.open("ab") as torn:
        torn.write(b"torn")
    server.replies.extend([Reply(500), Reply(500)])
    for _ in range(2):
        assert imports_outside(body, server.url, str(tmp_path)) == "[]"


def test_an_exporter_that_raises_imports_nothing_outside_the_gate(server: TelemetryServer) -> None:
    body = """
    import logging
    from adbc_telemetry.testing import BrokenExporter
    logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
    send(TelemetryClient(sys.argv[1], settings(), exporter=BrokenExporter()))
    send(TelemetryClient("http://localhost:1", settings()))
    """
    assert imports_outside(body, server.url) == "[]"


def test_the_exit_imports_nothing_outside_the_gate(server: TelemetryServer) -> None:
    body = """
    client = TelemetryClient(sys.argv[1], settings(flush_interval_ms=60_000))
    client.enqueue(TelemetryFrontendLog(frontend_log_event_id="an event"))
    """
    assert imports_outside(body, server.url) == "[]"
    assert server.accepted == ["an event"]
