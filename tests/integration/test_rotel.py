"""A real OpenTelemetry collector, written by others, behind our client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adbc_driver_sqlite.dbapi
import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from adbc_telemetry import CircuitBreakerManager, CircuitBreakerState, TelemetryClient, instrument
from adbc_telemetry.otel import ADBCInstrumentor, observe_pipeline, stop_observing_pipeline
from support.clients import configuration
from support.logs import ids_of, make_logs
from support.rotel import Rotel, attributes_of, binary
from support.server import TelemetryServer
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(binary() is None, reason="needs the package rotel")


@pytest.fixture
def rotel(tmp_path: Path, server: TelemetryServer) -> Iterator[Rotel]:
    with Rotel(tmp_path, server) as running:
        yield running


def ids_that_came(rotel: Rotel) -> list[str]:
    return [attributes_of(record)["log.record.uid"] for _, record in rotel.log_records()]


def test_the_events_of_a_connection_arrive_as_log_records(
    rotel: Rotel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "the service")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    connection = instrument(adbc_driver_sqlite.dbapi.connect(), f"otlp+{rotel.url}")
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchall()
        with pytest.raises(adbc_driver_sqlite.dbapi.ProgrammingError):
            cursor.execute("SELECT secret FROM nowhere")

    wait_until(lambda: len(ids_that_came(rotel)) == 4)
    records = list(rotel.log_records())
    assert [(record.event_name, record.severity_text, record.severity_number) for _, record in records] == [
        ("adbc.session", "INFO", 9),
        ("adbc.statement", "INFO", 9),
        ("db.client.operation.exception", "WARN", 13),
        ("adbc.session", "INFO", 9),
    ]
    resource, failed = records[2]
    assert resource["service.name"] == "the service"
    assert resource["deployment.environment.name"] == "test"
    assert resource["telemetry.sdk.name"] == "adbc-telemetry"
    attributes = attributes_of(failed)
    assert attributes["error.type"] == attributes["exception.type"] == "ProgrammingError"
    assert "secret" not in str(records)


def test_the_breaker_opens_when_the_collector_stops_and_closes_when_it_is_back(rotel: Rotel) -> None:
    settings = configuration(
        batch_size=1,
        max_retries=0,
        request_timeout_ms=5_000,
        circuit_breaker_threshold=2,
        circuit_breaker_timeout_ms=200,
        circuit_open="retain",
        flush_interval_ms=50,
    )
    logs = make_logs(8)
    with TelemetryClient(f"otlp+{rotel.url}", settings) as client:
        breaker = CircuitBreakerManager.get_instance().get_circuit_breaker(client.host)
        client.enqueue(logs[0])
        assert client.flush(20)

        rotel.stop()
        for log in logs[1:3]:
            client.enqueue(log)
        wait_until(lambda: breaker.state is CircuitBreakerState.OPEN)
        for log in logs[3:]:
            client.enqueue(log)
        stats = client.stats()
        assert (stats.delivered, stats.failed, stats.dropped_circuit_open) == (1, 2, 0)

        rotel.start()
        wait_until(lambda: breaker.state is CircuitBreakerState.CLOSED)
        assert client.flush(20)

    stats = client.stats()
    assert stats.closes, stats
    assert (stats.delivered, stats.failed) == (6, 2)
    arrived = ids_of([logs[0], *logs[3:]])
    wait_until(lambda: sorted(ids_that_came(rotel)) == sorted(arrived))
    states = [transition.new for transition in breaker.transitions]
    assert states[0] is CircuitBreakerState.OPEN
    assert states[-2:] == [CircuitBreakerState.HALF_OPEN, CircuitBreakerState.CLOSED]


def test_the_metrics_of_the_pipeline_arrive_and_equal_its_stats(rotel: Rotel) -> None:
    exporter = OTLPMetricExporter(f"{rotel.url}/v1/metrics")
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    observe_pipeline(provider)
    try:
        with TelemetryClient(f"otlp+{rotel.url}", configuration()) as client:
            for log in make_logs(7):
                client.enqueue(log)
            assert client.flush(20)
            assert provider.force_flush()
            stats = client.stats()
    finally:
        stop_observing_pipeline(provider)
        provider.shutdown()

    kind = "adbc_telemetry.export.otlp.OtlpTelemetryExporter"

    def points(name: str) -> list[Any]:
        found = [metric for metric in rotel.metrics() if metric.name == name]
        return [
            point
            for metric in found
            for point in getattr(metric, metric.WhichOneof("data")).data_points
            if attributes_of(point).get("server.port") == rotel.port  # earlier tests had other endpoints
        ]

    wait_until(lambda: points("otel.sdk.exporter.log.exported"))
    exported, *_ = points(
        "otel.sdk.exporter.log.exported"
    )  # the provider sends all once more when it shuts down
    duration, *_ = points("otel.sdk.exporter.operation.duration")
    assert exported.as_int == stats.delivered == 7
    assert duration.count == stats.exports
    assert attributes_of(exported)["otel.component.type"] == kind


def test_the_spans_of_a_connection_arrive_and_carry_the_ids_of_its_events(rotel: Rotel) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{rotel.url}/v1/traces")))
    connection = instrument(adbc_driver_sqlite.dbapi.connect(), f"otlp+{rotel.url}")
    ADBCInstrumentor.instrument_connection(connection, tracer_provider=provider)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchall()
    provider.shutdown()

    wait_until(lambda: [span for span in rotel.spans() if span.name == "SELECT"])
    [span] = [span for span in rotel.spans() if span.name == "SELECT"]
    attributes = attributes_of(span)
    assert attributes["db.system.name"] == "sqlite"
    statement_id = attributes["adbc.telemetry.statement_id"]
    wait_until(lambda: statement_id in str(list(rotel.log_records())))
