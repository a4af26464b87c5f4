"""Sockets that end every operation by the deadline of the request under way, and that another thread can end.

An ordinary timeout limits each single receive, so a server that trickles a byte per second never times out. The sockets
here take the time that is left until the deadline as the timeout of each operation.

This module is imported in the fork gate when something is to be sent, together with all that it needs later.
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401 - else the first look-up of a name would import it, outside the fork gate
import socket
import ssl
import time
from typing import Any

from adbc_telemetry.core.fork import fork_gate
from adbc_telemetry.core.native import is_green, local
from adbc_telemetry.core.native import socket as native_socket
from adbc_telemetry.core.native import ssl as native_ssl
from adbc_telemetry.transport.auth import SYSTEM_TLS, TlsFiles
from adbc_telemetry.transport.resolver import Address, Resolution

_SEND_BUFFER_BYTES = 512 * 1024


class RequestUnderWay:
    """One request: its deadline, its socket, and whether it is cancelled."""

    __slots__ = ("cancelled", "deadline", "resolution", "socket")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.socket: socket.socket | None = None
        self.resolution: Resolution | None = None
        self.cancelled = False

    def seconds_left(self) -> float:
        """Seconds until the deadline.

        Raises:
            TimeoutError: the deadline has come, or the request is cancelled.
        """
        left = self.deadline - time.monotonic()
        if self.cancelled or left <= 0:
            raise TimeoutError("the request's deadline has come")
        return left

    def use(self, sock: socket.socket) -> None:
        """Go on with `sock`."""
        # This writes the socket before it reads the flag; `cancel` writes the flag before it reads the socket. So in
        # every order either this raises or the socket is shut down.
        self.socket = sock
        sock.settimeout(self.seconds_left())

    def resolve(self, host: str, port: int) -> list[Address]:
        """The addresses of a name; see `Resolution.wait`."""
        self.resolution = Resolution(host, port)  # written before the flag is read, as above
        self.seconds_left()
        return self.resolution.wait(self.deadline)

    def cancel(self) -> None:
        """End the request, from another thread."""
        self.cancelled = True
        if self.resolution is not None:
            self.resolution.cancel()
        sock = self.socket
        if sock is not None:
            with contextlib.suppress(OSError):  # it may not be connected
                # Not SSLSocket.shutdown: that drops the TLS state, which the other thread is using.
                native_socket.SocketType.shutdown(sock, socket.SHUT_RDWR)

    def discard(self) -> None:
        """Close the socket now. After a failure half-read answers refer to it, until the garbage collector comes by."""
        sock = self.socket
        if sock is not None:
            with contextlib.suppress(OSError):
                native_socket.close(sock.detach())


class _UnderWay(local):
    """The request that this thread is making. It carries the deadline past urllib3 to the sockets."""

    request: RequestUnderWay | None = None


under_way = _UnderWay()


class _DeadlineMixin:
    __slots__ = ()

    def _arm(self: Any) -> None:
        request = under_way.request
        if request is not None:
            request.use(self)

    def connect(self, *args: Any) -> Any:
        self._arm()
        return super().connect(*args)  # type: ignore[misc]

    def do_handshake(self, *args: Any) -> Any:
        self._arm()
        # OpenSSL takes locks to look up algorithms, and a forked child would inherit them locked.
        with fork_gate.briefly():
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


class DeadlineSocket(_DeadlineMixin, native_socket.socket):
    """A socket of plain HTTP."""


class _DeadlineTLSSocket(_DeadlineMixin, native_ssl.SSLSocket):
    pass


def connect(host: str, port: int) -> socket.socket:
    """Connect to the first address of `host` that answers, by the deadline of the request under way.

    Raises:
        OSError: no address answers, or the program does not allow the connection.
    """
    request = under_way.request
    assert request is not None, "a connection is made for a request"
    failure: OSError = OSError("the name has no address")
    for address in request.resolve(host, port):
        try:
            return _connected(address, request)
        except OSError as error:
            failure = error
        except (
            RuntimeError
        ) as error:  # pytest-socket and its like raise it to keep a program from the network
            failure = OSError(type(error).__name__)
    raise failure


def _connected(address: Address, request: RequestUnderWay) -> socket.socket:
    family, kind, protocol, _, where = address
    sock = (
        socket.socket(family, kind, protocol)
        if _has_been_replaced()
        else DeadlineSocket(family, kind, protocol)
    )
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        request.use(sock)
        sock.connect(where)
        if not isinstance(sock, DeadlineSocket):
            sock = DeadlineSocket(family, kind, protocol, fileno=sock.detach())
            request.use(sock)  # it may be cancelled by now
    except BaseException:
        sock.close()
        raise
    return sock


def _has_been_replaced() -> bool:
    """Whether the program has replaced `socket.socket`, so that its own class has to make the connections.

    It may be a guard that keeps tests from the network, or a proxy. Sockets of green threads do not count, because
    they need a hub.
    """
    current: Any = socket.socket
    if is_green(current):
        return False
    return current.__module__ != "socket" or "connect" in vars(current)


def is_silent(sock: Any) -> bool:
    """Whether an idle connection has received nothing, not even its end. Looks below TLS, and takes nothing away."""
    sock = getattr(sock, "socket", sock)  # TLS in TLS, through a proxy
    sock.settimeout(0)
    try:
        native_socket.SocketType.recv(sock, 1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _no_password() -> str:
    raise OSError("the client's key has a password")  # without this, OpenSSL asks for it at the terminal


def make_tls_context(files: TlsFiles = SYSTEM_TLS) -> ssl.SSLContext:
    """A TLS context for TLS 1.2 and later, that trusts what the system trusts unless `files` has an authority.

    Raises:
        OSError: a file cannot be read, or is not what it should be.
    """
    context = native_ssl.create_default_context(cafile=files.authority)
    if files.client_certificate is not None:
        context.load_cert_chain(files.client_certificate, files.client_key, password=_no_password)
    context.minimum_version = native_ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _DeadlineTLSSocket
    return context
