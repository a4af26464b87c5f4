"""Healthy and faulty endpoints on loopback: real sockets on free ports."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    raw: bytes
    at: float = field(default_factory=time.monotonic)
    connection: tuple[str, int] = ("", 0)

    @property
    def body(self) -> bytes:
        return gzip.decompress(self.raw) if self.headers.get("Content-Encoding") == "gzip" else self.raw

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def logs(self) -> list[Any]:
        return [json.loads(text) for text in self.json["protoLogs"]]

    @property
    def ids(self) -> list[str]:
        return [log["frontend_log_event_id"] for log in self.logs]


@dataclass
class Reply:
    """An answer: status, headers and body (None: as the service answers). It waits until `release` is set."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    release: threading.Event | None = None


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True
    block_on_close = False
    owner: TelemetryServer

    def verify_request(self, request: object, client_address: Any) -> bool:
        self.owner.connections.append(client_address)
        return True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # in some tests, the client closes the connection halfway


class _ServerOnIPv6(_Server):
    address_family = socket.AF_INET6


class TelemetryServer:
    """Answers as the service does, unless `replies` (used in order) or `always` give another answer."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.connections: list[Any] = []  # the client's address per accepted connection
        self.requests: list[Request] = []
        self.accepted: list[str] = []
        self.replies: deque[Reply] = deque()
        self.always: Callable[[Request], Reply] | None = None
        self._held: set[threading.Event] = set()
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                raw = self.rfile.read(length)
                request = Request(self.path, dict(self.headers), raw, connection=self.client_address)
                reply = owner._reply_to(request)
                if reply.release is not None:
                    owner._held.add(reply.release)
                    reply.release.wait(30)
                body = owner._body(request, reply)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self._server = (_ServerOnIPv6 if ":" in address else _Server)((address, 0), Handler)
        self._server.owner = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), name="test-server", daemon=True
        )

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        address = str(self._server.server_address[0])
        return f"http://[{address}]:{self.port}" if ":" in address else f"http://{address}:{self.port}"

    def _reply_to(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            if self.replies:
                return self.replies.popleft()
        return self.always(request) if self.always else Reply()

    def _body(self, request: Request, reply: Reply) -> bytes:
        if reply.status == 200 and reply.body is None:
            ids = request.ids
            with self._lock:
                self.accepted.extend(ids)
            answer = {"errors": [], "numSuccess": 0, "numProtoSuccess": len(ids), "numRealtimeSuccess": 0}
            return json.dumps(answer).encode()
        return reply.body or b""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for release in list(self._held):  # a test that fails or skips early must not leave a client waiting
            release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@contextmanager
def raw_endpoint(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """An endpoint that runs `serve` for each connection; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    connections: list[socket.socket] = []
    ended = threading.Event()

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if ended.is_set():
                connection.close()
                return
            connections.append(connection)
            threading.Thread(target=run, args=(connection,), daemon=True).start()

    def run(connection: socket.socket) -> None:
        with suppress(OSError):  # the client has closed the connection
            serve(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    port = listener.getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        ended.set()
        socket.create_connection(("127.0.0.1", port)).close()  # wakes accept
        thread.join(5)
        listener.close()
        for connection in connections:
            with suppress(OSError):  # no longer connected
                connection.shutdown(socket.SHUT_RDWR)  # also ends a `serve` that wrapped the socket
            connection.close()


def _read_request(connection: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += connection.recv(65536)


def black_hole(connection: socket.socket) -> None:
    """Reads and never answers."""
    while connection.recv(65536):
        pass


def trickle(connection: socket.socket) -> None:
    """Answers one byte at a time for ever, so that no single receive times out."""
    _read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def trickle_body(connection: socket.socket) -> None:
    """Sends a whole head at once and then a body, one byte at a time."""
    _read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.05)


def close_in_mid_response(connection: socket.socket) -> None:
    """Sends less than its Content-Length."""
    _read_request(connection)
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"errors": [')
    connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def refused_url() -> str:
    """The URL of a port that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
