"""The store: one DuckDB file, written by one thread, many requests to a transaction."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import datetime, timezone
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

import duckdb
import msgspec
import pyarrow as pa

from adbc_telemetry.collector.intake import AcceptedLog
from adbc_telemetry.collector.report import Report, build_report

_MAX_GROUP: Final = 20_000
"""Logs after which a transaction takes no further request in: bounds its memory, and how long the first one waits."""

_LOG: Final = "entry.sql_driver_log."
_SYSTEM: Final = _LOG + "system_configuration."
_OPERATION: Final = _LOG + "sql_operation."
_DETAIL: Final = _OPERATION + "operation_detail."
_LATENCY: Final = _OPERATION + "result_latency."
_CHUNKS: Final = _OPERATION + "chunk_details."

# The columns that come out of a log: name, type, and where the value stands in the message.
_FLATTENED: Final = (
    ("event_id", "VARCHAR", "frontend_log_event_id"),
    ("timestamp", "TIMESTAMP", "context.client_context.timestamp_millis"),
    ("workspace_id", "BIGINT", "workspace_id"),
    ("user_agent", "VARCHAR", "context.client_context.user_agent"),
    ("session_id", "VARCHAR", _LOG + "session_id"),
    ("sql_statement_id", "VARCHAR", _LOG + "sql_statement_id"),
    ("auth_type", "VARCHAR", _LOG + "auth_type"),
    ("driver_name", "VARCHAR", _SYSTEM + "driver_name"),
    ("driver_version", "VARCHAR", _SYSTEM + "driver_version"),
    ("runtime_name", "VARCHAR", _SYSTEM + "runtime_name"),
    ("runtime_version", "VARCHAR", _SYSTEM + "runtime_version"),
    ("os_name", "VARCHAR", _SYSTEM + "os_name"),
    ("os_version", "VARCHAR", _SYSTEM + "os_version"),
    ("os_arch", "VARCHAR", _SYSTEM + "os_arch"),
    ("client_app_name", "VARCHAR", _SYSTEM + "client_app_name"),
    ("statement_type", "VARCHAR", _OPERATION + "statement_type"),
    ("operation_type", "VARCHAR", _DETAIL + "operation_type"),
    ("execution_result", "VARCHAR", _OPERATION + "execution_result"),
    ("is_compressed", "BOOLEAN", _OPERATION + "is_compressed"),
    ("is_internal_call", "BOOLEAN", _DETAIL + "is_internal_call"),
    ("error_name", "VARCHAR", _LOG + "error_info.error_name"),
    ("retry_count", "BIGINT", _OPERATION + "retry_count"),
    ("n_operation_status_calls", "INTEGER", _DETAIL + "n_operation_status_calls"),
    ("operation_status_latency_ms", "BIGINT", _DETAIL + "operation_status_latency_millis"),
    ("operation_latency_ms", "BIGINT", _LOG + "operation_latency_ms"),
    ("result_set_ready_latency_ms", "BIGINT", _LATENCY + "result_set_ready_latency_millis"),
    ("result_set_consumption_latency_ms", "BIGINT", _LATENCY + "result_set_consumption_latency_millis"),
    ("total_chunks_present", "INTEGER", _CHUNKS + "total_chunks_present"),
    ("total_chunks_iterated", "INTEGER", _CHUNKS + "total_chunks_iterated"),
)
_COLUMNS: Final = (
    *((name, sql_type) for name, sql_type, _ in _FLATTENED),
    ("received_at", "TIMESTAMP"),
    ("log", "JSON"),
)
_CREATE: Final = "CREATE TABLE IF NOT EXISTS logs ({}, PRIMARY KEY (event_id))".format(
    ", ".join(f'"{name}" {sql_type}' for name, sql_type in _COLUMNS)
)
# Inserts this small lose by handing work to other threads, and each checkpoint compresses the last rows anew: at
# DuckDB's 16 MB that is a third of the work. The price is at most so much log to replay after a crash.
_TUNING: Final = "SET threads = 1; SET checkpoint_threshold = '128MB'"
_INSERT: Final = "INSERT OR IGNORE INTO logs SELECT * FROM incoming"
_ARROW_TYPES: Final = {
    "VARCHAR": pa.string(),
    "JSON": pa.string(),
    "BIGINT": pa.int64(),
    "INTEGER": pa.int32(),
    "BOOLEAN": pa.bool_(),
    "TIMESTAMP": pa.timestamp("ms"),
}
_ARROW_SCHEMA: Final = pa.schema([(name, _ARROW_TYPES[sql_type]) for name, sql_type in _COLUMNS])
_PATHS: Final = tuple(path.split(".") for _, _, path in _FLATTENED)
_TIMESTAMP: Final = [name for name, _, _ in _FLATTENED].index("timestamp")

# Unix milliseconds of the years 1970 to 9999. A clock outside of them is broken: the log keeps what it said, the
# column stays empty, because neither DuckDB's nor Python's calendar takes all that an int64 can say.
_YEAR_10000: Final = 253_402_300_800_000


class StoreError(Exception):
    """The database cannot be used; the message says why, and what to do."""


class _Write(NamedTuple):
    logs: Sequence[AcceptedLog]
    received_at: datetime
    committed: Future[None]


def open_database(path: str | os.PathLike[str], *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Open a collector's DuckDB file; unless `read_only`, one is made where there is none.

    Raises:
        StoreError: when the file is in use, is not a collector's database or cannot be opened.
    """
    name = os.fspath(path)
    if read_only and not os.path.exists(name):
        raise StoreError(
            f"{name} does not exist; give the file that a collector writes, or a collector's URL."
        )
    try:
        connection = duckdb.connect(name, read_only=read_only)
    except duckdb.Error as error:
        raise StoreError(_explain(name, error, read_only)) from None
    try:
        if not read_only:
            connection.execute(_CREATE)
        found = connection.execute(
            "SELECT column_name FROM duckdb_columns() WHERE table_name = 'logs' ORDER BY column_index"
        ).fetchall()
        if found != [(column,) for column, _ in _COLUMNS]:
            raise StoreError(f"{name} is a DuckDB file, but not of this collector; give another one.")
    except duckdb.Error as error:
        connection.close()
        raise StoreError(_explain(name, error, read_only)) from None
    except StoreError:
        connection.close()
        raise
    return connection


class Store:
    """Keeps logs in a DuckDB file, each event id once. Thread-safe; close it, or use it as a context manager.

    Raises:
        StoreError: when the file is in use, is not a collector's database or cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._connection = open_database(path)
        self._connection.execute(_TUNING)
        self._writes: SimpleQueue[_Write | None] = SimpleQueue()  # None is the last word
        self._closing = threading.Lock()  # guards _closed, so that no write comes after the last word
        self._closed = False
        self._writer = threading.Thread(target=self._write_all, name="adbc-telemetry-store", daemon=True)
        self._writer.start()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def add(self, logs: Sequence[AcceptedLog]) -> Future[None]:
        """Queue the logs of one request. The future is done when they are committed, or fails when they cannot be.

        Raises:
            StoreError: when the store is closed.
        """
        write = _Write(logs, datetime.now(timezone.utc).replace(tzinfo=None), Future())
        with self._closing:
            if self._closed:
                raise StoreError("The store is closed.")
            self._writes.put(write)
        return write.committed

    def report(self) -> Report:
        """The report on all that is committed so far."""
        connection = self._connection.cursor()  # the writer owns the other one
        try:
            return build_report(connection)
        finally:
            connection.close()

    def close(self) -> None:
        """Commit what is queued and close the file. Idempotent; a second caller waits for the first."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._writes.put(None)
        self._writer.join()

    def _write_all(self) -> None:
        try:
            while group := self._next_group():
                self._commit(group)
        finally:
            self._connection.close()

    def _next_group(self) -> list[_Write]:
        """Wait for a write and take along those that queue behind it; empty when no more will come."""
        group: list[_Write] = []
        size = 0
        while size < _MAX_GROUP:
            try:
                write = self._writes.get(block=not group)
            except Empty:
                break
            if write is None:
                if group:
                    self._writes.put(None)  # read it again after this group
                break
            # A log whose request was given up meanwhile: no client was told that it is kept.
            if write.committed.set_running_or_notify_cancel():
                group.append(write)
                size += len(write.logs)
        return group

    def _commit(self, group: Sequence[_Write]) -> None:
        try:
            self._insert(group)
        except Exception as error:  # noqa: BLE001 - whatever it is, the requests behind it want an answer
            if len(group) > 1:
                # What one request sent must not cost the others their logs.
                for write in group:
                    self._commit([write])
            else:
                group[0].committed.set_exception(error)
        else:
            for write in group:
                write.committed.set_result(None)

    def _insert(self, group: Sequence[_Write]) -> None:
        self._connection.register("incoming", _arrow_table(group))
        try:
            self._connection.execute(_INSERT)  # a statement of its own is a transaction of its own
        finally:
            self._connection.unregister("incoming")


def _arrow_table(group: Sequence[_Write]) -> pa.Table:
    rows = [(*_flatten(log), write.received_at, log.text) for write in group for log in write.logs]
    columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(_COLUMNS)
    columns[_TIMESTAMP] = [_on_the_calendar(millis) for millis in columns[_TIMESTAMP]]
    return pa.table(columns, schema=_ARROW_SCHEMA)


def _flatten(log: AcceptedLog) -> list[Any]:
    message = msgspec.json.decode(log.text if log.canonical is None else log.canonical)
    return [_value_at(path, message) for path in _PATHS]


def _value_at(path: Sequence[str], message: Any) -> Any:
    for name in path:
        message = message.get(name)
        if message is None:
            return None
    return message


def _on_the_calendar(millis: int | None) -> int | None:
    return millis if millis is not None and 0 <= millis < _YEAR_10000 else None


def _explain(name: str, error: duckdb.Error, read_only: bool) -> str:
    """What DuckDB found, and what to do about it."""
    found = str(error).splitlines()[0]
    if "lock" in found or "being used by another process" in found:
        remedy = "give that one's URL instead" if read_only else "stop that one or give another file"
        return f"{name} is in use by another process, probably a running collector; {remedy}."
    if "not a valid DuckDB database" in found:
        return f"{name} is not a DuckDB file; give another one."
    return f"{name} cannot be opened; give another file, or see to this: {found}"
