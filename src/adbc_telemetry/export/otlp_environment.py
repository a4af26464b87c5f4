"""What OpenTelemetry's variables say about OTLP: `OTEL_EXPORTER_OTLP_LOGS_*`, else `OTEL_EXPORTER_OTLP_*`.

Names and meanings: OpenTelemetry's specification, "OpenTelemetry Protocol Exporter" and "Resource SDK". A value that
makes no sense counts as absent, and is never told: it may be a secret.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Final, TypeVar
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from adbc_telemetry.config import Compression
from adbc_telemetry.core.guard import log
from adbc_telemetry.core.hosts import normalize_host
from adbc_telemetry.transport.auth import TlsFiles

DEFAULT_ENDPOINT: Final = "http://localhost:4318"
LOGS_PATH: Final = "/v1/logs"

_PREFIX: Final = "OTEL_EXPORTER_OTLP_"
# Numbers below this are seconds: see `timeout_ms_of_the_environment`.
_SHORTEST_MS: Final = 100
_LONGEST_MS: Final = 2**31 - 1

Value = TypeVar("Value")


class OtlpEndpoint(Struct, frozen=True):
    """Where logs go: a host, normalised, and the path of its logs with its query."""

    host: str
    path: str


def parse_otlp_endpoint(endpoint: str, signal_path: str = LOGS_PATH) -> OtlpEndpoint:
    """The host of an OTLP endpoint, and the path of its logs, to which `signal_path` is added unless it is there.

    Raises:
        TypeError, ValueError: `endpoint` names no host.
    """
    host = normalize_host(endpoint)
    parts = urlsplit(endpoint.strip() if "://" in endpoint else f"https://{endpoint.strip()}")
    path = parts.path.rstrip("/")
    if not path.endswith(signal_path):
        path += signal_path
    return OtlpEndpoint(host, f"{path or '/'}?{parts.query}" if parts.query else path or "/")


def endpoint_of_the_environment() -> OtlpEndpoint:
    """The endpoint of logs, which is used as it is; else the common one with `/v1/logs`; else the default."""
    own = _read("LOGS_ENDPOINT", lambda text: parse_otlp_endpoint(text, ""))
    return own or _read("ENDPOINT", parse_otlp_endpoint) or parse_otlp_endpoint(DEFAULT_ENDPOINT)


def headers_of_the_environment() -> dict[str, str]:
    """The headers: `name=value,name=value`, values percent-encoded. An item that cannot be read is left out."""
    return _first("HEADERS", _pairs) or {}


def timeout_ms_of_the_environment() -> int | None:
    """How long one request may take, in milliseconds.

    The specification has milliseconds, but OpenTelemetry's exporter for Python reads seconds. A request needs at
    least 100 ms: a number below 100 is in seconds, any other one in milliseconds.
    """
    return _first("TIMEOUT", _milliseconds)


def compression_of_the_environment() -> Compression | None:
    """How bodies are compressed."""
    return _first("COMPRESSION", _compression)


def tls_files_of_the_environment() -> TlsFiles:
    """The authority to trust, and the client's own certificate and key. A file that is not there counts as absent."""
    return TlsFiles(
        _first("CERTIFICATE", _file), _first("CLIENT_CERTIFICATE", _file), _first("CLIENT_KEY", _file)
    )


def resource_of_the_environment(environ: Mapping[str, str] = os.environ) -> tuple[tuple[str, str], ...]:
    """Attributes of the resource: `OTEL_RESOURCE_ATTRIBUTES`, in which `OTEL_SERVICE_NAME` beats `service.name`."""
    attributes = _pairs(environ.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    name = environ.get("OTEL_SERVICE_NAME", "").strip()
    if name:
        attributes["service.name"] = name
    return tuple(attributes.items())


def _first(name: str, read: Callable[[str], Value]) -> Value | None:
    """The value for logs, else the common one."""
    own = _read(f"LOGS_{name}", read)
    return _read(name, read) if own is None else own


def _read(name: str, read: Callable[[str], Value]) -> Value | None:
    text = os.environ.get(_PREFIX + name, "").strip()
    try:
        return read(text) if text else None
    except (ValueError, OverflowError) as error:
        log("%s%s counts as absent: %s", _PREFIX, name, type(error).__name__)
        return None


def _pairs(text: str) -> dict[str, str]:
    items = (item.partition("=") for item in text.split(","))
    return {name.strip(): unquote(value.strip()) for name, equals, value in items if equals and name.strip()}


def _milliseconds(text: str) -> int:
    number = float(text)
    milliseconds = round(number if number >= _SHORTEST_MS else 1000 * number)
    if not 1 <= milliseconds <= _LONGEST_MS:
        raise ValueError("no time that a request may take")
    return milliseconds


def _compression(text: str) -> Compression:
    match text.lower():
        case "gzip":
            return "gzip"
        case "none":
            return "none"
    raise ValueError("no compression that OTLP has")


def _file(text: str) -> str:
    if not os.path.isfile(text):
        raise ValueError("no such file")
    return text
