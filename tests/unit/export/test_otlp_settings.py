"""The settings of the OpenTelemetry exporter: endpoint, headers, and the extra that it needs."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from support.endpoints import TlsTelemetryServer, server_context
from support.logs import make_logs
from support.server import Reply, Request, TelemetryServer

pytest.importorskip("opentelemetry.proto")

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
)

from adbc_telemetry import (
    ExportOutcome,
    OtlpTelemetryExporter,
    TelemetryConfiguration,
    TelemetryExporter,
)


@pytest.fixture(autouse=True)
def nothing_of_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


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


def config_of(exporter: OtlpTelemetryExporter) -> TelemetryConfiguration:
    return exporter._transport._config


@pytest.mark.parametrize(
    ("environ", "timeout_ms"),
    [
        ({}, 10_000),
        ({"TIMEOUT": "2500"}, 2_500),
        ({"TIMEOUT": "10"}, 10_000),  # OpenTelemetry's exporter for Python reads seconds
        ({"TIMEOUT": "0.5"}, 500),
        ({"TIMEOUT": "2500", "LOGS_TIMEOUT": "700"}, 700),
        ({"TIMEOUT": "2500", "LOGS_TIMEOUT": "soon"}, 2_500),
        ({"TIMEOUT": "nan"}, 10_000),
        ({"TIMEOUT": "inf"}, 10_000),
        ({"TIMEOUT": "-5"}, 10_000),
        ({"TIMEOUT": "0"}, 10_000),
    ],
)
def test_the_environment_may_say_how_long_a_request_takes(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], timeout_ms: int
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)

    assert config_of(OtlpTelemetryExporter()).request_timeout_ms == timeout_ms
    assert config_of(OtlpTelemetryExporter(timeout_ms=1)).request_timeout_ms == 1


@pytest.mark.parametrize(
    ("environ", "compression"),
    [
        ({}, "none"),
        ({"COMPRESSION": "GZIP "}, "gzip"),
        ({"COMPRESSION": "gzip", "LOGS_COMPRESSION": "none"}, "none"),
        ({"COMPRESSION": "deflate"}, "none"),
    ],
)
def test_the_environment_may_say_how_bodies_are_compressed(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], compression: str
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)

    assert config_of(OtlpTelemetryExporter()).compression == compression
    assert config_of(OtlpTelemetryExporter(compression="gzip")).compression == "gzip"


def test_a_configuration_beats_the_environment_where_it_says_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2500")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    silent = TelemetryConfiguration(max_retries=7, max_request_bytes=1234)
    telling = TelemetryConfiguration(request_timeout_ms=600)

    config = config_of(OtlpTelemetryExporter.of_configuration(None, silent))
    assert (config.request_timeout_ms, config.compression) == (2_500, "gzip")
    assert (config.max_retries, config.max_request_bytes) == (7, 1234)
    assert config_of(OtlpTelemetryExporter.of_configuration(None, telling)).request_timeout_ms == 600


# TLS.


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def strict_server(authority: trustme.CA) -> Iterator[TlsTelemetryServer]:
    """Shows a certificate of the authority, and wants one from the other side."""
    context = server_context(authority.issue_cert("127.0.0.1"))
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    with TlsTelemetryServer(context) as running:
        running.always = lambda request: Reply(body=b"")
        yield running


def test_the_environment_may_name_authority_certificate_and_key(
    strict_server: TlsTelemetryServer,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    own = authority.issue_cert("client@example.org")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    own.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    own.private_key_pem.write_to_path(tmp_path / "client.key")
    files = {
        "CERTIFICATE": "authority.pem",
        "LOGS_CLIENT_CERTIFICATE": "client.pem",
        "CLIENT_KEY": "client.key",
    }
    for name, file in files.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", str(tmp_path / file))
    by_environment = OtlpTelemetryExporter(strict_server.url, max_retries=0)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE", str(tmp_path / "no such file"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", "")
    anonymous = OtlpTelemetryExporter(strict_server.url, max_retries=0)
    by_argument = OtlpTelemetryExporter(
        strict_server.url,
        max_retries=0,
        client_certificate=tmp_path / "client.pem",
        client_key=tmp_path / "client.key",
    )

    results = [each.export(make_logs(1)) for each in (by_environment, anonymous, by_argument)]

    for each in (by_environment, anonymous, by_argument):
        each.close()
    assert [bool(result) for result in results] == [True, False, True], results


def test_a_server_that_the_environments_authority_does_not_know_is_refused(
    strict_server: TlsTelemetryServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "another.pem")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "another.pem"))
    exporter = OtlpTelemetryExporter(strict_server.url, max_retries=0)

    result = exporter.export(make_logs(1))

    exporter.close()
    assert (result.outcome, result.reason) == (
        ExportOutcome.REJECTED,
        "the server's certificate was not accepted",
    )


@pytest.mark.parametrize("content", ["", "not PEM"])
def test_a_file_that_is_no_certificate_fails_the_export(tmp_path: Path, content: str) -> None:
    (tmp_path / "authority.pem").write_text(content)
    exporter = OtlpTelemetryExporter(
        "https://127.0.0.1:1", certificate=tmp_path / "authority.pem", max_retries=0
    )

    result = exporter.export(make_logs(1))

    exporter.close()
    assert result.outcome is ExportOutcome.FAILED
    assert result.reason == "SSLError"


@pytest.mark.parametrize("name", ["certificate", "client_certificate", "client_key"])
def test_a_file_that_is_not_there_is_an_error(tmp_path: Path, name: str) -> None:
    wrong: dict[str, Any] = {name: tmp_path / "no such file"}
    with pytest.raises(ValueError, match=name):
        OtlpTelemetryExporter(**wrong)


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
