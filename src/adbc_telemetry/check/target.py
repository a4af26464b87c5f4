"""What is checked: the endpoint, the credentials, and what earlier steps have found out about the way there."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from adbc_telemetry.config import TelemetryConfiguration
from adbc_telemetry.core.hosts import base_url, is_secure

_PORTS = {"http": 80, "https": 443}


@dataclass
class Target:
    """What the steps share. A step fills in what later ones need.

    Attributes:
        endpoint: as the user wrote it; None where no endpoint is named.
        token: the bearer token, if any. It is never printed.
        timeout: seconds for each step.
        environ: the environment.
        config: the settings of the environment.
        name: the endpoint, normalised; empty until it is understood.
        host: the host or URL that requests go to, normalised; empty for a file, and until the endpoint is understood.
        proxy: URL of the proxy on the way, or None.
        address: host and port that are connected to: the proxy's, or the endpoint's.
    """

    endpoint: str | None
    token: str | None = field(default=None, repr=False)
    timeout: float = 10.0
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    config: TelemetryConfiguration = field(default_factory=TelemetryConfiguration)
    name: str = ""
    host: str = ""
    proxy: str | None = field(default=None, repr=False)
    address: tuple[str, int] = ("", 0)

    @property
    def url(self) -> str:
        """The endpoint's base URL, without user information."""
        return base_url(self.host)

    @property
    def shown(self) -> str | None:
        """The endpoint as it is printed, without its query, which may be a key; None if it is not understood."""
        return self.url if self.speaks_the_wire else self.name.partition("?")[0] or None

    @property
    def speaks_the_wire(self) -> bool:
        """Whether the endpoint has the routes of a collector or of the service: events, answers and flags."""
        return bool(self.host) and self.name == self.host

    @property
    def is_tls(self) -> bool:
        """Whether the endpoint is talked to over TLS."""
        return self.url.startswith("https://")

    @property
    def may_send_token(self) -> bool:
        """Whether a token would travel unread."""
        return is_secure(self.host)

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Of the endpoint."""
        return host_and_port(self.url)

    def deadline(self) -> float:
        """The `time.monotonic()` value by which the step that asks has ended."""
        return time.monotonic() + self.timeout

    def headers(self) -> dict[str, str]:
        """The credentials of a request."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def host_and_port(url: str) -> tuple[str, int]:
    """Host and port of a URL with a scheme.

    Raises:
        ValueError: its port is none.
    """
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 80)


def without_credentials(url: str) -> str:
    """A proxy's URL without name and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
