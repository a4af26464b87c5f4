"""A database over HTTP: SQLite behind four requests. It is here so that the driver has something to talk to.

POST   /sessions                      -> {"session": id}
POST   /statements                    {"session", "sql", "parameters"} -> {"statement": id}
GET    /statements/{id}               -> {"state": "running" | "done" | "failed", "columns", "chunks", "kind"}
GET    /statements/{id}/chunks/{n}    -> rows
DELETE /sessions/{id}
"""

from __future__ import annotations

import json
import sqlite3
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ROWS_PER_CHUNK = 100


class Statement:
    """An executed statement: its rows in chunks, or why it failed. The first look at it finds it running."""

    def __init__(self, database: sqlite3.Connection, sql: str, parameters: list[Any]) -> None:
        self.looks = 0
        self.columns: list[str] = []
        self.chunks: list[list[Any]] = []
        self.error: tuple[str, str] | None = None
        try:
            cursor = database.execute(sql, parameters)
            self.columns = [column[0] for column in cursor.description or ()]
            rows = cursor.fetchall()
            self.chunks = [rows[at : at + ROWS_PER_CHUNK] for at in range(0, len(rows), ROWS_PER_CHUNK)]
        except sqlite3.Error as error:
            self.error = type(error).__name__, str(error)

    def state(self) -> dict[str, Any]:
        self.looks += 1
        if self.looks == 1:
            return {"state": "running"}
        if self.error is not None:
            return {"state": "failed", "kind": self.error[0], "message": self.error[1]}
        return {"state": "done", "columns": self.columns, "chunks": len(self.chunks)}


class TinyServer(ThreadingHTTPServer):
    """The server, on a free port of this machine. A context manager.

    Args:
        token: what clients have to bring along.
    """

    daemon_threads = True

    def __init__(self, token: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = token
        self.sessions: dict[str, sqlite3.Connection] = {}
        self.statements: dict[str, Statement] = {}
        self.lock = threading.Lock()  # guards both, and the databases

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> TinyServer:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        for database in self.sessions.values():
            database.close()

    def answer(self, method: str, path: list[str], body: dict[str, Any]) -> Any:
        """The answer to a request. Raises KeyError for what is not there."""
        match method, path:
            case "POST", ["sessions"]:
                session = str(uuid.uuid4())
                self.sessions[session] = sqlite3.connect(
                    ":memory:", check_same_thread=False, isolation_level=None
                )
                return {"session": session}
            case "DELETE", ["sessions", session]:
                self.sessions.pop(session).close()
                return {}
            case "POST", ["statements"]:
                identity = str(uuid.uuid4())
                database = self.sessions[body["session"]]
                self.statements[identity] = Statement(database, body["sql"], body["parameters"])
                return {"statement": identity}
            case "GET", ["statements", identity]:
                return self.statements[identity].state()
            case "GET", ["statements", identity, "chunks", number]:
                return self.statements[identity].chunks[int(number)]
        raise KeyError(path)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: TinyServer

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self._send(401, {})
        try:
            with self.server.lock:
                answer = self.server.answer(
                    self.command, self.path.strip("/").split("/"), json.loads(body or b"{}")
                )
        except LookupError:
            return self._send(404, {})
        return self._send(200, answer)

    do_GET = do_POST = do_DELETE = _handle

    def _send(self, status: int, answer: Any) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
