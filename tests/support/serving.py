"""Helpers of the HTTP server's tests: an application, the server around it, and clients that misbehave on purpose."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from adbc_telemetry.collector.serving import BackgroundServer, ServingLimits
from support.waiting import wait_until

if TYPE_CHECKING:
    from typing_extensions import Self

TIMEOUT = 20.0
PIECE = b"x" * 65_536


@dataclass
class ProbeApp:
    """Answers 200 with the size of the body; `/held` only once `release` is called, `/big` and `/stream` with pieces.

    Args:
        pieces: pieces of 64 KiB in the answer of `/big`.
    """

    pieces: int = 256
    events: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)  # the paths, as they came in
    disconnects: int = 0
    sent_pieces: int = 0
    _released: asyncio.Event = field(default_factory=asyncio.Event)
    _loop: asyncio.AbstractEventLoop | None = None

    def release(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._released.set)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        self.requests.append(scope["path"])
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects += 1
                return
            size += len(message["body"])
            if not message["more_body"]:
                break
        if scope["path"] == "/boom":
            raise ValueError("secret of the error")
        if scope["path"] == "/held":
            await self._released.wait()
        if scope["path"] in ("/big", "/stream"):
            await self._answer_in_pieces(send, endless=scope["path"] == "/stream")
        else:
            await self._answer(send, size)

    async def _live(self, receive: Any, send: Any) -> None:
        self._loop = asyncio.get_running_loop()
        await receive()
        self.events.append("started")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.events.append("stopped")
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, send: Any, size: int) -> None:
        body = json.dumps({"size": size}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer_in_pieces(self, send: Any, *, endless: bool) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while endless or self.sent_pieces < self.pieces:
            self.sent_pieces += 1
            await send({"type": "http.response.body", "body": b"x" if endless else PIECE, "more_body": True})
            await asyncio.sleep(0.01 if endless else 0)
        await send({"type": "http.response.body", "body": b""})


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        """The one error of an answer in the wire's form."""
        content = json.loads(self.body)
        assert set(content) == {"errors", "numSuccess", "numProtoSuccess", "numRealtimeSuccess"}
        [error] = content["errors"]
        return str(error)


def request_head(method: str = "POST", path: str = "/telemetry-ext", **headers: object) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def post(body: bytes, path: str = "/telemetry-ext", **headers: object) -> bytes:
    return request_head("POST", path, Content_Length=len(body), **headers) + body


def get(path: str = "/") -> bytes:
    return request_head("GET", path)


class RawClient:
    """A connection that sends what it is told, byte by byte if need be."""

    def __init__(
        self, port: int, context: ssl.SSLContext | None = None, *, small_buffer: bool = False
    ) -> None:
        plain = socket.socket()
        if small_buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(TIMEOUT)
        try:
            plain.connect(("127.0.0.1", port))
        except OSError:
            plain.close()
            raise
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname="localhost") if context else plain

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> Answer:
        """The next answer; fails when the connection ends without one."""
        response = http.client.HTTPResponse(self.socket)
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())

    def ask(self, request: bytes) -> Answer:
        self.send(request)
        return self.answer()

    def ended(self) -> bool:
        """Wait for the connection's end. False when something else comes."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@dataclass
class Served:
    server: BackgroundServer
    port: int
    context: ssl.SSLContext | None = None

    def client(self, *, small_buffer: bool = False) -> RawClient:
        return RawClient(self.port, self.context, small_buffer=small_buffer)

    def wait_for_connections(self, count: int) -> None:
        wait_until(
            lambda: self.server.open_connections == count,
            what=lambda: f"{self.server.open_connections} connections are open, not {count}",
        )


@contextmanager
def serving(
    app: Any, limits: ServingLimits | None = None, *, context: ssl.SSLContext | None = None, **options: Any
) -> Iterator[Served]:
    """A server on a free port of loopback. It ends with the block, at the latest with its deadline."""
    server = BackgroundServer(app, limits=limits, **options)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    port = listener.getsockname()[1]
    server.start(listener)
    try:
        yield Served(server, port, context)
    finally:
        server.stop()


@contextmanager
def clients(served: Served, count: int, first_words: bytes = b"") -> Iterator[list[RawClient]]:
    """Many clients that each have said `first_words`, and no more."""
    with ExitStack() as stack:
        many = [stack.enter_context(served.client()) for _ in range(count)]
        for client in many:
            client.send(first_words)
        yield many


def latencies(port: int, count: int, body: bytes) -> list[float]:
    """Seconds that each of `count` requests of an honest client took, on one connection, sorted."""
    taken = []
    with RawClient(port) as client:
        for _ in range(count):
            began = time.monotonic()
            assert client.ask(post(body)).status == 200
            taken.append(time.monotonic() - began)
    return sorted(taken)


def log_text(caplog: pytest.LogCaptureFixture) -> str:
    """All that was logged, tracebacks included."""
    formatter = logging.Formatter()
    return "\n".join(formatter.format(record) for record in caplog.records)


@contextmanager
def in_a_thread(target: Any) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=target, name="test-serving", daemon=True)
    thread.start()
    yield thread
    thread.join(TIMEOUT)
    assert not thread.is_alive()
