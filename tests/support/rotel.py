"""rotel: an OpenTelemetry collector that we have not written. Its package brings the binary.

It takes OTLP over HTTP and passes everything on to a server of the test, where it can be looked at.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from typing_extensions import Self

from support.server import Reply, TelemetryServer
from support.waiting import wait_until


def binary() -> Path | None:
    """The collector, if its package is installed."""
    found = importlib.util.find_spec("rotel")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).with_name("rotel-agent")
    return path if path.is_file() else None


class Rotel:
    """A collector on a port of its own. It may be stopped and started again on the same port."""

    def __init__(self, folder: Path, receiver: TelemetryServer) -> None:
        self._folder = folder
        self._receiver = receiver
        self._process: subprocess.Popen[bytes] | None = None
        receiver.always = lambda request: Reply(headers={"Content-Type": "application/x-protobuf"}, body=b"")
        self.port, self._grpc_port = _free_ports(2)

    @property
    def url(self) -> str:
        """Where it takes OTLP over HTTP."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until it listens."""
        command = [str(binary()), "start", "--exporter", "otlp", "--batch-timeout", "20ms"]
        command += ["--otlp-exporter-protocol", "http", "--otlp-exporter-endpoint", self._receiver.url]
        command += ["--otlp-http-endpoint", f"127.0.0.1:{self.port}"]
        command += ["--otlp-grpc-endpoint", f"127.0.0.1:{self._grpc_port}"]
        command += ["--pid-file", str(self._folder / "rotel.pid")]
        with (self._folder / "rotel.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._listens, what=lambda: (self._folder / "rotel.log").read_text())

    def stop(self) -> None:
        """End it, and wait for that."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()
                process.wait(20)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "rotel.log").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def log_records(self) -> Iterator[tuple[dict[str, Any], Any]]:
        """Each log record that came through, with the attributes of its resource."""
        for body in self._bodies("/v1/logs"):
            for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
                for scope in resource.scope_logs:
                    for record in scope.log_records:
                        yield attributes_of(resource.resource), record

    def metrics(self) -> Iterator[Any]:
        """Each metric that came through."""
        for body in self._bodies("/v1/metrics"):
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scope in resource.scope_metrics:
                    yield from scope.metrics

    def spans(self) -> Iterator[Any]:
        """Each span that came through."""
        for body in self._bodies("/v1/traces"):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    yield from scope.spans

    def _bodies(self, path: str) -> list[bytes]:
        requests = [request for request in list(self._receiver.requests) if request.path == path]
        return [gzip.decompress(request.raw) for request in requests]  # it compresses by default

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def attributes_of(thing: Any) -> dict[str, Any]:
    """The attributes of a resource, a record or a point, by their names."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in thing.attributes}


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
