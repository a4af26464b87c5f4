"""Requests over urllib3 that end by their deadline, whatever the other side does.

A timeout of a socket limits each single receive, so that a server which trickles a byte a second never times
out. The sockets here take what is left until the deadline as the timeout of each operation, and they can be
shut down from another thread. Imported when something is to be sent, since urllib3 takes its time to load.
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401 - else the first look-up imports it: see forking.importing
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from http.client import HTTPException, HTTPResponse, parse_headers
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from msgspec import Struct
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context

from adbc_telemetry.export.errors import (
    ExportError,
    HttpStatusError,
    RequestCancelledError,
    RequestFailedError,
    UntrustedServerError,
)
from adbc_telemetry.export.names import Address, Resolution
from adbc_telemetry.forking import renew_in_child
from adbc_telemetry.hosts import base_url, is_loopback

# An answer names the errors of a batch; what is longer than this is no answer of the service's.
MAX_ANSWER_BYTES = 1_000_000
_READ_BYTES = 64 * 1024
_CONNECTIONS = 8
_SEND_BUFFER_BYTES = 512 * 1024


class _Request:
    """One request under way: until when, on which socket, and whether somebody has called it off."""

    __slots__ = ("cancelled", "deadline", "resolution", "socket")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.socket: socket.socket | None = None
        self.resolution: Resolution | None = None
        self.cancelled = False

    def seconds_left(self) -> float:
        left = self.deadline - time.monotonic()
        if self.cancelled or left <= 0:
            raise TimeoutError("the request's deadline has come")
        return left

    def use(self, sock: socket.socket) -> None:
        # The socket is published before the flag is read, cancel() sets the flag before it reads the socket:
        # in every order either this raises or the socket is shut down.
        self.socket = sock
        sock.settimeout(self.seconds_left())

    def resolve(self, host: str, port: int) -> list[Address]:
        self.resolution = Resolution(host, port)  # published before the flag is read, as above
        self.seconds_left()
        return self.resolution.wait(self.deadline)

    def cancel(self) -> None:
        self.cancelled = True
        if self.resolution is not None:
            self.resolution.cancel()
        sock = self.socket
        if sock is not None:
            with contextlib.suppress(OSError):  # it may not be connected (any more)
                # Not SSLSocket.shutdown: that would take the TLS state away from under the thread that reads.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _UnderWay(threading.local):
    """The request that this thread is making: how the deadline reaches the sockets below urllib3."""

    request: _Request | None = None


_under_way = _UnderWay()


class _DeadlineMixin:
    """A socket of which each operation ends by the deadline of the request under way."""

    __slots__ = ()

    def _arm(self: Any) -> None:
        request = _under_way.request
        if request is not None:
            request.use(self)

    def connect(self, *args: Any) -> Any:
        self._arm()
        return super().connect(*args)  # type: ignore[misc]

    def do_handshake(self, *args: Any) -> Any:
        self._arm()
        return super().do_handshake(*args)  # type: ignore[misc]

    def send(self, *args: Any) -> Any:
        self._arm()
        return super().send(*args)  # type: ignore[misc]

    def sendall(self, *args: Any) -> Any:
        self._arm()
        return super().sendall(*args)  # type: ignore[misc]

    def recv(self, *args: Any) -> Any:
        self._arm()
        return super().recv(*args)  # type: ignore[misc]

    def recv_into(self, *args: Any) -> Any:
        self._arm()
        return super().recv_into(*args)  # type: ignore[misc]


class _DeadlineSocket(_DeadlineMixin, socket.socket):
    pass


class _DeadlineTLSSocket(_DeadlineMixin, ssl.SSLSocket):
    pass


def _connect(connection: HTTPConnection) -> socket.socket:
    """Connect to the first address that answers, all of them together within the request's deadline."""
    request = _under_way.request
    assert request is not None, "a connection is made for a request"
    try:
        addresses = request.resolve(connection._dns_host, connection.port)
    except socket.gaierror as error:
        raise NameResolutionError(connection.host, connection, error) from error
    failure: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in addresses:
        sock = _DeadlineSocket(family, kind, protocol)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise NewConnectionError(connection, type(failure).__name__) from failure


class _FinalResponse(HTTPResponse):
    """Passes over all interim answers; `http.client` does so with 100 alone and takes a 103 for the answer."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc] # typeshed leaves it out
            if not 101 < status < 200:
                return version, status, reason
            parse_headers(self.fp)


class _HttpConnection(HTTPConnection):
    response_class = _FinalResponse

    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _HttpsConnection(HTTPSConnection):
    response_class = _FinalResponse

    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


class Answer(Struct, frozen=True):
    """A 2xx answer's body, or None where it was longer than `MAX_ANSWER_BYTES`."""

    body: bytes | None


class HttpTransport:
    """Keep-alive connections to one host. Thread-safe; survives a fork."""

    def __init__(self, host: str) -> None:
        self._url = base_url(host)
        self._closed = False
        self._holds_open = True
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """The parent's connections and requests stay the parent's."""
        # Guards the other fields; held for a few lines, never while a request is made.
        self._lock = threading.RLock()
        self._requests: set[_Request] = set()
        self._connections: urllib3.PoolManager | None = None
        _under_way.request = None

    def post(
        self, path: str, body: bytes, headers: Mapping[str, str], *, timeout: float, deadline: float | None
    ) -> Answer:
        """`request` with POST."""
        return self.request("POST", path, headers, body=body, timeout=timeout, deadline=deadline)

    def get(self, path: str, headers: Mapping[str, str], *, timeout: float, deadline: float | None) -> Answer:
        """`request` with GET."""
        return self.request("GET", path, headers, body=None, timeout=timeout, deadline=deadline)

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        *,
        body: bytes | None,
        timeout: float,
        deadline: float | None,
    ) -> Answer:
        """Make one request and return the answer of a 2xx.

        Args:
            method: POST or GET.
            path: from the root, with a leading slash.
            headers: all of them but Host and Content-Length.
            body: what to send, if anything.
            timeout: seconds from now to the last byte of the answer.
            deadline: a `time.monotonic()` value that cuts it shorter.

        Raises:
            HttpStatusError: the answer was no 2xx. Redirects are not followed.
            RequestFailedError: no answer, or not in time.
            UntrustedServerError: the server's certificate was not accepted.
            RequestCancelledError: `deadline` came, or `interrupt` or `close` was called.
        """
        own_deadline = time.monotonic() + timeout
        request = _Request(own_deadline if deadline is None else min(own_deadline, deadline))
        with self._lock:
            if self._closed:
                raise RequestCancelledError("the exporter is closed")
            self._requests.add(request)
            if self._connections is None:
                self._connections = _make_connections(self._url)
            connections = self._connections
        _under_way.request = request
        try:
            return _exchange(connections, method, self._url + path, headers, body, request)
        # ValueError: of an impossible header.
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            if request.cancelled or (deadline is not None and time.monotonic() >= deadline):
                raise RequestCancelledError("the deadline came") from error
            raise _translate(error) from error
        finally:
            _under_way.request = None
            with self._lock:
                self._requests.discard(request)
            if not self._holds_open:
                self._end_idle_connections()

    def hold_nothing_open(self) -> None:
        """Keep no connection open between requests from now on."""
        self._holds_open = False
        self._end_idle_connections()

    def _end_idle_connections(self) -> None:
        with self._lock:
            if self._requests:
                return
            connections, self._connections = self._connections, None
        if connections is not None:
            self._end(connections)

    def interrupt(self) -> None:
        """End the requests under way, as cancelled."""
        with self._lock:
            requests = list(self._requests)
        for request in requests:
            request.cancel()

    def close(self) -> None:
        """End the requests under way and the connections. Idempotent."""
        with self._lock:
            self._closed = True
            connections, self._connections = self._connections, None
        self.interrupt()
        if connections is not None:
            self._end(connections)

    def _end(self, connections: urllib3.PoolManager) -> None:
        # `clear` leaves them to a finalizer, which does nothing any more once `weakref`'s exit handler has run.
        connections.connection_from_url(self._url).close()
        connections.clear()


def _exchange(
    connections: urllib3.PoolManager,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None,
    request: _Request,
) -> Answer:
    seconds_left = request.seconds_left()
    response = connections.urlopen(
        method,
        url,
        body=body,
        headers=dict(headers),
        retries=False,
        redirect=False,
        timeout=urllib3.Timeout(connect=seconds_left, read=seconds_left),
        pool_timeout=seconds_left,
        preload_content=False,
        decode_content=False,
    )
    complete = False
    try:
        answer = _read(response)
        complete = len(answer) <= MAX_ANSWER_BYTES
    finally:
        if not complete:
            response.close()  # an answer that was not read to its end spoils the connection
        response.release_conn()
    if not 200 <= response.status < 300:
        raise HttpStatusError(response.status, _retry_after(response.headers.get("Retry-After")))
    return Answer(answer if complete else None)


def _read(response: urllib3.BaseHTTPResponse) -> bytes:
    """The body, or its beginning where it is longer than `MAX_ANSWER_BYTES`."""
    answer = bytearray()
    while len(answer) <= MAX_ANSWER_BYTES:
        # To the empty read at the end, which is where urllib3 notices that a body was cut short.
        piece = response.read(_READ_BYTES)
        if not piece:
            break
        answer += piece
    return bytes(answer)


def _make_connections(url: str) -> urllib3.PoolManager:
    # block=True: urllib3 warns in the host program's log when a pool that does not block is overrun.
    options: dict[str, Any] = {"maxsize": _CONNECTIONS, "block": True}
    proxy = _proxy_for(url)
    if url.startswith("https://"):
        options["ssl_context"] = _make_tls_context()
    if proxy is None:
        connections = urllib3.PoolManager(**options)
    else:
        user = urlsplit(proxy)
        if user.username is not None:
            credentials = f"{unquote(user.username)}:{unquote(user.password or '')}"
            options["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=credentials)
        if proxy.startswith("https://"):
            options["proxy_ssl_context"] = _make_tls_context()
        connections = urllib3.ProxyManager(proxy, **options)
    connections.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
    return connections


def _make_tls_context() -> ssl.SSLContext:
    context = create_urllib3_context()
    context.load_default_certs()
    context.sslsocket_class = _DeadlineTLSSocket
    return context


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names for `url`; never for this machine itself."""
    scheme, _, authority = url.partition("://")
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or is_loopback(url) or proxy_bypass(authority):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds a number or a date; None where it cannot be read."""
    if not value:
        return None
    try:
        return max(0.0, urllib3.Retry().parse_retry_after(value))
    except (HTTPError, ValueError, OverflowError):
        return None


def _translate(error: Exception) -> ExportError:
    """Names only: what urllib3 writes into its messages includes hosts and URLs."""
    name = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return UntrustedServerError("the server's certificate was not accepted")
        cause = cause.__cause__ or cause.__context__ or _wrapped(cause)
    return RequestFailedError(name)


def _wrapped(error: BaseException) -> BaseException | None:
    return next((arg for arg in error.args if isinstance(arg, BaseException)), None)
