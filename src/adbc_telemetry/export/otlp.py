"""OtlpTelemetryExporter: events as OpenTelemetry log records, over OTLP/HTTP. Needs `adbc-telemetry[otel]`.

The messages are OpenTelemetry's, the requests are ours: OpenTelemetry's exporter sleeps past deadlines and warns in
the host program's log.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from adbc_telemetry.config import Compression, TelemetryConfiguration
from adbc_telemetry.core.guard import logger, never_raises
from adbc_telemetry.core.hosts import is_secure
from adbc_telemetry.export.base import NOT_ENCODABLE, NOTHING_EXPORTED, ExportResult, failed_export
from adbc_telemetry.export.delivery import Delivery, HttpTelemetryExporter, RequestLimit
from adbc_telemetry.export.otlp_environment import (
    compression_of_the_environment,
    endpoint_of_the_environment,
    headers_of_the_environment,
    parse_otlp_endpoint,
    resource_of_the_environment,
    timeout_ms_of_the_environment,
    tls_files_of_the_environment,
)
from adbc_telemetry.schema import TelemetryFrontendLog
from adbc_telemetry.transport.auth import Auth, TlsFiles
from adbc_telemetry.transport.retry import RetryingTransport

if TYPE_CHECKING:
    from adbc_telemetry.export.otlp_mapping import EncodedRecord

_HEADERS: Final = {"Content-Type": "application/x-protobuf", "Accept": "application/x-protobuf"}
_DEFAULTS: Final = TelemetryConfiguration()


class OtlpTelemetryExporter(HttpTelemetryExporter):
    """Sends each log as a log record to an OpenTelemetry collector. `otlp_mapping` lists the attributes.

    Failed requests are tried again as by `DatabricksTelemetryExporter`. What is not given here, the environment may
    say, as for OpenTelemetry's own exporters: `OTEL_EXPORTER_OTLP_LOGS_` + the name in capitals, else
    `OTEL_EXPORTER_OTLP_` + that. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` add to the resource.

    Since 0.1.

    Args:
        endpoint: the collector's base URL, to which `/v1/logs` is added, or the URL of its logs. None takes the
            environment's `..._LOGS_ENDPOINT`, else `..._ENDPOINT`, else `http://localhost:4318`.
        headers: sent with every request, and treated as credentials. None takes the environment's `..._HEADERS`,
            unless they would travel unencrypted.
        auth: returns further headers that authenticate a request; called for every request, on the exporting thread.
        timeout_ms: how long one request may take, from connecting to the last byte of the answer. None takes the
            environment's `..._TIMEOUT`, else 10,000.
        max_retries: how often a failed request is tried again.
        retry_delay_ms: the first back-off's upper bound; it doubles with each retry.
        max_request_bytes: the largest body of a request, before compression.
        compression: "none", "gzip" or "zstd". None takes the environment's `..._COMPRESSION`, else "none".
        certificate: a file of certificates to trust instead of the system's; None takes `..._CERTIFICATE`.
        client_certificate: a file with what this side shows; None takes `..._CLIENT_CERTIFICATE`.
        client_key: the key of it; None takes `..._CLIENT_KEY`.

    Raises:
        ImportError: the extra is not installed.
        ValueError: an argument makes no sense, a file is not there, or `headers` or `auth` are given and `endpoint` is
            plain HTTP to another machine. A variable of the environment that makes no sense counts as absent.
        TypeError: an argument is of the wrong type.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        auth: Auth | None = None,
        timeout_ms: int | None = None,
        max_retries: int = 3,
        retry_delay_ms: int = 100,
        max_request_bytes: int = 1_000_000,
        compression: Compression | None = None,
        certificate: str | os.PathLike[str] | None = None,
        client_certificate: str | os.PathLike[str] | None = None,
        client_key: str | os.PathLike[str] | None = None,
    ) -> None:
        try:
            from adbc_telemetry.export import otlp_mapping  # noqa: F401 - only to see whether it is installed
        except ImportError as error:
            raise ImportError(
                "OtlpTelemetryExporter needs OpenTelemetry: pip install 'adbc-telemetry[otel]'"
            ) from error
        if timeout_ms is None:
            timeout_ms = timeout_ms_of_the_environment() or _DEFAULTS.request_timeout_ms
        if compression is None:
            compression = compression_of_the_environment() or _DEFAULTS.compression
        config = TelemetryConfiguration(
            request_timeout_ms=timeout_ms,
            max_retries=max_retries,
            retry_delay_ms=retry_delay_ms,
            max_request_bytes=max_request_bytes,
            compression=compression,
        )
        where = endpoint_of_the_environment() if endpoint is None else parse_otlp_endpoint(endpoint)
        if headers is None:
            own_headers = headers_of_the_environment() if is_secure(where.host) else {}
        else:
            own_headers = _checked(headers)
        tls = tls_files_of_the_environment()
        tls = TlsFiles(
            authority=_checked_file("certificate", certificate) or tls.authority,
            client_certificate=_checked_file("client_certificate", client_certificate)
            or tls.client_certificate,
            client_key=_checked_file("client_key", client_key) or tls.client_key,
        )
        self._limit = RequestLimit(max_request_bytes)
        self._resource = resource_of_the_environment()
        authentication = _authentication(own_headers, auth)
        super().__init__(RetryingTransport(where.host, where.path, config, auth=authentication, tls=tls))

    @classmethod
    def of_configuration(
        cls, endpoint: str | None, config: TelemetryConfiguration, *, auth: Auth | None = None
    ) -> OtlpTelemetryExporter:
        """The exporter of a client. Where `config` has a default, the environment's timeout and compression hold."""
        timeout_ms: int | None = config.request_timeout_ms
        compression: Compression | None = config.compression
        return cls(
            endpoint,
            auth=auth,
            timeout_ms=None if timeout_ms == _DEFAULTS.request_timeout_ms else timeout_ms,
            max_retries=config.max_retries,
            retry_delay_ms=config.retry_delay_ms,
            max_request_bytes=config.max_request_bytes,
            compression=None if compression == _DEFAULTS.compression else compression,
        )

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

        body = partial(otlp_mapping.request_body, own_resource=self._resource)
        delivery = Delivery(request, body, self._limit)
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


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(headers, Mapping) or not all(
        isinstance(text, str) for item in headers.items() for text in item
    ):
        raise TypeError("headers must be a mapping of strings to strings")
    return dict(headers)


def _checked_file(name: str, path: str | os.PathLike[str] | None) -> str | None:
    if path is None:
        return None
    text = os.fsdecode(path)
    if not os.path.isfile(text):
        raise ValueError(f"{name} must be a file of PEM, and there is none of that name")
    return text


def _authentication(headers: Mapping[str, str], auth: Auth | None) -> Auth | None:
    """Headers that stay the same and those that `auth` returns for each request."""
    if auth is not None and not callable(auth):
        raise TypeError(f"auth must be a callable that returns headers, not {type(auth).__name__}")
    if not headers:
        return auth
    return lambda: {**headers, **((auth and auth()) or {})}
