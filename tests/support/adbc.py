"""ADBC connections over SQLite and DuckDB: opening them, and reading the events that they recorded."""

from __future__ import annotations

import gc
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from adbc_telemetry import (
    InMemoryTelemetryExporter,
    TelemetryClientManager,
    TelemetryConfiguration,
)
from adbc_telemetry.schema import (
    OssSqlDriverTelemetryLog,
    TelemetryFrontendLog,
)

dbapi = pytest.importorskip("adbc_driver_manager.dbapi")
pyarrow = pytest.importorskip("pyarrow")
sqlite_dbapi = pytest.importorskip("adbc_driver_sqlite.dbapi")

ENDPOINT = "telemetry.example"
Event = tuple[str, str | None, str | None]  # operation type, statement type, error's class

CREATE: Event = ("CREATE_SESSION", None, None)
DELETE: Event = ("DELETE_SESSION", None, None)
QUERY: Event = ("EXECUTE_STATEMENT", "QUERY", None)
UPDATE: Event = ("EXECUTE_STATEMENT", "UPDATE", None)
SQL: Event = ("EXECUTE_STATEMENT", "SQL", None)
ASKED: Event = ("EXECUTE_STATEMENT", "METADATA", None)

THREE_ROWS = "SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3"


class Recording(InMemoryTelemetryExporter):
    """An exporter that flushes the client of `ENDPOINT` before it returns the received events."""

    def driver_logs(self) -> list[OssSqlDriverTelemetryLog]:
        for host in TelemetryClientManager.get_instance().hosts():
            with TelemetryClientManager.get_instance().acquire(host, enabled()) as lease:
                assert lease.client.flush(10)
        return [driver_log(log) for log in self.logs]

    def events(self) -> list[Event]:
        return [event_of(log) for log in self.driver_logs()]

    def statements(self) -> list[Event]:
        """All events except the beginnings and ends of sessions."""
        return [event for event in self.events() if not event[0].endswith("_SESSION")]


def driver_log(log: TelemetryFrontendLog) -> OssSqlDriverTelemetryLog:
    assert log.entry is not None
    assert log.entry.sql_driver_log is not None
    return log.entry.sql_driver_log


def event_of(log: OssSqlDriverTelemetryLog) -> Event:
    operation = log.sql_operation
    assert operation is not None
    assert operation.operation_detail is not None
    assert operation.operation_detail.operation_type is not None
    kind = operation.statement_type
    error = log.error_info
    return (
        operation.operation_detail.operation_type.name,
        None if kind is None else kind.name,
        None if error is None else error.error_name,
    )


def enabled(**settings: Any) -> TelemetryConfiguration:
    return TelemetryConfiguration(**{"enabled": True, "flush_interval_ms": 60_000, **settings})


def connect_sqlite(**kwargs: Any) -> Any:
    return sqlite_dbapi.connect(":memory:", **kwargs)


def connect_duckdb(**kwargs: Any) -> Any:
    return pytest.importorskip("adbc_driver_duckdb.dbapi").connect(**kwargs)


def drop(holder: list[Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        holder.clear()
        gc.collect()


def wait_for_no_clients() -> None:
    deadline = time.monotonic() + 10
    while TelemetryClientManager.get_instance().hosts() and time.monotonic() < deadline:
        time.sleep(0.01)


def script(connection: Any) -> Iterator[Callable[[], object]]:
    """Steps of a program that uses a connection; tests compare each step's outcome."""
    cursor = connection.cursor()
    yield lambda: cursor.execute("CREATE TABLE t (n INT, s TEXT)") is cursor
    yield lambda: cursor.executemany("INSERT INTO t VALUES (?, ?)", [(1, "a"), (2, "b"), (3, None)])
    yield lambda: (cursor.rowcount, cursor.description, cursor.rownumber, cursor.arraysize)
    yield lambda: cursor.executemany("INSERT INTO t VALUES (?, ?)", [])
    yield lambda: cursor.execute("SELECT n, s FROM t WHERE n >= ? ORDER BY n", (2,)) is cursor
    yield lambda: (cursor.rowcount, cursor.description, cursor.rownumber)
    yield cursor.fetchone
    yield cursor.next
    yield cursor.fetchone
    yield cursor.next
    yield cursor.fetchone
    yield cursor.fetchall
    yield lambda: cursor.execute("SELECT * FROM t ORDER BY n").fetch_arrow_table().to_pylist()
    yield cursor.fetch_arrow
    yield cursor.fetchall
    yield lambda: cursor.execute("SELECT * FROM t ORDER BY n").fetch_record_batch().read_all().to_pylist()
    yield lambda: cursor.execute("INSERT INTO t VALUES (9, 'z') RETURNING n").fetch_arrow_table().to_pylist()
    yield lambda: pyarrow.table(
        cursor.execute("INSERT INTO t VALUES (8, 'y') RETURNING n").fetch_arrow()
    ).to_pylist()
    yield lambda: cursor.execute("UPDATE t SET n = n + 1").fetchall()
    yield lambda: cursor.description
    yield lambda: cursor.execute("SELECT nothing FROM nowhere")
    yield lambda: cursor.execute("NONSENSE")
    yield lambda: cursor.execute(None)
    yield lambda: cursor.execute()
    yield lambda: cursor.execute("SELECT 1", (1, 2, 3)) is cursor
    yield lambda: cursor.execute("SELECT 1", unknown=1)
    yield lambda: cursor.fetchmany("many")
    yield lambda: cursor.fetchone(1)
    yield lambda: cursor.callproc("p", ())
    yield cursor.nextset
    yield lambda: cursor.executescript("DELETE FROM t WHERE n = 3; DELETE FROM t WHERE n = 4")
    yield lambda: cursor.adbc_ingest("t2", pyarrow.table({"n": [1, 2]}))
    yield lambda: cursor.adbc_ingest("t2", pyarrow.table({"n": [1, 2]}))
    yield lambda: cursor.adbc_prepare("SELECT n FROM t WHERE n = ?")
    yield lambda: cursor.adbc_execute_schema("SELECT n FROM t")
    yield connection.commit
    yield connection.rollback
    yield lambda: connection.adbc_get_table_schema("t")
    yield lambda: connection.adbc_get_table_schema("nothing")
    yield connection.adbc_get_table_types
    yield connection.adbc_get_info
    yield lambda: connection.adbc_get_objects(depth="tables").read_all().num_rows
    yield lambda: connection.adbc_get_objects(depth="none")
    yield lambda: connection.execute("SELECT 5").fetchone()
    yield lambda: list(connection.cursor().execute("SELECT 1 UNION ALL SELECT 2"))
    yield lambda: [method() for method in (cursor.close, cursor.close)]
    yield lambda: cursor.execute("SELECT 1")
    yield lambda: [method() for method in (connection.close, connection.close)]
    yield lambda: connection.execute("SELECT 1")
    yield connection.cursor
    yield connection.commit


def run(connection: Any) -> list[object]:
    outcomes: list[object] = []
    for number, step in enumerate(script(connection)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                outcome: object = repr(step())
            except BaseException as error:  # noqa: BLE001 - to compare it
                trace = traceback.extract_tb(error.__traceback__)
                outcome = (type(error), error.args, str(error), error.__cause__, repr(error.__context__))
                outcome += tuple(vars(error).items()) + tuple(getattr(error, "__notes__", ()))
                if len(trace) > 1 and "argument" not in str(error):
                    outcome += ((trace[-1].name, trace[-1].filename),)
        outcomes.append(
            (number, outcome, [(w.category, str(w.message), w.filename, w.lineno) for w in caught])
        )
    return outcomes
