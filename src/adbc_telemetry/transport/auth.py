"""Credentials of requests: asked for anew each time, and sent only over a connection that is secure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol, runtime_checkable

from msgspec import Struct

from adbc_telemetry.core.fork import fork_gate
from adbc_telemetry.core.hosts import is_secure
from adbc_telemetry.transport.errors import RequestFailedError

Auth = Callable[[], Mapping[str, str] | None]
"""Returns the headers that authenticate a request, or None for a request without credentials."""


class TlsFiles(Struct, frozen=True):
    """Files of PEM for TLS; None for what the system has.

    Attributes:
        authority: certificates to trust instead of the system's.
        client_certificate: what this side shows, with the certificates that lead to it.
        client_key: the key of it; None where the certificate's file has it.
    """

    authority: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None


SYSTEM_TLS: Final = TlsFiles()


@runtime_checkable
class SharedAuth(Protocol):
    """An `auth` that stands for those of several connections."""

    def __call__(self) -> Mapping[str, str] | None:
        """See `Auth`."""
        ...

    def is_given(self) -> bool:
        """Whether any of them has one."""
        ...


def may_authenticate(auth: Auth | None) -> bool:
    """Whether requests are expected to have credentials, without asking for them."""
    return auth.is_given() if isinstance(auth, SharedAuth) else auth is not None


def checked_auth(host: str, auth: Auth | None) -> Auth | None:
    """`auth`, if it may be used with `host`.

    Raises:
        TypeError: it cannot be called.
        ValueError: `host` is plain HTTP to another machine.
    """
    if auth is not None and not callable(auth):
        raise TypeError(f"auth must be a callable that returns headers, not {type(auth).__name__}")
    if auth is not None and not is_secure(host):
        raise ValueError("credentials go over https only: give an https endpoint, or no auth")
    return auth


def credentials(host: str, auth: Auth | None) -> dict[str, str] | None:
    """The headers of `auth` for one request to `host`; None if there are none.

    Raises:
        RequestFailedError: `auth` has failed, which counts as a failed request, or the connection is not secure.
    """
    if auth is None:
        return None
    try:
        with fork_gate.briefly():  # it may import something
            headers = auth()
    except Exception as error:
        raise RequestFailedError(f"auth() raised {type(error).__name__}") from error
    if headers is None:
        return None
    if not isinstance(headers, Mapping) or not all(
        isinstance(text, str) for item in headers.items() for text in item
    ):
        raise RequestFailedError("auth() must return a mapping of strings to strings")
    if not is_secure(host):
        # `checked_auth` refuses an `auth` that is given at the start, but the one of a shared client may change later.
        raise RequestFailedError("credentials go over https only")
    return dict(headers)
