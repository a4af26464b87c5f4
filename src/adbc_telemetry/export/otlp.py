"""OtlpTelemetryExporter: events as OpenTelemetry log records, over OTLP/HTTP. Needs `adbc-telemetry[otel]`.

The messages are OpenTelemetry's, the requests are ours: OpenTelemetry's exporter sleeps past deadlines and warns in
the host program's log.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from adbc_telemetry.config import Compression, TelemetryConfiguration
from adbc_telemetry.core.guard import logger, never_raises
from adbc_telemetry.core.hosts import is_secure, normalize_host
from adbc_telemetry.export.base import NOT_ENCODABLE, NOTHING_EXPORTED, ExportResult, failed_export
from adbc_telemetry.export.delivery import Delivery, HttpTelemetryExporter
from adbc_telemetry.schema import TelemetryFrontendLog
from adbc_telemetry.transport.retry import RetryingTransport

if TYPE_CHECKING:
    from adbc_telemetry.export.otlp_mapping import EncodedRecord

DEFAULT_ENDPOINT: Final = "http://localhost:4318"
LOGS_PATH: Final = "/v1/logs"

_HEADERS: Final = {"Content-Type": "application/x-protobuf", "Accept": "application/x-protobuf"}


class OtlpTelemetryExporter(HttpTelemetryExporter):
    """Sends each log as a log record to an OpenTelemetry collector. `otlp_mapping` lists the attributes.

    Failed requests are tried again as by `DatabricksTelemetryExporter`.

    Since 0.1.

    Args:
        endpoint: the collector's base URL, to which `/v1/logs` is added, or the URL of its logs. None takes the
            environment's `OTEL_EXPORTER_OTLP_LOGS_ENDPOINT`, else `OTEL_EXPORTER_OTLP_ENDPOINT`, else
            `http://localhost:4318`.
        headers: sent with every request, and treated as credentials. None takes the environment's
            `OTEL_EXPORTER_OTLP_LOGS_HEADERS`, else `OTEL_EXPORTER_OTLP_HEADERS`, unless they would travel
            unencrypted.
        timeout_ms: how long one request may take, from connecting to the last byte of the answer.
        max_retries: how often a failed request is tried again.
        retry_delay_ms: the first back-off's upper bound; it doubles with each retry.
        max_request_bytes: the largest body of a request, before compression.
        compression: "none" or "gzip".

    Raises:
        ImportError: the extra is not installed.
        ValueError: an argument makes no sense, or `headers` are given and `endpoint` is plain HTTP to another
            machine. A variable of the environment that makes no sense counts as absent.
        TypeError: an argument is of the wrong type.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_ms: int = 10_000,
        max_retries: int = 3,
        retry_delay_ms: int = 100,
        max_request_bytes: int = 1_000_000,
        compression: Compression = "none",
    ) -> None:
        try:
            from adbc_telemetry.export import otlp_mapping  # noqa: F401 - only to see whether it is installed
        except ImportError as error:
            raise ImportError(
                "OtlpTelemetryExporter needs OpenTelemetry: pip install 'adbc-telemetry[otel]'"
            ) from error
        config = TelemetryConfiguration(
            request_timeout_ms=timeout_ms,
            max_retries=max_retries,
            retry_delay_ms=retry_delay_ms,
            max_request_bytes=max_request_bytes,
            compression=compression,
        )
        where = _endpoint_of_the_environment() if endpoint is None else _parsed(endpoint)
        if headers is None:
            own_headers = _headers_of_the_environment() if is_secure(where.host) else {}
        else:
            own_headers = _checked(headers)
        self._max_request_bytes = max_request_bytes
        auth = own_headers.copy if own_headers else None
        super().__init__(RetryingTransport(where.host, where.path, config, auth=auth))

    @never_raises(failed_export)
    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        """Send `logs` in requests of at most `max_request_bytes`, one after the other. Never raises.

        Args:
            logs: what to send; only those that cannot be encoded are rejected.
            deadline: the `time.monotonic()` value by which this returns.

        Returns:
            How many were delivered and rejected, and what became of the rest.
        """
        if not logs:
            return NOTHING_EXPORTED

        from adbc_telemetry.export import otlp_mapping

        def request(body: bytes, count: int) -> int:
            answer = self._transport.post(body, _HEADERS, deadline)
            return otlp_mapping.accepted(answer, count)

        delivery = Delivery(request, otlp_mapping.request_body, self._max_request_bytes)
        encoded = [_encoded(log) for log in logs]
        records = [record for record in encoded if record is not None]
        if len(records) < len(logs):
            delivery.reject(len(logs) - len(records), NOT_ENCODABLE)
        if records:
            delivery.send(records)
        return delivery.result([log for log, record in zip(logs, encoded, strict=True) if record is not None])


def _encoded(log: TelemetryFrontendLog) -> EncodedRecord | None:
    from adbc_telemetry.export.otlp_mapping import encode_record

    try:
        return encode_record(log)
    except (TypeError, AttributeError, ValueError, OverflowError) as error:
        logger.debug("a log that cannot be encoded: %s", type(error).__name__)
        return None


class _Endpoint(Struct, frozen=True):
    host: str
    path: str


def _parsed(endpoint: str, signal_path: str = LOGS_PATH) -> _Endpoint:
    """The host of an endpoint, and the path of its logs.

    Returns:
        Both, apart.

    Raises:
        TypeError, ValueError: `endpoint` names no host.
    """
    host = normalize_host(endpoint)
    parts = urlsplit(endpoint.strip() if "://" in endpoint else f"https://{endpoint.strip()}")
    path = parts.path.rstrip("/")
    if not path.endswith(signal_path):
        path += signal_path
    return _Endpoint(host, f"{path or '/'}?{parts.query}" if parts.query else path or "/")


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(headers, Mapping) or not all(
        isinstance(text, str) for item in headers.items() for text in item
    ):
        raise TypeError("headers must be a mapping of strings to strings")
    return dict(headers)


def _endpoint_of_the_environment() -> _Endpoint:
    # As OpenTelemetry has it: the first is used as it is, the second gets the path of the signal.
    for name, signal_path in (
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", ""),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", LOGS_PATH),
    ):
        value = os.environ.get(name)
        if value:
            try:
                return _parsed(value, signal_path)
            except ValueError as error:
                logger.debug("%s is no endpoint: %s", name, type(error).__name__)
    return _parsed(DEFAULT_ENDPOINT)


def _headers_of_the_environment() -> dict[str, str]:
    """Reads `name=value,name=value`, with values percent-encoded. An item that cannot be read is left out."""
    text = os.environ.get("OTEL_EXPORTER_OTLP_LOGS_HEADERS") or os.environ.get("OTEL_EXPORTER_OTLP_HEADERS")
    pairs = (item.partition("=") for item in (text or "").split(","))
    return {name.strip(): unquote(value.strip()) for name, equals, value in pairs if equals and name.strip()}
