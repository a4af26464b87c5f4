"""The endpoint that every system delivers to: it accepts everything unread and answers at once.

    python benchmarks/null_server.py [--keep FOLDER]

It is a separate process and as cheap as possible, so that the benchmark does not measure it on two cores: one thread,
bare sockets, and no parsing beyond Content-Length. It prints its port, and ends at the end of its standard input.
`GET /counts` returns the totals so far. With `--keep`, it writes each body to a file, to be counted later.
"""

from __future__ import annotations

import argparse
import json
import re
import selectors
import socket
import sys
import time
from pathlib import Path
from typing import Final

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PIECE: Final = 1 << 20
# On TCP, Linux discards the bytes without copying them; other systems copy them first.
_DISCARD: Final = socket.MSG_TRUNC if sys.platform == "linux" else 0

# A count above every batch size: a client caps it at the number of events that it sent.
_ACCEPTED: Final = b'{"errors":[],"numSuccess":0,"numProtoSuccess":1000000000,"numRealtimeSuccess":0}'


def _answer(kind: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (kind, len(body), body)


_ANSWER: Final = _answer(b"application/json", _ACCEPTED)
_OTLP_ANSWER: Final = _answer(b"application/x-protobuf", b"")


class _Connection:
    """A client's connection: between requests, or with `left` bytes of a request to come."""

    __slots__ = ("answer", "body", "head", "left", "socket")

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.head = b""
        self.left = 0
        self.answer = b""
        self.body = bytearray()


class NullServer:
    """See above. Counts heads and bodies in bytes as on the wire."""

    def __init__(self, keep: Path | None) -> None:
        self._keep = keep
        self._piece = bytearray(_PIECE)
        self._requests = self._head_bytes = self._body_bytes = 0
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if isinstance(key.data, _Connection):
                    if not self._read(key.data):
                        self._selector.unregister(key.fileobj)
                        key.data.socket.close()
                elif key.fileobj is self._listener:
                    connected, _ = self._listener.accept()
                    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._selector.register(connected, selectors.EVENT_READ, _Connection(connected))
                else:
                    return

    def _read(self, connection: _Connection) -> bool:
        """Read what has arrived; False when the client has closed the connection."""
        try:
            if connection.left:
                count = min(connection.left, _PIECE)
                if self._keep is None:
                    count = connection.socket.recv_into(self._piece, count, _DISCARD)
                else:
                    piece = connection.socket.recv(count)
                    connection.body += piece
                    count = len(piece)
                connection.left -= count
                if count and not connection.left:
                    self._finish(connection)
                return count > 0
            piece = connection.socket.recv(65_536)
            connection.head += piece
            head, ended, body = connection.head.partition(b"\r\n\r\n")
            if ended:
                connection.head = b""
                self._begin(connection, head, body)
        except OSError:
            return False
        return bool(piece)

    def _begin(self, connection: _Connection, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET /counts"):
            counts = {
                "requests": self._requests,
                "head_bytes": self._head_bytes,
                "body_bytes": self._body_bytes,
                "cpu_seconds": time.process_time(),
            }
            connection.socket.sendall(_answer(b"application/json", json.dumps(counts).encode()))
            return
        length = _LENGTH.search(head)
        size = int(length[1]) if length else 0
        self._head_bytes += len(head) + 4
        self._body_bytes += size
        connection.answer = _OTLP_ANSWER if b"/v1/logs" in head[:64] else _ANSWER
        connection.body = bytearray(body)
        connection.left = size - len(body)
        if not connection.left:
            self._finish(connection)

    def _finish(self, connection: _Connection) -> None:
        self._requests += 1
        if self._keep is not None:
            (self._keep / f"{self._requests:06}").write_bytes(connection.body)
        connection.socket.sendall(connection.answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="write each body to a file in this folder")
    server = NullServer(parser.parse_args().keep)
    print(server.port, flush=True)
    server.serve()


if __name__ == "__main__":
    main()
