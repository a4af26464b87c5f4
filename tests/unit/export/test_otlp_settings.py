"""The settings of the OpenTelemetry exporter: endpoint, headers, and the extra that it needs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from support.logs import make_logs
from support.server import Reply, Request, TelemetryServer

pytest.importorskip("opentelemetry.proto")

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
)

from adbc_telemetry import OtlpTelemetryExporter, TelemetryExporter


@pytest.fixture(autouse=True)
def nothing_of_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "HEADERS", "LOGS_ENDPOINT", "LOGS_HEADERS"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)


@pytest.fixture
def collector(server: TelemetryServer) -> TelemetryServer:
    server.always = lambda request: Reply(body=b"")
    return server


@pytest.fixture
def exporter(collector: TelemetryServer) -> Iterator[OtlpTelemetryExporter]:
    exporter = OtlpTelemetryExporter(collector.url, retry_delay_ms=1)
    yield exporter
    exporter.close()


def decoded(request: Request) -> ExportLogsServiceRequest:
    return ExportLogsServiceRequest.FromString(request.body)


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://localhost:4318", "http://localhost:4318/v1/logs"),
        ("http://localhost:4318/", "http://localhost:4318/v1/logs"),
        ("http://localhost:4318/v1/logs", "http://localhost:4318/v1/logs"),
        ("https://Otlp.example/otlp/", "https://otlp.example/otlp/v1/logs"),
        ("https://otlp.example?tenant=1", "https://otlp.example/v1/logs?tenant=1"),
        ("otlp.example", "https://otlp.example/v1/logs"),
        (" otlp.example:4318 ", "https://otlp.example:4318/v1/logs"),
        (None, "http://localhost:4318/v1/logs"),
    ],
)
def test_an_endpoint_is_a_base_url_or_that_of_its_logs(endpoint: str | None, url: str) -> None:
    assert OtlpTelemetryExporter(endpoint).endpoint_url == url


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"ENDPOINT": "http://a.example:4318/x/"}, "http://a.example:4318/x/v1/logs"),
        ({"LOGS_ENDPOINT": "http://b.example:4318/y"}, "http://b.example:4318/y"),
        ({"LOGS_ENDPOINT": "http://b.example:4318"}, "http://b.example:4318/"),
        ({"ENDPOINT": "http://a.example", "LOGS_ENDPOINT": "http://b.example/y"}, "http://b.example/y"),
        ({"ENDPOINT": "http://a.example", "LOGS_ENDPOINT": "ftp://b.example"}, "http://a.example/v1/logs"),
        ({"ENDPOINT": "http://", "LOGS_ENDPOINT": ""}, "http://localhost:4318/v1/logs"),
    ],
)
def test_the_environment_may_name_the_endpoint(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], url: str
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)

    assert OtlpTelemetryExporter().endpoint_url == url


def test_headers_go_with_every_request(collector: TelemetryServer) -> None:
    exporter = OtlpTelemetryExporter(collector.url, headers={"Api-Key": "a key"})
    exporter.export(make_logs(1))
    exporter.close()

    assert collector.requests[0].headers["Api-Key"] == "a key"


def test_the_environment_may_name_headers(
    collector: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20key , , x-tenant = 7,nonsense,=x")
    exporter = OtlpTelemetryExporter(collector.url)
    exporter.export(make_logs(1))
    exporter.close()

    headers = {name.lower(): value for name, value in collector.requests[0].headers.items()}
    assert (headers["api-key"], headers["x-tenant"]) == ("a key", "7")


def test_headers_do_not_travel_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="https"):
        OtlpTelemetryExporter("http://otlp.example", headers={"Api-Key": "a key"})

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret")
    exporter = OtlpTelemetryExporter("http://otlp.example")
    assert exporter._transport._auth is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": "ftp://otlp.example"},
        {"endpoint": ""},
        {"timeout_ms": 0},
        {"max_retries": -1},
        {"compression": "zip"},
    ],
)
def test_arguments_that_make_no_sense_are_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        OtlpTelemetryExporter(**wrong)


@pytest.mark.parametrize("wrong", [{"endpoint": 4318}, {"headers": {"a": 1}}])
def test_arguments_of_the_wrong_type_are_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        OtlpTelemetryExporter(**wrong)


def test_it_is_an_exporter() -> None:
    assert isinstance(OtlpTelemetryExporter(), TelemetryExporter)


def test_without_the_extra_the_constructor_says_what_to_install() -> None:
    program = """
import sys
sys.modules["opentelemetry"] = None
from adbc_telemetry import OtlpTelemetryExporter
try:
    OtlpTelemetryExporter()
except ImportError as error:
    assert "pip install 'adbc-telemetry[otel]'" in str(error), error
else:
    raise SystemExit("no ImportError")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_importing_the_exporter_loads_neither_opentelemetry_nor_urllib3() -> None:
    program = """
import sys
import adbc_telemetry
from adbc_telemetry import OtlpTelemetryExporter
loaded = [name for name in sys.modules if name.split(".")[0] in ("opentelemetry", "google", "urllib3")]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
