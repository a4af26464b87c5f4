"""Endpoint strings: one spelling each, the exporter that each one means, and a client of its own for each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adbc_telemetry import (
    DatabricksTelemetryExporter,
    InMemoryTelemetryExporter,
    JsonLinesTelemetryExporter,
    OtlpTelemetryExporter,
    TelemetryClient,
    TelemetryClientManager,
    install,
    instrument,
)
from adbc_telemetry.export.circuit_breaker import CircuitBreakerManager
from adbc_telemetry.export.endpoints import (
    checked_endpoint,
    make_exporter,
    normalize_endpoint,
    server_of,
    takes_credentials,
)
from support.clients import configuration
from support.logs import ids_of, make_logs
from support.server import Reply, TelemetryServer

SPELLINGS = [
    ("Host.Example", "host.example"),
    ("https://Host.example:443/", "host.example"),
    ("databricks://Host.example", "host.example"),
    ("Databricks://host.example:443/", "host.example"),
    ("databricks://localhost:8080", "http://localhost:8080"),
    ("http://host.example:80", "http://host.example"),
    ("127.0.0.1:8317", "http://127.0.0.1:8317"),
    ("otlp+http://Host.example:4318/", "otlp+http://host.example:4318"),
    ("OTLP+HTTP://host.example:80", "otlp+http://host.example"),
    ("otlp+https://host.example:443", "otlp+https://host.example"),
    ("otlp+https://host.example/tenant/", "otlp+https://host.example/tenant"),
    ("otlp+http://host.example/v1/logs?key=1", "otlp+http://host.example/v1/logs?key=1"),
    ("otlp+http://127.0.0.1:4318", "otlp+http://127.0.0.1:4318"),
    ("otlp+https://user:secret@localhost", "otlp+https://localhost"),
    ("otlp+http://[::1]:4318", "otlp+http://[::1]:4318"),
    ("otlp://", "otlp://"),
    ("file:///tmp/events.jsonl", "file:///tmp/events.jsonl"),
    ("FILE://localhost/tmp/a b.jsonl", "file:///tmp/a%20b.jsonl"),
    ("file:///tmp/a%20b.jsonl", "file:///tmp/a%20b.jsonl"),
]


@pytest.mark.parametrize(("endpoint", "name"), SPELLINGS)
def test_an_endpoint_has_one_spelling(endpoint: str, name: str) -> None:
    assert normalize_endpoint(endpoint) == name
    assert normalize_endpoint(name) == name


@pytest.mark.parametrize(
    ("endpoint", "advice"),
    [
        ("ftp://host", "databricks://, http"),
        ("kafka://host", r"otlp\+http"),
        ("otlp+grpc://host", r"otlp\+http"),
        ("grpc://host:4317", r"otlp\+http"),
        ("otlp://host", "write otlp\\+http:// or otlp\\+https://"),
        ("otlp+http://", "otlp\\+http://host:4318"),
        ("otlp+http:///v1/logs", "host"),
        ("databricks://", "host"),
        ("file://events.jsonl", "three slashes"),
        ("file://other-machine/events.jsonl", "three slashes"),
        ("file:///", "three slashes"),
        ("file:///folder/", "three slashes"),
        ("file:///folder%2F", "three slashes"),
        ("", "host"),
    ],
)
def test_an_endpoint_that_makes_no_sense_says_what_to_do(endpoint: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        normalize_endpoint(endpoint)
    with pytest.raises(ValueError, match=advice):
        TelemetryClientManager.get_instance().acquire(endpoint, configuration())


@pytest.mark.parametrize("endpoint", [None, 7, b"host"])
def test_an_endpoint_is_a_string(endpoint: Any) -> None:
    with pytest.raises(TypeError):
        normalize_endpoint(endpoint)


@pytest.mark.parametrize(
    ("endpoint", "kind", "url"),
    [
        ("databricks://host", DatabricksTelemetryExporter, "https://host/telemetry-unauth"),
        ("host", DatabricksTelemetryExporter, "https://host/telemetry-unauth"),
        ("http://localhost:8317", DatabricksTelemetryExporter, "http://localhost:8317/telemetry-unauth"),
        ("otlp+http://host:4318", OtlpTelemetryExporter, "http://host:4318/v1/logs"),
        ("otlp+https://host/tenant", OtlpTelemetryExporter, "https://host/tenant/v1/logs"),
        ("otlp+https://host/v1/logs", OtlpTelemetryExporter, "https://host/v1/logs"),
        ("otlp://", OtlpTelemetryExporter, "http://collector.example:4318/v1/logs"),
        ("file:///tmp/a%20b.jsonl", JsonLinesTelemetryExporter, None),
    ],
)
def test_an_endpoint_chooses_the_exporter(
    endpoint: str, kind: type[Any], url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.example:4318")
    exporter = make_exporter(checked_endpoint(endpoint), configuration(), None)

    assert type(exporter) is kind
    assert getattr(exporter, "endpoint_url", None) == url
    exporter.close()


@pytest.mark.parametrize(
    ("endpoint", "server"),
    [
        ("host.example", ("host.example", 443)),
        ("http://host.example", ("host.example", 80)),
        ("http://127.0.0.1:8317", ("127.0.0.1", 8317)),
        ("otlp+http://[::1]:4318", ("::1", 4318)),
        ("otlp+https://host/x", ("host", 443)),
        ("otlp://", None),
        ("file:///tmp/x", None),
    ],
)
def test_an_endpoint_knows_its_server(endpoint: str, server: tuple[str, int] | None) -> None:
    assert server_of(normalize_endpoint(endpoint)) == server


# Credentials.


@pytest.mark.parametrize(
    ("endpoint", "secure"),
    [
        ("databricks://host", True),
        ("http://host", False),
        ("otlp+http://host:4318", False),
        ("otlp+https://host", True),
        ("otlp+http://127.0.0.1:4318", True),
        ("otlp://", False),
        ("file:///tmp/x", True),
    ],
)
def test_credentials_go_over_tls_only_whatever_the_scheme(
    endpoint: str, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.example:4318")
    name = normalize_endpoint(endpoint)

    assert takes_credentials(name) is secure
    if secure:
        assert checked_endpoint(endpoint, dict) == name
    else:
        with pytest.raises(ValueError, match="https"):
            checked_endpoint(endpoint, dict)
        with pytest.raises(ValueError, match="https"):
            TelemetryClient(endpoint, configuration(), auth=dict)
    with pytest.raises(TypeError, match="auth"):
        checked_endpoint(endpoint, "token")  # type: ignore[arg-type]


def test_the_newest_lease_authenticates_to_an_otlp_endpoint_and_the_environment_adds_headers(
    server: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=7")
    server.always = lambda request: Reply(body=b"")
    manager = TelemetryClientManager.get_instance()
    endpoint = f"otlp+{server.url}"
    with (
        manager.acquire(endpoint, configuration(), auth=lambda: {"Authorization": "first"}) as first,
        manager.acquire(endpoint, configuration(), auth=lambda: {"Authorization": "second"}),
    ):
        (log,) = make_logs(1)
        first.client.enqueue(log)
        assert first.client.flush(20)

    headers = {name.lower(): value for name, value in server.requests[0].headers.items()}
    assert (server.requests[0].path, headers["authorization"], headers["x-tenant"]) == (
        "/v1/logs",
        "second",
        "7",
    )


# Clients.


def test_two_schemes_to_one_host_share_neither_client_nor_breaker() -> None:
    manager, breakers = TelemetryClientManager.get_instance(), CircuitBreakerManager.get_instance()
    ours, otlp, tenant = (
        manager.acquire(endpoint, configuration())
        for endpoint in (
            "http://localhost:4318",
            "otlp+http://localhost:4318",
            "otlp+http://localhost:4318/a",
        )
    )

    assert len({id(lease.client) for lease in (ours, otlp, tenant)}) == 3
    assert breakers.get_circuit_breaker(ours.client.host) is not breakers.get_circuit_breaker(
        otlp.client.host
    )
    assert manager.ref_count("OTLP+http://LOCALHOST:4318/") == 1
    assert manager.hosts() == sorted(lease.client.host for lease in (ours, otlp, tenant))
    for lease in (ours, otlp, tenant):
        assert lease.release()


def test_two_spellings_of_one_endpoint_share_a_client() -> None:
    manager = TelemetryClientManager.get_instance()
    with (
        manager.acquire("databricks://Host.example", configuration()) as one,
        manager.acquire("https://host.example:443/", configuration()) as other,
    ):
        assert one.client is other.client
        assert manager.ref_count("host.example") == 2


def test_a_file_endpoint_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "events.jsonl"
    path.parent.mkdir()
    logs = make_logs(3)
    with TelemetryClient(path.as_uri(), configuration()) as client:
        for log in logs:
            client.enqueue(log)

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["frontend_log_event_id"] for line in lines] == ids_of(logs)
    assert client.stats().delivered == 3


def test_a_spool_belongs_to_one_endpoint_alone(tmp_path: Path, server: TelemetryServer) -> None:
    server.always = lambda request: Reply(503 if request.path == "/v1/logs" else 200, body=b"")
    settings = configuration(spool_dir=tmp_path, max_retries=0)
    with TelemetryClient(f"otlp+{server.url}", settings) as otlp:
        otlp.enqueue(make_logs(1)[0])
    with TelemetryClient(server.url, settings) as other:
        other.flush(20)

    assert otlp.stats().spooled == 1
    assert [request.path for request in server.requests] == ["/v1/logs"]


# On a connection.


def sqlite() -> Any:
    import sqlite3

    return sqlite3.connect(":memory:")


def test_instrument_takes_any_endpoint(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    connection = instrument(sqlite(), path.as_uri())
    connection.execute("SELECT 1").fetchall()
    connection.close()

    operations = [
        json.loads(line)["entry"]["sql_driver_log"]["sql_operation"]["operation_detail"]["operation_type"]
        for line in path.read_text().splitlines()
    ]
    assert operations == ["CREATE_SESSION", "EXECUTE_STATEMENT", "DELETE_SESSION"]


def test_the_environment_may_name_any_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    monkeypatch.setenv("ADBC_TELEMETRY_ENDPOINT", path.as_uri())
    instrument(sqlite()).close()

    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("endpoint", ["ftp://host", "otlp+grpc://host", "file://events.jsonl"])
def test_an_unknown_scheme_is_an_error_as_an_argument_and_absent_in_the_environment(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = sqlite()
    with pytest.raises(ValueError):
        instrument(connection, endpoint)
    with pytest.raises(ValueError):
        install(endpoint)
    monkeypatch.setenv("ADBC_TELEMETRY_ENDPOINT", endpoint)

    assert instrument(connection) is connection
    memory = InMemoryTelemetryExporter()
    instrument(connection, exporter=memory).close()
    assert len(memory.logs) == 2


def test_an_otlp_endpoint_without_the_extra_says_what_to_install(tmp_path: Path) -> None:
    program = """
import os, sqlite3, sys
sys.modules["opentelemetry"] = None
from adbc_telemetry import InMemoryTelemetryExporter, TelemetryClient, TelemetryConfiguration, instrument
connection = sqlite3.connect(":memory:")
for call in (
    lambda: instrument(connection, "otlp+http://localhost:4318"),
    lambda: TelemetryClient("otlp+http://localhost:4318", TelemetryConfiguration(enabled=True)),
):
    try:
        call()
    except ValueError as error:
        assert "pip install 'adbc-telemetry[otel]'" in str(error), error
    else:
        raise SystemExit("no ValueError")
os.environ["ADBC_TELEMETRY_ENDPOINT"] = "otlp+http://localhost:4318"
assert instrument(connection) is connection
instrument(connection, "otlp+http://localhost:4318", exporter=InMemoryTelemetryExporter()).close()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_an_endpoint_loads_no_other_exporter_than_its_own(tmp_path: Path) -> None:
    program = """
import sys
from adbc_telemetry import TelemetryClient, TelemetryConfiguration
TelemetryClient(sys.argv[1], TelemetryConfiguration(enabled=True)).close()
unwanted = ("opentelemetry", "google", "urllib3", "adbc_telemetry.export.otlp", "adbc_telemetry.export.databricks")
loaded = [name for name in unwanted if name in sys.modules]
assert not loaded, loaded
"""
    path = (tmp_path / "events.jsonl").as_uri()
    subprocess.run([sys.executable, "-c", program, path], check=True, timeout=60)
