"""How long a client may take, and how many may come."""

from __future__ import annotations

import sys
from typing import Final

from msgspec import Struct

_MOST_CONNECTIONS: Final = 2_000
# asyncio holds a buffer of 256 KiB for each TLS connection: more of them would cost more than 200 MB.
_MOST_TLS_CONNECTIONS: Final = 800
# select() takes 512 descriptors there.
_MOST_CONNECTIONS_ON_WINDOWS: Final = 400
_RESERVE: Final = 128
"""Descriptors that are kept for files, and for connections on their way out."""


class ServingLimits(Struct, frozen=True, kw_only=True):
    """Limits of a server, in seconds where the name says so.

    Args:
        header_seconds: from the connection, or the first byte of a later request, to the end of the headers; for the
            TLS handshake as well.
        idle_seconds: between two requests on one connection.
        body_seconds: from the headers to the last byte of the body.
        answer_seconds: how long a client may leave an answer unread. An answer in pieces must be taken at some 50 KB
            in this time.
        graceful_seconds: how long the end waits for requests under way.
        max_connections: open connections; None for as many as the process has descriptors for, at most 2,000
            (800 with TLS).
        max_header_bytes: request line and headers; for trailers and chunk extensions as well.

    Raises:
        ValueError: when a limit is not above zero.
    """

    header_seconds: float = 10.0
    idle_seconds: float = 30.0
    body_seconds: float = 30.0
    answer_seconds: float = 30.0
    graceful_seconds: float = 8.0
    max_connections: int | None = None
    max_header_bytes: int = 32 * 1024

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above zero")


def connection_limit(limits: ServingLimits, *, tls: bool) -> int:
    """The largest number of open connections."""
    if limits.max_connections is not None:
        return limits.max_connections
    most = _MOST_TLS_CONNECTIONS if tls else _MOST_CONNECTIONS
    if sys.platform == "win32":
        return min(most, _MOST_CONNECTIONS_ON_WINDOWS)
    descriptors = _descriptors()
    return max(1, min(most, descriptors - min(_RESERVE, descriptors // 2)))


def _descriptors() -> int:
    import resource  # not on Windows

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS + _RESERVE if soft == resource.RLIM_INFINITY else soft
