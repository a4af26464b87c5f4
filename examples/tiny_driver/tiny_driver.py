"""A driver of PEP 249 over HTTP, with telemetry. Copy it, and put your own protocol in the place of `_Http`.

    connection = tiny_driver.connect("http://127.0.0.1:8080", token="...")

Lines that end in `# telemetry` are all that telemetry takes. None of them can raise, block, or needs an `if`: with
telemetry off they do nothing.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from adbc_telemetry import ConnectionTelemetry, StatementTelemetryContext, TelemetryExporter
from adbc_telemetry.schema import ExecutionResultFormat, OperationType, StatementType

__version__ = "1.0"
apilevel, threadsafety, paramstyle = "2.0", 1, "qmark"


class Error(Exception):
    """Anything that went wrong."""


class InterfaceError(Error):
    """The driver was used in a way that it cannot be used in."""


class DatabaseError(Error):
    """The database says no."""


class OperationalError(DatabaseError):
    """The server cannot be reached, or did not let the client in."""


class ProgrammingError(DatabaseError):
    """The statement makes no sense."""


class IntegrityError(DatabaseError):
    """The statement would break a constraint."""


_ERRORS: Mapping[str, type[DatabaseError]] = {
    "OperationalError": ProgrammingError,  # SQLite's name for a table that is not there, and for bad syntax
    "ProgrammingError": ProgrammingError,
    "IntegrityError": IntegrityError,
}


def connect(
    url: str,
    *,
    token: str = "",
    properties: Mapping[str, Any] | None = None,
    exporter: TelemetryExporter | None = None,
    notice: Callable[[str], object] | None = None,
) -> Connection:
    """Open a connection.

    Args:
        url: of the server.
        token: lets the client in.
        properties: settings, such as `adbc.databricks.telemetry.enabled`.
        exporter: where telemetry goes instead of to the server; for tests.
        notice: shows the user what telemetry is sent, once, such as `print`.

    Raises:
        OperationalError: the server cannot be reached, or does not let the client in.
    """
    start = time.perf_counter()
    connection = _Http(url, token)
    try:
        session = connection.request("POST", "/sessions", {})["session"]
    except OperationalError:
        connection.close()
        raise
    telemetry = ConnectionTelemetry.create(  # telemetry
        properties,
        driver_name="tiny_driver",
        driver_version=__version__,
        host=url,
        auth=connection.credentials,
        exporter=exporter,
        session_id=session,
        opened_in_ms=_since(start),
        default_result_format=ExecutionResultFormat.INLINE_JSON,
        notice=notice,
    )
    return Connection(connection, session, telemetry)


class Connection:
    """A connection. A context manager that closes it."""

    def __init__(self, server: _Http, session: str, telemetry: ConnectionTelemetry) -> None:
        self._server = server
        self._session = session
        self._cursors: list[Cursor] = []
        self.telemetry = telemetry
        self.closed = False

    def cursor(self) -> Cursor:
        """A new cursor."""
        self._check()
        cursor = Cursor(self)
        self._cursors.append(cursor)
        return cursor

    def tables(self) -> list[str]:
        """The names of the tables."""
        self._check()
        with self.telemetry.statement(  # telemetry
            statement_type=StatementType.METADATA, operation_type=OperationType.LIST_TABLES
        ):
            rows = self.run("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name", ())
            return [name for chunk in range(rows.chunks) for (name,) in rows.fetch(chunk)]

    def commit(self) -> None:
        """The server commits each statement by itself."""
        self._check()

    def close(self) -> None:
        """Close the connection and its cursors. Idempotent."""
        if self.closed:
            return
        self.closed = True
        for cursor in self._cursors:
            cursor.close()
        start = time.perf_counter()
        try:
            self._server.request("DELETE", f"/sessions/{self._session}")
        finally:
            self._server.close()
            self.telemetry.close(closed_in_ms=_since(start))  # telemetry

    def run(
        self, sql: str, parameters: Sequence[Any], statement: StatementTelemetryContext | None = None
    ) -> _Result:
        """Execute a statement on the server, and wait until it is done."""
        body = {"session": self._session, "sql": sql, "parameters": list(parameters)}
        identity = self._server.request("POST", "/statements", body)["statement"]
        if statement is not None:
            statement.statement_id = identity  # telemetry
        while True:
            start = time.perf_counter()
            state = self._server.request("GET", f"/statements/{identity}")
            if statement is not None:
                statement.record_poll(_since(start))  # telemetry
            if state["state"] == "failed":
                raise _ERRORS.get(state["kind"], DatabaseError)(state["message"])
            if state["state"] == "done":
                return _Result(self._server, identity, state["columns"], state["chunks"])

    def _check(self) -> None:
        if self.closed:
            raise InterfaceError("the connection is closed")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Cursor:
    """A cursor. Each statement is one event, at the end of its rows or of the cursor's interest in them."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.closed = False
        self._result: _Result | None = None
        self._rows: Iterator[Sequence[Any]] = iter(())
        self._statement: StatementTelemetryContext | None = None

    @property
    def description(self) -> list[tuple[Any, ...]] | None:
        """The columns of the rows; None where there are none."""
        if self._result is None or not self._result.columns:
            return None
        return [(name, None, None, None, None, None, None) for name in self._result.columns]

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Cursor:
        """Execute a statement.

        Raises:
            DatabaseError: it has failed.
        """
        if self.closed or self.connection.closed:
            raise InterfaceError("the cursor is closed")
        self._end()
        kind = StatementType.QUERY if sql.lstrip()[:6].upper() == "SELECT" else StatementType.UPDATE
        self._statement = self.connection.telemetry.statement(statement_type=kind)  # telemetry
        with _ended_by_errors(self):
            self._result = self.connection.run(sql, parameters, self._statement)
        self._statement.record_execute_complete()  # telemetry
        self._rows = self._read(self._result, self._statement)
        if not self._result.columns:
            self._end()
        return self

    def _read(self, result: _Result, statement: StatementTelemetryContext) -> Iterator[Sequence[Any]]:
        for number in range(result.chunks):
            start = time.perf_counter()
            rows = result.fetch(number)
            statement.record_chunk(_since(start))  # telemetry
            statement.record_first_batch_ready()  # telemetry
            yield from rows
        statement.record_results_consumed()  # telemetry
        self._end()

    def fetchone(self) -> Sequence[Any] | None:
        """The next row; None where there is no more."""
        with _ended_by_errors(self):
            return next(self._rows, None)

    def fetchmany(self, size: int | None = None) -> list[Sequence[Any]]:
        """Up to `size` more rows."""
        rows = (self.fetchone() for _ in range(self.arraysize if size is None else size))
        return [row for row in rows if row is not None]

    def fetchall(self) -> list[Sequence[Any]]:
        """The rows that are left."""
        with _ended_by_errors(self):
            return list(self._rows)

    def __iter__(self) -> Iterator[Sequence[Any]]:
        return iter(self.fetchone, None)

    def close(self) -> None:
        """Let go of the rows. Idempotent."""
        self.closed = True
        self._end()

    def _end(self, error: BaseException | None = None) -> None:
        statement, self._statement = self._statement, None
        if statement is not None:
            if error is not None:
                statement.record_error(error)  # telemetry
            statement.emit()  # telemetry


class _ended_by_errors:
    """An error in this block is the end of the cursor's statement."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._cursor._end(error)


class _Result:
    """The rows of a statement, on the server."""

    def __init__(self, server: _Http, identity: str, columns: list[str], chunks: int) -> None:
        self._server = server
        self._identity = identity
        self.columns = columns
        self.chunks = chunks

    def fetch(self, chunk: int) -> list[Sequence[Any]]:
        """The rows of a chunk."""
        rows: list[Sequence[Any]] = self._server.request(
            "GET", f"/statements/{self._identity}/chunks/{chunk}"
        )
        return [tuple(row) for row in rows]


class _Http:
    """The protocol: JSON over one HTTP connection."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=30)
        self._token = token

    def credentials(self) -> dict[str, str] | None:
        """The headers that let the client in, also for telemetry."""
        return {"Authorization": f"Bearer {self._token}"} if self._token else None

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Make a request.

        Raises:
            OperationalError: it was refused, or there was no answer.
        """
        try:
            headers = {"Content-Type": "application/json", **(self.credentials() or {})}
            self._connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = self._connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise OperationalError(f"no answer from the server ({type(error).__name__})") from error
        if response.status != 200:
            raise OperationalError(f"the server answers {response.status}")
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _since(start: float) -> float:
    """Milliseconds since then."""
    return (time.perf_counter() - start) * 1000
