"""Compressed bodies: smaller ones, and what an endpoint says that takes none."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from adbc_telemetry import DatabricksTelemetryExporter, OtlpTelemetryExporter, TelemetryConfiguration
from adbc_telemetry.core import zstd
from adbc_telemetry.transport.compression import compressed
from support.logs import ids_of, make_logs
from support.server import Reply, Request, TelemetryServer

needs_zstd = pytest.mark.skipif(not zstd.is_available(), reason="needs zstd")


@needs_zstd
def test_a_body_travels_as_zstd_where_that_is_asked_for(server: TelemetryServer) -> None:
    server.always = lambda request: Reply(body=b"")
    logs = make_logs(50)
    exporters = (
        DatabricksTelemetryExporter(server.url, TelemetryConfiguration(compression="zstd")),
        OtlpTelemetryExporter(server.url, compression="zstd"),
    )
    for exporter in exporters:
        assert exporter.export(logs).delivered == 50
        exporter.close()

    assert [request.headers["Content-Encoding"] for request in server.requests] == ["zstd", "zstd"]
    plain = zstd.zstd().decompress(server.requests[0].raw)
    sent = [json.loads(text)["frontend_log_event_id"] for text in json.loads(plain)["protoLogs"]]
    assert sent == ids_of(logs)
    assert len(server.requests[0].raw) < len(plain) / 3


@needs_zstd
def test_zstd_is_smaller_than_gzip_and_gzip_than_nothing() -> None:
    body = json.dumps([{"id": number, "name": "EXECUTE_STATEMENT"} for number in range(1000)]).encode()
    assert len(compressed(body, "zstd")) < len(compressed(body, "gzip")) < len(compressed(body, "none"))


@pytest.mark.parametrize("compression", ["gzip", pytest.param("zstd", marks=needs_zstd)])
def test_an_endpoint_that_does_not_take_it_gets_bodies_as_they_are(
    server: TelemetryServer, compression: Any
) -> None:
    def takes_none(request: Request) -> Reply:
        return Reply(415) if "Content-Encoding" in request.headers else Reply()

    server.always = takes_none
    exporter = DatabricksTelemetryExporter(server.url, TelemetryConfiguration(compression=compression))
    for _ in range(2):
        assert exporter.export(make_logs(3)).delivered == 3
    exporter.close()

    assert [request.headers.get("Content-Encoding") for request in server.requests] == [
        compression,
        None,
        None,
    ]


def test_a_plain_body_that_is_refused_is_not_sent_again(server: TelemetryServer) -> None:
    server.always = lambda request: Reply(415)
    exporter = DatabricksTelemetryExporter(server.url, TelemetryConfiguration())
    assert exporter.export(make_logs(1)).reason == "HTTP 415"
    exporter.close()
    assert len(server.requests) == 1


def test_without_the_package_zstd_is_an_error_as_an_argument_and_absent_in_the_environment() -> None:
    program = """
import sys
sys.modules["backports"] = sys.modules["compression"] = None
from adbc_telemetry import TelemetryClient, TelemetryConfiguration
config = TelemetryConfiguration(enabled=True, compression="zstd")
assert "pip install 'adbc-telemetry[zstd]'" in config.validate()[0]
try:
    TelemetryClient("host", config)
except ValueError as error:
    assert "adbc-telemetry[zstd]" in str(error)
else:
    raise SystemExit("no ValueError")
environ = {"DATABRICKS_TELEMETRY_COMPRESSION": "zstd"}
assert TelemetryConfiguration.from_properties(environ=environ).compression == "none"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_zstd_is_not_loaded_by_us_where_it_is_not_asked_for() -> None:
    program = """
import sys
from adbc_telemetry import TelemetryClient, TelemetryConfiguration
from adbc_telemetry.core.zstd import zstd
from adbc_telemetry.schema import TelemetryFrontendLog
with TelemetryClient("http://127.0.0.1:1", TelemetryConfiguration(enabled=True, max_retries=0)) as client:
    assert "backports.zstd" not in sys.modules  # urllib3 loads it later, for answers
    client.enqueue(TelemetryFrontendLog())
assert client.stats().failed == 1
assert zstd.cache_info().misses == 0
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
