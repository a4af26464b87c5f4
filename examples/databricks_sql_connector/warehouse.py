"""A warehouse on loopback for the real connector: it answers the Statement Execution API, and passes telemetry on.

What it answers depends on the request: a warehouse named `closed` opens no session, a statement with the word `fail`
fails, any other has one row. Ids are numbered, so that two runs of the same program can be compared.

Facts: https://docs.databricks.com/api/workspace/statementexecution, and the connector's own models of the answers.
"""

from __future__ import annotations

import itertools
import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

PREFIX: Final = "/x"
"""What a host has behind it, so that the connector, which appends a port of its own, reaches a free one."""

_RESULT: Final = {
    "manifest": {
        "format": "JSON_ARRAY",
        "schema": {"column_count": 1, "columns": [{"name": "one", "type_name": "INT", "type_text": "INT"}]},
        "total_row_count": 1,
        "total_chunk_count": 1,
    },
    "result": {"data_array": [["1"]], "row_count": 1, "chunk_index": 0, "row_offset": 0},
}


class Warehouse(ThreadingHTTPServer):
    """See the module.

    Args:
        collector: the URL of the collector that gets the telemetry; None for an endpoint that never answers it.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, collector: str | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.collector = collector
        self.ended = threading.Event()
        self.sessions = itertools.count(1)
        self.statements = itertools.count(1)

    @property
    def hostname(self) -> str:
        """`server_hostname` for the connector."""
        return f"http://127.0.0.1:{self.server_address[1]}{PREFIX}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Warehouse

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.removeprefix(PREFIX)
        if path.startswith("/telemetry-"):
            self._pass_on(path, body)
        elif path.endswith("/sessions"):
            if json.loads(body).get("warehouse_id") == "closed":
                self._answer({"error_code": "PERMISSION_DENIED"}, 403)
            else:
                self._answer({"session_id": f"session-{next(self.server.sessions)}"})
        elif path.endswith("/statements"):
            self._execute(json.loads(body).get("statement", ""))
        else:
            self._answer({})

    do_GET = do_DELETE = do_POST

    def _execute(self, statement: str) -> None:
        state: dict[str, Any] = {"state": "SUCCEEDED"}
        if "fail" in statement:
            state = {
                "state": "FAILED",
                "error": {"error_code": "BAD_REQUEST", "message": f"cannot: {statement}"},
            }
        self._answer(
            {"statement_id": f"statement-{next(self.server.statements)}", "status": state, **_RESULT}
        )

    def _pass_on(self, path: str, body: bytes) -> None:
        if self.server.collector is None:
            self.server.ended.wait()
            return
        kept = ("Content-Type", "Content-Encoding", "Authorization")
        headers = {name: self.headers[name] for name in kept if name in self.headers}
        request = urllib.request.Request(self.server.collector + path, body, headers, method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            self._send(answer.status, answer.read())

    def _answer(self, content: object, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """It is not logged."""


@contextmanager
def warehouse(collector: str | None) -> Iterator[Warehouse]:
    """A warehouse that serves in a thread of its own."""
    server = Warehouse(collector)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="warehouse", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
