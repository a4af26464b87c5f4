"""A small receiver of OTLP over HTTP, and what it has received."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.server import Reply, TelemetryServer

KINDS = {1: "INTERNAL", 2: "SERVER", 3: "CLIENT"}


class ReceivedSpan(NamedTuple):
    """A span as it came over the wire; ids in hexadecimal."""

    service: str
    scope: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    events: list[str]
    failed: bool
    message: str


class ReceivedMetric(NamedTuple):
    """The data points of a metric, each with its attributes."""

    name: str
    points: list[dict[str, Any]]


class OtlpReceiver:
    """Answers requests for traces and metrics, and keeps them.

    Attributes:
        url: what `OTEL_EXPORTER_OTLP_ENDPOINT` is set to.
    """

    def __init__(self, server: TelemetryServer) -> None:
        self._server = server
        self.url = server.url
        server.always = lambda request: Reply(status=200, body=b"")

    @property
    def spans(self) -> list[ReceivedSpan]:
        return list(self._spans())

    def _spans(self) -> Iterator[ReceivedSpan]:
        for request in self._server.requests:
            if request.path == "/v1/traces":
                message = ExportTraceServiceRequest.FromString(request.body)
                for resource in message.resource_spans:
                    service = str(_attributes(resource.resource).get("service.name", ""))
                    for scope in resource.scope_spans:
                        for span in scope.spans:
                            yield _received(service, scope.scope.name, span)

    @property
    def metrics(self) -> list[ReceivedMetric]:
        found = []
        for request in self._server.requests:
            if request.path == "/v1/metrics":
                message = ExportMetricsServiceRequest.FromString(request.body)
                for resource in message.resource_metrics:
                    for scope in resource.scope_metrics:
                        for metric in scope.metrics:
                            points = [_attributes(point) for point in metric.histogram.data_points]
                            found.append(ReceivedMetric(metric.name, points))
        return found


def _received(service: str, scope: str, span: Any) -> ReceivedSpan:
    return ReceivedSpan(
        service,
        scope,
        span.name,
        KINDS.get(span.kind, str(span.kind)),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        _attributes(span),
        [event.name for event in span.events],
        span.status.code == 2,
        span.status.message,
    )


def _attributes(message: Any) -> dict[str, Any]:
    return {
        attribute.key: getattr(attribute.value, attribute.value.WhichOneof("value"))
        for attribute in message.attributes
    }


@contextmanager
def otlp_receiver() -> Iterator[OtlpReceiver]:
    """A receiver on a free port."""
    with TelemetryServer() as server:
        yield OtlpReceiver(server)
