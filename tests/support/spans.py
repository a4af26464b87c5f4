"""Spans and measurements of OpenTelemetry's SDK, kept in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from adbc_telemetry.otel import ADBCInstrumentor
from adbc_telemetry.otel.attributes import NEVER, TABLE

ROWS = {row.attribute: row for row in TABLE}


class Spans:
    """Providers of spans and metrics, and what they have got."""

    def __init__(self, sampler: Sampler = ALWAYS_ON, *, measured: bool = True) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(sampler=sampler)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self._reader]) if measured else None

    @property
    def all(self) -> list[Any]:
        """All spans that have ended, in this order."""
        return list(self._exporter.get_finished_spans())

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.all]

    @property
    def one(self) -> Any:
        """The one span that has ended."""
        (span,) = self.all
        return span

    def clear(self) -> None:
        self._exporter.clear()

    def follow(self, connection: Any, **options: Any) -> Any:
        """The connection, instrumented by this one's providers."""
        providers = {"tracer_provider": self.tracer_provider, "meter_provider": self.meter_provider}
        return ADBCInstrumentor.instrument_connection(connection, **providers, **options)

    def tracer(self) -> Any:
        return self.tracer_provider.get_tracer("the program")

    def points(self, name: str) -> list[Any]:
        """The data points of a metric."""
        data = self._reader.get_metrics_data()
        scopes = (
            [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        )
        metrics = [metric for scope in scopes for metric in scope.metrics if metric.name == name]
        return [point for metric in metrics for point in metric.data.data_points]


def events_of(span: ReadableSpan) -> list[str]:
    return [event.name for event in span.events]


def follows_the_table(
    name: str, attributes: Mapping[str, Any], *, failed: bool = False, asked_for: frozenset[str] = frozenset()
) -> None:
    """Assert that a span's name and attributes are what the table of attributes and the conventions allow."""
    assert attributes["db.system.name"]
    for attribute in attributes:
        assert attribute in ROWS, attribute
        assert attribute not in NEVER, attribute
        assert not ROWS[attribute].asked_for or ROWS[attribute].asked_for in asked_for, attribute
    assert ("error.type" in attributes) is failed
    if "db.response.status_code" in attributes:
        assert attributes["error.type"] == attributes["db.response.status_code"]
    assert ("db.query.summary" in attributes) != ("db.operation.name" in attributes) or not (
        {"db.query.summary", "db.operation.name"} & attributes.keys()
    )
    if "server.port" in attributes:
        assert "server.address" in attributes
    assert name == expected_name(attributes)


def expected_name(attributes: Mapping[str, Any]) -> str:
    """The name of a span, by the conventions: the summary, else the operation and its target, else the system."""
    if "db.query.summary" in attributes:
        return str(attributes["db.query.summary"])
    server = ":".join(str(attributes[key]) for key in ("server.address", "server.port") if key in attributes)
    targets = (
        attributes.get(key) for key in ("db.collection.name", "db.stored_procedure.name", "db.namespace")
    )
    target = next(filter(None, targets), server)
    if attributes.get("db.operation.name") == "CONNECT" and not server:
        target = ""  # the namespace is known once there is a connection
    name = " ".join(filter(None, (attributes.get("db.operation.name"), target)))
    return name or str(attributes["db.system.name"])
