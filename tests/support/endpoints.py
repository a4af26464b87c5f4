"""Healthy and faulty endpoints between a client and the service: TLS, proxies and bare sockets.

A faulty endpoint is a function of a connection, for `support.server.raw_endpoint`.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import trustme

from support.server import Request, TelemetryServer

Serve = Callable[[socket.socket], None]


# TLS.


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


class TlsTelemetryServer(TelemetryServer):
    """The service behind TLS."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        # The connection's own thread makes the handshake: a hanging one must not block `accept`.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )

    @property
    def url(self) -> str:
        return https(super().url)


def https(url: str) -> str:
    """The same address as an https URL, whatever protocol it speaks."""
    return url.replace("http://", "https://")


def over_tls(context: ssl.SSLContext, serve: Serve) -> Serve:
    """Run `serve` inside a TLS connection."""

    def run(connection: socket.socket) -> None:
        # A copy: at its end, the endpoint shuts the connection down under a `serve` that never returns.
        with context.wrap_socket(connection.dup(), server_side=True) as inside:
            serve(inside)

    return run


# The service on bare sockets.


def read_head(connection: socket.socket) -> tuple[str, dict[str, str], bytes]:
    """The first line, the headers (Like-This), and the body's bytes so far.

    Raises ConnectionError when the client has closed the connection.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("the client has closed the connection")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return first, {name.title(): value for name, value in (line.split(": ", 1) for line in lines)}, rest


def read_request(connection: socket.socket, piece_bytes: int = 65536) -> Request:
    """A whole request. Raises ConnectionError when the client has closed the connection."""
    first, headers, rest = read_head(connection)
    body = bytearray(rest)
    while len(body) < int(headers.get("Content-Length", "0")):
        piece = connection.recv(piece_bytes)
        if not piece:
            raise ConnectionError("the client has closed the connection")
        body += piece
    return Request(first.split(" ")[1], headers, bytes(body))


def write_answer(
    connection: socket.socket, status: str = "200 OK", body: bytes = b"{}", *headers: str
) -> None:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    connection.sendall("\r\n".join(lines).encode() + body)


def reset(connection: socket.socket) -> None:
    """Close the connection with a RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class RawService:
    """The service in steps: it records requests and accepted events, and the scenario does the rest."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.accepted: list[str] = []

    def read(self, connection: socket.socket, piece_bytes: int = 65536) -> Request:
        request = read_request(connection, piece_bytes)
        self.requests.append(request)
        return request

    def accept(self, connection: socket.socket, request: Request, *headers: str) -> None:
        self.accepted.extend(request.ids)
        answer = json.dumps({"numProtoSuccess": len(request.ids)}).encode()
        write_answer(connection, "200 OK", answer, *headers)

    def serve(self, connection: socket.socket) -> None:
        """Serve a connection as a healthy server does."""
        while True:
            self.accept(connection, self.read(connection))


# Faulty endpoints.


def endless_body(connection: socket.socket) -> None:
    """An endless body, as fast as the client reads it."""
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
    while True:
        connection.sendall(b" " * 65536)


def endless_headers(connection: socket.socket) -> None:
    """Endless header lines, as fast as the client reads them."""
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-More: of the same\r\n" * 1000)


def endless_header_line(connection: socket.socket) -> None:
    """One endless header line, as fast as the client reads it."""
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        connection.sendall(b"x" * 65536)


def endless_continue(connection: socket.socket) -> None:
    """Endless interim answers, never a final one."""
    read_request(connection)
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
        time.sleep(
            0.005
        )  # enough that the client always has one to read; a flood would slow down the test itself


def garbage(connection: socket.socket) -> None:
    """Bytes that are not HTTP."""
    read_request(connection)
    connection.sendall(b"\x00\xff\x16\x03 220 mail.example ESMTP\r\n" * 3)
    connection.close()


def chunks_cut_short(connection: socket.socket) -> None:
    """Closes before the last chunk."""
    read_request(connection)
    connection.sendall(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{"\r\n')
    connection.close()


def chunks_of_garbage(connection: socket.socket) -> None:
    """A chunk whose length is not a number."""
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nmany\r\n{}\r\n")
    connection.close()


def two_lengths(connection: socket.socket) -> None:
    """Two Content-Length headers that differ."""
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}")


def no_answer(connection: socket.socket) -> None:
    """Reads the request and closes the connection."""
    read_request(connection)
    connection.close()


def reset_in_mid_upload(connection: socket.socket) -> None:
    """Resets the connection after the head, while the client sends the body."""
    read_head(connection)
    reset(connection)


def reads_nothing(connection: socket.socket) -> None:
    """Reads nothing, so that only the buffers take bytes; `raw_endpoint` keeps the connection open."""


@contextmanager
def full_backlog() -> Iterator[str]:
    """The URL of a port where connecting hangs: the backlog is full, and nothing accepts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for filler in fillers:
                filler.close()


# Proxies.


class ConnectProxy:
    """A proxy that resolves every name to the server on `port` of this machine.

    Attributes:
        asked: the first line of each request.
        heads: the headers of each request to the proxy.
        carried: every byte from the clients, as it passed through the tunnel.
    """

    def __init__(self, port: int, *, authorization: str | None = None) -> None:
        self.asked: list[str] = []
        self.heads: list[dict[str, str]] = []
        self.carried = bytearray()
        self._port = port
        self._authorization = authorization

    def serve(self, connection: socket.socket) -> None:
        while True:
            first, headers, _ = read_head(connection)
            self.asked.append(first)
            self.heads.append(headers)
            if self._authorization is None or headers.get("Proxy-Authorization") == self._authorization:
                break
            write_answer(connection, "407 Proxy Authentication Required", b"unauthorized")
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(("127.0.0.1", self._port)) as inside:
            back = threading.Thread(target=_pump, args=(inside, connection, None), daemon=True)
            back.start()
            _pump(connection, inside, self.carried)
            back.join(5)


def _pump(source: socket.socket, target: socket.socket, record: bytearray | None) -> None:
    with suppress(OSError):  # one side has closed its connection
        while piece := source.recv(65536):
            if record is not None:
                record += piece
            target.sendall(piece)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
