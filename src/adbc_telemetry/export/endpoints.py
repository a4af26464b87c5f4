"""Endpoint strings: one spelling for each, and the exporter that each one means.

    databricks://host, host              the telemetry service of a Databricks workspace
    http://host:8317, https://host       the same wire: a collector of one's own, or the service
    otlp+http://host:4318, otlp+https    an OpenTelemetry collector, over OTLP/HTTP; needs `adbc-telemetry[otel]`
    otlp://                              the OpenTelemetry collector that `OTEL_EXPORTER_OTLP_ENDPOINT` names
    file:///folder/events.jsonl          a file, one log per line

Clients, breakers, leases and spools are shared under the one spelling. It keeps the scheme where another exporter talks
to the same host, so that each has a client of its own.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from adbc_telemetry.config import TelemetryConfiguration
from adbc_telemetry.core.hosts import is_secure, normalize_host
from adbc_telemetry.export.base import AbleExporter
from adbc_telemetry.transport.auth import Auth, checked_auth

_DATABRICKS: Final = "databricks://"
_OTLP_OF_THE_ENVIRONMENT: Final = "otlp://"
_OTLP: Final = {"otlp+http://": "http://", "otlp+https://": "https://"}
_FILE: Final = "file://"
_SCHEMES: Final = "databricks://, http(s)://, otlp+http(s):// or file:///"


def normalize_endpoint(endpoint: str) -> str:
    """The one spelling of an endpoint. Normalising it again changes nothing.

        Databricks://Host.example:443/    host.example
        OTLP+HTTP://Host.example:4318/    otlp+http://host.example:4318
        otlp+https://host/tenant/         otlp+https://host/tenant
        file:///tmp/a b.jsonl             file:///tmp/a%20b.jsonl

    Raises:
        TypeError: `endpoint` is not a string.
        ValueError: it names no host or file, or has an unknown scheme.
    """
    scheme, rest = _split(endpoint)
    if scheme == _FILE:
        path = quote(_path_of(rest))
        return _FILE + (path if path.startswith("/") else f"/{path}")
    if scheme == _OTLP_OF_THE_ENVIRONMENT:
        if rest.strip("/"):
            raise ValueError(
                "otlp:// takes its host from OTEL_EXPORTER_OTLP_ENDPOINT: write otlp+http:// or otlp+https:// "
                "before a host"
            )
        return _OTLP_OF_THE_ENVIRONMENT
    if scheme in _OTLP:
        return scheme + _without_default_scheme(_http_url(scheme, rest))
    return normalize_host(rest if scheme == _DATABRICKS else endpoint)


def checked_endpoint(endpoint: str, auth: Auth | None = None, *, own_exporter: bool = False) -> str:
    """`normalize_endpoint(endpoint)`, if a client can use it.

    Args:
        endpoint: in any spelling.
        auth: what is to authenticate requests to it.
        own_exporter: whether an exporter of the caller's own takes the events, so that none is made.

    Raises:
        TypeError: `endpoint` is no string, or `auth` cannot be called.
        ValueError: as of `normalize_endpoint`; or `auth` would travel unencrypted; or the exporter needs an extra that
            is not installed.
    """
    name = normalize_endpoint(endpoint)
    scheme, _ = _split(name)
    url = address_of(name)
    if url is not None:
        checked_auth(url, auth)
    elif auth is not None and not callable(auth):
        raise TypeError(f"auth must be a callable that returns headers, not {type(auth).__name__}")
    if not own_exporter and scheme.startswith("otlp") and not _has_opentelemetry():
        raise ValueError("an otlp endpoint needs OpenTelemetry: pip install 'adbc-telemetry[otel]'")
    return name


def takes_credentials(name: str) -> bool:
    """Whether credentials may be asked for on the way to an endpoint (normalised): over TLS, or on this machine."""
    url = address_of(name)
    return url is None or is_secure(url)


def has_flags(endpoint: str) -> bool:
    """Whether feature flags can be asked for there: at the service, or at a collector of one's own.

    Raises:
        TypeError, ValueError: as of `normalize_endpoint`.
    """
    scheme, _ = _split(normalize_endpoint(endpoint))
    return scheme in ("", "http://", "https://")


def make_exporter(name: str, config: TelemetryConfiguration, auth: Auth | None) -> AbleExporter:
    """The exporter of an endpoint (normalised). Imports no other exporter than that.

    Raises:
        ImportError: it needs an extra that is not installed; `checked_endpoint` finds that out before.
        TypeError, ValueError: as of the exporter.
    """
    scheme, rest = _split(name)
    if scheme == _FILE:
        from adbc_telemetry.export.jsonlines import JsonLinesTelemetryExporter

        return JsonLinesTelemetryExporter(_path_of(rest))
    if scheme.startswith("otlp"):
        from adbc_telemetry.export.otlp import OtlpTelemetryExporter

        return OtlpTelemetryExporter.of_configuration(_url_of_otlp(name), config, auth=auth)
    from adbc_telemetry.export.databricks import DatabricksTelemetryExporter

    return DatabricksTelemetryExporter(name, config, auth=auth)


def server_of(name: str) -> tuple[str, int] | None:
    """The host and the port of an endpoint (normalised); None for a file, and where the environment decides."""
    scheme, rest = _split(name)
    if scheme in (_FILE, _OTLP_OF_THE_ENVIRONMENT):
        return None
    url = _url_of_otlp(name) if scheme in _OTLP else rest if scheme else f"https://{rest}"
    parts = urlsplit(url or "")
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _split(endpoint: str) -> tuple[str, str]:
    """The scheme with `://` if it is one of ours or of http, in lower case, and what follows.

    A scheme of http is left in what follows, as `normalize_host` knows it.
    """
    if not isinstance(endpoint, str):
        raise TypeError(f"host must be a string, not {type(endpoint).__name__}")
    text = endpoint.strip()
    before, separator, after = text.partition("://")
    scheme = before.lower() + separator
    if not separator:
        return "", text
    if scheme in (_DATABRICKS, _OTLP_OF_THE_ENVIRONMENT, _FILE, *_OTLP):
        return scheme, after
    if scheme not in ("http://", "https://"):
        raise ValueError(f"an endpoint is a host, or begins with {_SCHEMES}, not with {scheme[:40]}")
    return scheme, text


def _http_url(scheme: str, rest: str) -> str:
    """The URL of HTTP that an OTLP endpoint means, its host in one spelling."""
    if not rest.strip("/"):
        raise ValueError(
            f"{scheme} needs a host: write {scheme}host:4318, or otlp:// for the one of the environment"
        )
    parts = urlsplit(_OTLP[scheme] + rest)
    host = normalize_host(_OTLP[scheme] + parts.netloc)
    host = host if "://" in host else f"https://{host}"
    path = parts.path.rstrip("/")
    return f"{host}{path}?{parts.query}" if parts.query else f"{host}{path}"


def _without_default_scheme(url: str) -> str:
    return url.partition("://")[2]


def _url_of_otlp(name: str) -> str | None:
    """The URL for the exporter; None where the environment names it."""
    scheme, rest = _split(name)
    return None if scheme == _OTLP_OF_THE_ENVIRONMENT else _OTLP[scheme] + rest


def address_of(name: str) -> str | None:
    """The host or URL that requests to an endpoint (normalised) go to, for `core.hosts`; None for a file."""
    scheme, _ = _split(name)
    if scheme == _FILE:
        return None
    if scheme == _OTLP_OF_THE_ENVIRONMENT:
        from adbc_telemetry.export.otlp_environment import endpoint_of_the_environment

        return endpoint_of_the_environment().host
    return normalize_host(_url_of_otlp(name) or "") if scheme in _OTLP else name


def _path_of(rest: str) -> str:
    """The path of a file: what follows `file://`, decoded.

    Raises:
        ValueError: it names no file by its whole path, or one of another machine.
    """
    host, slash, path = rest.partition("/")
    decoded = unquote(path)
    if host.lower() not in ("", "localhost") or not slash or not path or decoded.endswith("/"):
        raise ValueError("a file endpoint has three slashes and the whole path: file:///folder/events.jsonl")
    if os.name == "nt" and decoded[1:2] == ":":
        return decoded  # file:///C:/folder/events.jsonl
    return f"/{decoded}"


def _has_opentelemetry() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.proto") is not None
    except (ImportError, ValueError):  # there is no `opentelemetry`, or it is blocked
        return False
