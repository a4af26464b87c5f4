"""The HTTP server under the collector: serves an ASGI application, with limits that no client gets around."""

from adbc_telemetry.collector.serving.admission import AdmissionControl
from adbc_telemetry.collector.serving.limits import ServingLimits
from adbc_telemetry.collector.serving.server import BackgroundServer

__all__ = ["AdmissionControl", "BackgroundServer", "ServingLimits"]
