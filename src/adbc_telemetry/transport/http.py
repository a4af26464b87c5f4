"""Requests over urllib3 that end by their deadline, whatever the other side does; see `sockets`.

This module is imported in the fork gate when something is to be sent, because urllib3 is slow to import.
"""

from __future__ import annotations

import queue
import socket
import ssl
import time
from collections import deque
from collections.abc import Mapping
from http.client import HTTPException, HTTPResponse, parse_headers
from typing import Any

import urllib3
from msgspec import Struct
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError

from adbc_telemetry.core.fork import fork_gate, renew_in_child
from adbc_telemetry.core.hosts import base_url
from adbc_telemetry.core.native import RLock
from adbc_telemetry.core.suppression import without_spans
from adbc_telemetry.transport.auth import SYSTEM_TLS, TlsFiles
from adbc_telemetry.transport.errors import (
    ExportError,
    HttpStatusError,
    RequestCancelledError,
    RequestFailedError,
    UntrustedServerError,
)
from adbc_telemetry.transport.proxies import proxy_credentials, proxy_for
from adbc_telemetry.transport.sockets import RequestUnderWay, connect, is_silent, make_tls_context, under_way

# An answer lists the errors of a batch. A longer one does not come from the service.
MAX_ANSWER_BYTES = 1_000_000
_READ_BYTES = 64 * 1024
_CONNECTIONS = 8


class _FinalResponse(HTTPResponse):
    """Skips all interim answers. `http.client` skips only 100, and takes a 103 for the answer."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc] # typeshed leaves it out
            if not 101 < status < 200:
                return version, status, reason
            parse_headers(self.fp)


class _OverOurSockets:
    """How our connections differ from urllib3's: they connect by the deadline, and check for life without a poll.

    gevent and eventlet replace `poll` by functions that need a hub.
    """

    response_class: Any = _FinalResponse

    def _new_conn(self: Any) -> socket.socket:
        try:
            return connect(self._dns_host, self.port)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except OSError as error:
            raise NewConnectionError(self, type(error).__name__) from error

    @property
    def is_connected(self: Any) -> bool:
        return self.sock is not None and is_silent(self.sock)


class _HttpConnection(_OverOurSockets, HTTPConnection):
    pass


class _HttpsConnection(_OverOurSockets, HTTPSConnection):
    pass


class _IdleConnections:
    """Idle connections, the last used first: the queue that urllib3 needs, without locks that a child would inherit."""

    def __init__(self, maxsize: int) -> None:
        self._idle: deque[object] = deque()
        self._maxsize = maxsize

    def put(self, item: object, block: bool = True) -> None:
        """Keep a connection; close the last one if there are too many."""
        self._idle.append(item)
        if len(self._idle) > self._maxsize:
            surplus: Any = self.get()
            if surplus is not None:
                surplus.close()

    def get(self, block: bool = True, timeout: float | None = None) -> object:
        """The newest connection; with `block`, None if the pool is empty: then urllib3 makes one.

        Raises:
            queue.Empty: the pool is empty, without `block`. So urllib3 empties a pool that it closes.
        """
        try:
            return self._idle.pop()
        except IndexError:
            if block:
                return None
            raise queue.Empty from None

    def qsize(self) -> int:
        """How many there are."""
        return len(self._idle)


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HttpConnection
    QueueCls = _IdleConnections  # type: ignore[assignment]


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection
    QueueCls = _IdleConnections  # type: ignore[assignment]


class Answer(Struct, frozen=True):
    """The body of a 2xx answer; None if it was longer than `MAX_ANSWER_BYTES`."""

    body: bytes | None


class HttpTransport:
    """Keep-alive connections to one host. Thread-safe; survives a fork."""

    def __init__(self, host: str, tls: TlsFiles = SYSTEM_TLS) -> None:
        self._url = base_url(host)
        self._tls = tls
        self._closed = False
        self._holds_open = True
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """The parent's connections and requests stay the parent's."""
        # Guards the fields that change; held for a few lines, never while a request is made.
        self._lock = RLock()
        self._requests: set[RequestUnderWay] = set()
        self._connections: urllib3.PoolManager | None = None
        under_way.request = None

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
            headers: all of them except Host and Content-Length.
            body: what to send, if anything.
            timeout: seconds from now to the last byte of the answer.
            deadline: the `time.monotonic()` value by which the request ends even if `timeout` is longer, or None.

        Raises:
            HttpStatusError: the answer was no 2xx. Redirects are not followed.
            RequestFailedError: no answer, or not in time.
            UntrustedServerError: the server's certificate was not accepted.
            RequestCancelledError: `deadline` came, or `preempt` or `close` was called.
        """
        own_deadline = time.monotonic() + timeout
        request = RequestUnderWay(own_deadline if deadline is None else min(own_deadline, deadline))
        with self._lock:
            if self._closed:
                raise RequestCancelledError("the exporter is closed")
            self._requests.add(request)
            connections = self._connections
        under_way.request = request
        try:
            if connections is None:
                connections = self._connect_first()
            with without_spans():
                return _exchange(connections, method, self._url + path, headers, body, request)
        # ValueError: a header that cannot be sent.
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            request.discard()
            if request.cancelled or (deadline is not None and time.monotonic() >= deadline):
                raise RequestCancelledError("the deadline came") from error
            raise _translate(error) from error
        finally:
            under_way.request = None
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

    def _connect_first(self) -> urllib3.PoolManager:
        # Don't hold the lock: TLS reads certificates from the disk, and `close` and `preempt` would wait for that.
        made = _make_connections(self._url, self._tls)
        with self._lock:
            if self._closed:
                raise RequestCancelledError("the exporter is closed")
            self._connections = self._connections or made
            return self._connections

    def preempt(self) -> None:
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
        self.preempt()
        if connections is not None:
            self._end(connections)

    def _end(self, connections: urllib3.PoolManager) -> None:
        # Close the pool first: `clear` leaves that to a finalizer, which does nothing once `weakref`'s exit handler has
        # run.
        connections.connection_from_url(self._url).close()
        connections.clear()


def _exchange(
    connections: urllib3.PoolManager,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None,
    request: RequestUnderWay,
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
            response.close()  # what is left of the answer would be taken for the next one
        response.release_conn()
    if not 200 <= response.status < 300:
        raise HttpStatusError(response.status, _retry_after(response.headers.get("Retry-After")))
    return Answer(answer if complete else None)


def _read(response: urllib3.BaseHTTPResponse) -> bytes:
    """The body, or its beginning if it is longer than `MAX_ANSWER_BYTES`."""
    answer = bytearray()
    while len(answer) <= MAX_ANSWER_BYTES:
        # Read until nothing comes: only then does urllib3 notice that a body was cut short.
        piece = response.read(_READ_BYTES)
        if not piece:
            break
        answer += piece
    return bytes(answer)


def _make_connections(url: str, tls: TlsFiles) -> urllib3.PoolManager:
    # block=True: else urllib3 warns in the host program's log when more connections are in use than it keeps.
    options: dict[str, Any] = {"maxsize": _CONNECTIONS, "block": True}
    proxy = proxy_for(url)
    with fork_gate:  # TLS loads certificates, and libraries of the system with them
        if url.startswith("https://"):
            options["ssl_context"] = make_tls_context(tls)
        if proxy is None:
            connections = urllib3.PoolManager(**options)
        else:
            credentials = proxy_credentials(proxy)
            if credentials is not None:
                options["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=credentials)
            if proxy.startswith("https://"):
                options["proxy_ssl_context"] = make_tls_context()
            connections = urllib3.ProxyManager(proxy, **options)
    connections.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
    connections.pools.lock = RLock()
    return connections


def _retry_after(value: str | None) -> float | None:
    """Seconds from now that a Retry-After header names, as a number or a date; None if it cannot be read."""
    if not value:
        return None
    try:
        return max(0.0, urllib3.Retry().parse_retry_after(value))
    except (HTTPError, ValueError, OverflowError):
        return None


def _translate(error: Exception) -> ExportError:
    """Our error for one of urllib3's. Only its class is named: its message includes hosts and URLs."""
    name = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return UntrustedServerError("the server's certificate was not accepted")
        cause = cause.__cause__ or cause.__context__ or _wrapped(cause)
    return RequestFailedError(name)


def _wrapped(error: BaseException) -> BaseException | None:
    return next((arg for arg in error.args if isinstance(arg, BaseException)), None)
