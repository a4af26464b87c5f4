"""The server side of `soak.py`: endpoints that fail on order, and the books of the events that they accepted.

It is a separate process, so that only the client counts in the memory, threads and descriptors of the client's process,
and so that the books can grow. It speaks lines of JSON over standard input and output.

An event's id is `key:number`; the key names one client. An event is certainly accepted when the client has certainly
read the answer: its next request arrived on the same connection. Otherwise it is possibly accepted. The client's count
of delivered events must lie between the two.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

_LINGER: Final = struct.pack("ii", 1, 0)  # close with a reset


@dataclass
class Book:
    """The events of one client."""

    host: int
    perhaps: set[int] = field(default_factory=set)
    sure: set[int] = field(default_factory=set)


class Books:
    """The events that all endpoints accepted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._books: dict[str, Book] = {}
        # An endpoint may accept an abandoned request after its client's end.
        self._compared: dict[str, int] = {}
        self.violations: list[str] = []
        self.requests: Counter[str] = Counter()

    def request(self, fault: str) -> None:
        with self._lock:
            self.requests[fault] += 1

    def accept(self, host: int, ids: list[str]) -> None:
        with self._lock:
            for key, number in map(_parsed, ids):
                if key in self._compared:
                    if number >= self._compared[key]:
                        self._violation(f"{key}:{number} was never sent")
                    continue
                book = self._books.setdefault(key, Book(host))
                if book.host != host:
                    self._violation(f"{key} belongs to host {book.host} and arrived at host {host}")
                book.perhaps.add(number)

    def confirm(self, ids: list[str]) -> None:
        with self._lock:
            for key, number in map(_parsed, ids):
                book = self._books.get(key)
                if book is None:
                    continue  # compared in the meantime
                if number in book.sure:
                    self._violation(f"{key}:{number} was delivered twice")
                book.sure.add(number)

    def compare(self, key: str, host: int, sent: int, delivered: int) -> tuple[int, int]:
        """Compare a client's account with its book; returns how many events were certainly and possibly accepted."""
        with self._lock:
            book = self._books.pop(key, Book(host))
            self._compared[key] = sent
            sure, perhaps = len(book.sure), len(book.perhaps)
            if not sure <= delivered <= perhaps:
                self._violation(
                    f"{key} counts {delivered} delivered; certainly accepted {sure}, possibly {perhaps}"
                )
            if book.perhaps and not 0 <= min(book.perhaps) <= max(book.perhaps) < sent:
                self._violation(f"{key} sent {sent} events, and another one was accepted")
            if book.host != host:
                self._violation(f"{key} belongs to host {host} and arrived at host {book.host}")
            return sure, perhaps

    def unknown(self) -> list[str]:
        """Keys that were never compared."""
        with self._lock:
            return sorted(self._books)

    def _violation(self, text: str) -> None:
        if len(self.violations) < 20:
            self.violations.append(text)


def _parsed(event_id: str) -> tuple[str, int]:
    key, _, number = event_id.rpartition(":")
    return key, int(number)


class Connection:
    """One connection, and its last answer, which is not confirmed yet."""

    def __init__(self, endpoint: Endpoint, sock: socket.socket) -> None:
        self.endpoint = endpoint
        self.sock = sock
        self._buffer = b""
        self._answered: list[str] = []

    def serve(self) -> None:
        with contextlib.suppress(OSError, EOFError), self.sock:
            while True:
                headers = self._read_head()
                self.endpoint.books.confirm(self._answered)
                self._answered = []
                fault = self.endpoint.fault
                self.endpoint.books.request(fault)
                if fault in ("reset", "refuse"):  # "refuse" ends a connection that was accepted before
                    self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
                    return
                ids = self._read_ids(headers)
                if not _FAULTS[fault](self, ids):
                    return

    def _receive(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        self._buffer += data

    def _read_head(self) -> dict[str, str]:
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
        return {name.strip().lower(): value.strip() for name, _, value in pairs}

    def _read_ids(self, headers: dict[str, str]) -> list[str]:
        length = int(headers["content-length"])
        while len(self._buffer) < length:
            self._receive()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        return [json.loads(log)["frontend_log_event_id"] for log in json.loads(body)["protoLogs"]]

    def answer(self, status: int, body: bytes = b"", headers: str = "") -> bool:
        head = f"HTTP/1.1 {status} Whatever\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self.sock.sendall(head.encode() + body)
        return True

    def accept(self, ids: list[str]) -> bool:
        """Accept `ids` and answer so."""
        self.endpoint.books.accept(self.endpoint.index, ids)
        self._answered = ids
        return self.answer(200, _acceptance(len(ids)))

    def swallow(self, ids: list[str]) -> bool:
        """Do not answer until the client gives up."""
        while self.sock.recv(65536):
            pass
        return False

    def trickle(self, ids: list[str]) -> bool:
        self.endpoint.books.accept(
            self.endpoint.index, ids
        )  # the answer says so, but never arrives completely
        self.sock.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            self.sock.sendall(b"x")
            time.sleep(0.02)

    def cut_short(self, ids: list[str]) -> bool:
        self.endpoint.books.accept(self.endpoint.index, ids)
        body = _acceptance(len(ids))
        self.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body[:10]))
        return False

    def too_large(self, ids: list[str]) -> bool:
        return self.answer(413) if len(ids) > 2 else self.accept(ids)

    def slow(self, ids: list[str]) -> bool:
        time.sleep(self.endpoint.rng.uniform(0, 0.6))  # around the client's timeout
        return self.accept(ids)

    def garbage(self, ids: list[str]) -> bool:
        kind = self.endpoint.rng.randrange(4)
        if kind == 0:
            return self.answer(200, b"<html>Please log in to the network</html>")
        if kind == 1:
            return self.answer(200, b'{"numProtoSuccess": "all of them"}')
        if kind == 2:
            return self.answer(200, b"\xff\xfe\x00" * 100)
        self.sock.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        return False

    def partly(self, ids: list[str]) -> bool:
        return self.accept(ids[: self.endpoint.rng.randrange(len(ids) + 1)])


def _acceptance(count: int) -> bytes:
    return b'{"errors": [], "numSuccess": 0, "numProtoSuccess": %d, "numRealtimeSuccess": 0}' % count


# How to answer a request; False ends the connection.
_FAULTS: Final[dict[str, Callable[[Connection, list[str]], bool]]] = {
    "healthy": Connection.accept,
    "500": lambda connection, ids: connection.answer(500),
    "503": lambda connection, ids: connection.answer(503, b"busy"),
    "429": lambda connection, ids: connection.answer(429, headers="Retry-After: 1\r\n"),
    "413": Connection.too_large,
    "black hole": Connection.swallow,
    "trickle": Connection.trickle,
    "cut short": Connection.cut_short,
    "slow": Connection.slow,
    "garbage": Connection.garbage,
    "partly": Connection.partly,
}
FAULTS: Final = (*_FAULTS, "reset", "refuse")


class Endpoint:
    """One host: a port on loopback, and its current fault."""

    def __init__(self, index: int, seed: int, books: Books) -> None:
        self.index = index
        self.books = books
        self.fault = "healthy"
        self.rng = random.Random(f"{seed} server {index}")
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()  # guards _connections
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._accept_in_thread()

    def become(self, fault: str) -> None:
        if fault == self.fault:
            return
        if fault == "refuse":
            self._stop_listening()
        elif self.fault == "refuse":
            self._listener.close()
            self._listener = self._bind()
            self._listener.listen(256)
            self._accept_in_thread()
        self.fault = fault

    def _bind(self) -> socket.socket:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", self.port))
        return bound

    def _stop_listening(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._listener.close()
        self._listener = self._bind()  # bound but not listening: keeps the port and refuses connections
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept_in_thread(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with self._lock:
            self._connections.add(sock)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Connection(self, sock).serve()
        finally:
            with self._lock:
                self._connections.discard(sock)
            sock.close()


def _obey(order: dict[str, Any], endpoints: list[Endpoint], books: Books) -> Any:
    """Carry out one order of the client's process and return the answer."""
    if order["do"] == "fault":
        return endpoints[order["host"]].become(order["fault"])
    if order["do"] == "compare":
        return books.compare(order["key"], order["host"], order["sent"], order["delivered"])
    return {"requests": books.requests, "violations": books.violations, "unknown": books.unknown()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    books = Books()
    endpoints = [Endpoint(index, arguments.seed, books) for index in range(arguments.hosts)]
    print(json.dumps([endpoint.port for endpoint in endpoints]), flush=True)
    for line in sys.stdin:  # ends with the client's process
        print(json.dumps(_obey(json.loads(line), endpoints, books)), flush=True)


if __name__ == "__main__":
    main()
