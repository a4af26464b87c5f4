"""Who may talk to the collector: those with the token, and no web page of another origin.

Without a token the collector listens on loopback only, where every program of the machine may use it. Web pages in a
browser of that machine may not. A page of another site gives itself away by `Origin` or `Sec-Fetch-Site`, and one that
has pointed a name of its own at loopback (DNS rebinding) by `Host`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import socket
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from adbc_telemetry.collector.answers import wire_answer

OPEN_PATHS: Final = frozenset({"/healthz", "/telemetry-unauth"})
"""Need no token: load balancers ask for health, and drivers without `auth` send without."""
_CHALLENGE: Final = 'Bearer realm="adbc-telemetry", Basic realm="adbc-telemetry"'


class AccessControl:
    """An ASGI middleware that refuses requests.

    Args:
        app: what it protects.
        token: what senders and readers must show as `Authorization: Bearer TOKEN`. A browser may give it as the
            password of `Basic`. None: no token is asked for.
        hosts: names under which the collector may be addressed, besides those of loopback; None allows any.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, hosts: Collection[str] | None) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._hosts = None if hosts is None else {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refuse(scope)
        await (self._app if refusal is None else refusal)(scope, receive, send)

    def _refuse(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if not self._is_addressed(headers.get("host", "")):
            return wire_answer(
                403, ["This name is not known here; use a loopback address, or start with --allow-host NAME."]
            )
        if _comes_from_another_origin(scope, headers):
            return wire_answer(403, ["Web pages of other origins may not use this collector."])
        if self._token is not None and scope["path"] not in OPEN_PATHS:
            given = headers.getlist("authorization")
            if len(given) != 1 or not self._is_token(given[0]):
                return wire_answer(
                    401,
                    ["Give the collector's token, as in: Authorization: Bearer TOKEN."],
                    {"WWW-Authenticate": _CHALLENGE},
                )
        return None

    def _is_addressed(self, host: str) -> bool:
        if self._hosts is None:
            return True
        name = _host_name(host)
        return name is not None and (is_loopback_name(name) or name in self._hosts)

    def _is_token(self, authorization: str) -> bool:
        assert self._token is not None
        scheme, _, credentials = authorization.partition(" ")
        given = credentials.strip().encode("utf-8", "surrogateescape")
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(given, self._token)


def _comes_from_another_origin(scope: Scope, headers: Headers) -> bool:
    origins = headers.getlist("origin")
    own = f"{scope['scheme']}://{headers.get('host', '')}".lower()
    if any(origin.lower() != own for origin in origins):
        return True
    site = headers.get("sec-fetch-site", "none")
    # A link on another page may lead to the page, but nothing else of another page may ask.
    follows_a_link = (
        scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate" and scope["path"] == "/"
    )
    return site not in ("none", "same-origin") and not follows_a_link


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def is_loopback_name(name: str) -> bool:
    """Whether a name or an address is this machine's loopback by itself, without a look-up."""
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether all addresses of a host are loopback. The empty host means all addresses of the machine.

    Raises:
        OSError: the host is not known.
    """
    if not host:
        return False
    if is_loopback_name(host):
        return True
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return all(ipaddress.ip_address(str(each[4][0])).is_loopback for each in found)
