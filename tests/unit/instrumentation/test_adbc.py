"""Instrumented ADBC connections: one event an operation, and nothing else that anybody could notice."""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import sqlite3
import sys
import threading
import time
import traceback
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any
from unittest import mock

import msgspec
import pytest

from adbc_telemetry import (
    InMemoryTelemetryExporter,
    TelemetryClient,
    TelemetryClientLease,
    TelemetryClientManager,
    TelemetryConfiguration,
    install,
    instrument,
    uninstall,
)
from adbc_telemetry.context import StatementTelemetryContext
from adbc_telemetry.instrumentation import adbc, driver_info
from adbc_telemetry.instrumentation import statement_recorder as recorder_module
from adbc_telemetry.instrumentation.operations import CONNECTION_OPERATIONS, classify
from adbc_telemetry.schema import (
    ExecutionResultFormat,
    OperationType,
    OssSqlDriverTelemetryLog,
    StatementType,
    TelemetryFrontendLog,
)
from support.differential import is_ours
from support.server import TelemetryServer, black_hole, raw_endpoint

dbapi = pytest.importorskip("adbc_driver_manager.dbapi")
_lib = pytest.importorskip("adbc_driver_manager._lib")
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
    """What has arrived, read from the exporter after a flush of the client of `ENDPOINT`."""

    def driver_logs(self) -> list[OssSqlDriverTelemetryLog]:
        for host in TelemetryClientManager.get_instance().hosts():
            with TelemetryClientManager.get_instance().acquire(host, enabled()) as lease:
                assert lease.client.flush(10)
        return [driver_log(log) for log in self.logs]

    def events(self) -> list[Event]:
        return [event_of(log) for log in self.driver_logs()]

    def statements(self) -> list[Event]:
        """All but the beginnings and ends of sessions."""
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


@pytest.fixture
def recording() -> Recording:
    return Recording()


@pytest.fixture(params=[connect_sqlite, connect_duckdb], ids=["sqlite", "duckdb"])
def connect(request: pytest.FixtureRequest) -> Callable[..., Any]:
    result: Callable[..., Any] = request.param
    return result


@pytest.fixture
def connection(connect: Callable[..., Any], recording: Recording) -> Iterator[Any]:
    with connect() as raw:
        yield instrument(raw, ENDPOINT, config=enabled(), exporter=recording)


@pytest.fixture
def sqlite(recording: Recording) -> Iterator[Any]:
    with connect_sqlite() as raw:
        yield instrument(raw, ENDPOINT, config=enabled(), exporter=recording)


@pytest.fixture
def installed(recording: Recording) -> Iterator[Recording]:
    install(ENDPOINT, config=enabled(), exporter=recording)
    yield recording
    uninstall()


# What an event says.


def test_a_query_is_one_event_with_every_field_in_its_place(connect: Any, recording: Recording) -> None:
    before = time.time_ns() // 1_000_000
    raw = connect()
    info = raw.adbc_get_info()
    with instrument(
        raw,
        ENDPOINT,
        config=enabled(),
        exporter=recording,
        workspace_id=2**40,
        session_id="the session",
        auth_type="pat",
        client_app_name="an application",
    ) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchall() == [(1,)]
        recording.driver_logs()
        log = recording.logs[1]
    assert log.workspace_id == 2**40
    assert log.frontend_log_event_id
    assert log.context is not None
    assert log.context.client_context is not None
    assert before <= (log.context.client_context.timestamp_millis or 0) <= time.time_ns() // 1_000_000
    agent = log.context.client_context.user_agent or ""
    assert agent.startswith("adbc-telemetry")
    assert agent.endswith(f"({info['driver_name']} {info['driver_version'].removeprefix('v')})")
    event = driver_log(log)
    assert event.session_id == "the session"
    assert event.sql_statement_id
    assert event.auth_type == "pat"
    assert event.vol_operation is None
    assert event.error_info is None
    assert event.system_configuration is not None
    assert event.system_configuration.driver_name == info["driver_name"]
    assert event.system_configuration.driver_version == info["driver_version"]
    assert event.system_configuration.client_app_name == "an application"
    assert event.system_configuration.runtime_name
    assert event.driver_connection_params is not None
    assert event.driver_connection_params.enable_arrow is True
    assert event.driver_connection_params.auto_commit is False
    assert event.operation_latency_ms is not None
    operation = event.sql_operation
    assert operation is not None
    assert operation.statement_type is StatementType.QUERY
    assert operation.execution_result is ExecutionResultFormat.INLINE_ARROW
    assert operation.operation_detail is not None
    assert operation.operation_detail.operation_type is OperationType.EXECUTE_STATEMENT
    assert operation.operation_detail.is_internal_call is False
    assert operation.result_latency is not None
    ready = operation.result_latency.result_set_ready_latency_millis
    consumed = operation.result_latency.result_set_consumption_latency_millis
    assert ready is not None
    assert consumed is not None
    assert 0 <= ready <= consumed <= event.operation_latency_ms


def test_all_events_of_a_connection_share_its_session_and_each_statement_has_an_id(
    connection: Any, recording: Recording
) -> None:
    for _ in range(3):
        connection.execute("SELECT 1").close()
    connection.close()
    logs = recording.driver_logs()
    assert [event_of(log) for log in logs] == [CREATE, QUERY, QUERY, QUERY, DELETE]
    assert len({log.session_id for log in logs}) == 1
    # The session's own events are about no statement, so that counts of statements are right.
    assert (logs[0].sql_statement_id, logs[-1].sql_statement_id) == (None, None)
    assert len({log.sql_statement_id for log in logs[1:-1]} - {None}) == 3
    assert len({log.frontend_log_event_id for log in recording.logs}) == len(logs)


def test_the_latencies_are_those_of_the_statement(sqlite: Any, recording: Recording) -> None:
    with sqlite.cursor() as cursor:
        cursor.execute(THREE_ROWS)
        time.sleep(0.03)
        cursor.fetchone()
        time.sleep(0.03)
        cursor.fetchall()
        time.sleep(0.2)  # after the end of the results: nobody's latency
    [_, log] = recording.driver_logs()
    assert log.sql_operation is not None
    assert log.sql_operation.result_latency is not None
    ready = log.sql_operation.result_latency.result_set_ready_latency_millis or 0
    consumed = log.sql_operation.result_latency.result_set_consumption_latency_millis or 0
    assert 30 <= ready <= consumed - 30
    assert consumed == log.operation_latency_ms
    assert consumed < 200


def test_autocommit_is_told(connect: Any, recording: Recording) -> None:
    instrument(connect(autocommit=True), ENDPOINT, config=enabled(), exporter=recording).close()
    parameters = recording.driver_logs()[0].driver_connection_params
    assert parameters is not None
    assert parameters.auto_commit is True


# One event an operation, each under its own type. Those of a cursor, on a table t(n):

CURSOR_CALLS: dict[str, tuple[Callable[[Any], object], Event]] = {
    "execute a query": (lambda c: c.execute("SELECT n FROM t").fetchall(), QUERY),
    "execute an insert": (lambda c: c.execute("INSERT INTO t VALUES (7)"), UPDATE),
    "execute a definition": (lambda c: c.execute("CREATE TABLE u (n INT)"), SQL),
    "execute with keywords": (
        lambda c: c.execute(operation="INSERT INTO t VALUES (?)", parameters=(1,)),
        UPDATE,
    ),
    "execute returning rows": (
        lambda c: c.execute("INSERT INTO t VALUES (8) RETURNING n").fetchall(),
        UPDATE,
    ),
    "executemany": (lambda c: c.executemany("INSERT INTO t VALUES (?)", [(1,)]), UPDATE),
    "executescript": (lambda c: c.executescript("DELETE FROM t; DELETE FROM t"), SQL),
    "adbc_ingest": (lambda c: c.adbc_ingest("v", pyarrow.table({"n": [1]})), UPDATE),
    "adbc_prepare": (lambda c: c.adbc_prepare("SELECT n FROM t WHERE n = ?"), ASKED),
}


@pytest.mark.parametrize("name", CURSOR_CALLS)
def test_a_cursors_operation_is_one_event(name: str, connection: Any, recording: Recording) -> None:
    call, expected = CURSOR_CALLS[name]
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (n INT)")
        before = len(recording.statements())
        call(cursor)
        assert recording.statements()[before:] == [expected]
    assert recording.statements()[before:] == [expected]


def test_what_a_driver_cannot_do_is_an_event_with_the_error(sqlite: Any, recording: Recording) -> None:
    with sqlite.cursor() as cursor:
        for call in (
            lambda: cursor.adbc_execute_partitions("SELECT 1"),
            lambda: cursor.adbc_execute_schema("SELECT 1"),
            lambda: cursor.adbc_read_partition(b"none"),
            lambda: cursor.execute(b"a plan that SQLite cannot read"),
            cursor.adbc_cancel,
            sqlite.adbc_get_statistic_names,
        ):
            with pytest.raises(dbapi.NotSupportedError):
                call()
    error = "NotSupportedError"
    assert recording.statements() == [
        ("EXECUTE_STATEMENT", "QUERY", error),
        ("EXECUTE_STATEMENT", "METADATA", error),
        ("EXECUTE_STATEMENT", "QUERY", error),
        ("EXECUTE_STATEMENT", "QUERY", error),
        ("CANCEL_STATEMENT", None, error),
        ("TYPE_UNSPECIFIED", "METADATA", error),
    ]


def test_each_depth_of_objects_is_listed_under_its_own_type(connection: Any, recording: Recording) -> None:
    for depth in ("catalogs", "db_schemas", "tables", "columns", "all"):
        connection.adbc_get_objects(depth=depth).read_all()
    connection.adbc_get_objects().read_all()
    with pytest.raises(ValueError, match="depth"):
        connection.adbc_get_objects(depth="everything")
    types = ["LIST_CATALOGS", "LIST_SCHEMAS", "LIST_TABLES", "LIST_COLUMNS", "LIST_COLUMNS", "LIST_COLUMNS"]
    assert recording.statements() == [
        *((kind, "METADATA", None) for kind in types),
        ("TYPE_UNSPECIFIED", "METADATA", "ValueError"),
    ]


def test_other_metadata_is_listed_under_its_own_type(sqlite: Any, recording: Recording) -> None:
    sqlite.execute("CREATE TABLE t (n INT)").close()
    sqlite.adbc_get_info()
    sqlite.adbc_get_table_schema("t")
    sqlite.adbc_get_table_types()
    with pytest.raises(dbapi.Error) as failure:
        sqlite.adbc_get_table_schema("no_such_table")
    assert recording.statements()[1:] == [
        ("TYPE_UNSPECIFIED", "METADATA", None),
        ("LIST_COLUMNS", "METADATA", None),
        ("LIST_TABLE_TYPES", "METADATA", None),
        ("LIST_COLUMNS", "METADATA", failure.type.__name__),
    ]


def test_commit_and_rollback_are_statements(connection: Any, recording: Recording) -> None:
    connection.commit()
    connection.rollback()
    assert recording.statements() == [SQL, SQL]


def test_a_commit_that_the_driver_does_not_make_is_no_event(connect: Any, recording: Recording) -> None:
    with instrument(connect(autocommit=True), ENDPOINT, config=enabled(), exporter=recording) as connection:
        connection.commit()
        connection.rollback()
        assert recording.statements() == []


def test_a_commit_after_a_failed_script_is_an_event_again(sqlite: Any, recording: Recording) -> None:
    with sqlite.cursor() as cursor:
        with pytest.raises(dbapi.Error) as failure:
            cursor.executescript("NONSENSE")
        sqlite.commit()
    assert recording.statements() == [("EXECUTE_STATEMENT", "SQL", failure.type.__name__), SQL]


def test_cancelling_a_connection_is_an_event(connection: Any, recording: Recording) -> None:
    try:
        connection.adbc_cancel()
    except dbapi.NotSupportedError:
        error: str | None = "NotSupportedError"
    else:
        error = None
    assert recording.statements() == [("CANCEL_STATEMENT", None, error)]


def test_cancelling_a_statement_bears_the_id_of_the_statement(recording: Recording) -> None:
    with instrument(connect_duckdb(), ENDPOINT, config=enabled(), exporter=recording) as connection:
        with connection.cursor() as cursor:
            cursor.execute(THREE_ROWS)
            cursor.adbc_cancel()
        cancelled, cancels = recording.driver_logs()[2], recording.driver_logs()[1]
        assert event_of(cancels) == ("CANCEL_STATEMENT", "QUERY", None)
        assert event_of(cancelled) == QUERY
        assert cancels.sql_statement_id == cancelled.sql_statement_id


def test_the_table_of_operations_covers_every_method_that_talks_to_the_database() -> None:
    silent = {"close", "cursor", "execute", "adbc_clone", "adbc_connection", "adbc_database"}
    silent |= {"adbc_current_catalog", "adbc_current_db_schema"}  # properties: options, not operations
    errors = {name for name, member in vars(dbapi.Connection).items() if isinstance(member, type)}
    public = {name for name in vars(dbapi.Connection) if not name.startswith("_")}
    assert public - silent - errors == set(CONNECTION_OPERATIONS)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", StatementType.QUERY),
        ("select\n1", StatementType.QUERY),
        ("  \n\t(( Select 1 ))", StatementType.QUERY),
        ("-- why\n/* a * b ** / */ WITH x AS (SELECT 1) SELECT 1", StatementType.QUERY),
        ("/**//***//*/*/ -- SELECT\nupdate t SET n = 1", StatementType.UPDATE),
        ("VALUES (1)", StatementType.QUERY),
        ("SHOW TABLES", StatementType.QUERY),
        ("DESCRIBE t", StatementType.QUERY),
        ("EXPLAIN DELETE FROM t", StatementType.QUERY),
        ("PRAGMA a", StatementType.QUERY),
        ("TABLE t", StatementType.QUERY),
        ("FROM t", StatementType.QUERY),
        ("INSERT INTO t VALUES (1)", StatementType.UPDATE),
        ("DELETE FROM t", StatementType.UPDATE),
        ("MERGE INTO t", StatementType.UPDATE),
        ("REPLACE INTO t", StatementType.UPDATE),
        ("COPY t FROM 'f'", StatementType.UPDATE),
        ("UPSERT INTO t", StatementType.UPDATE),
        ("CREATE TABLE t (n INT)", StatementType.SQL),
        ("SELECTED", StatementType.SQL),
        ("", StatementType.SQL),
        (None, StatementType.SQL),
        (b"SELECT", StatementType.QUERY),
        (" " * 500 + "SELECT 1", StatementType.SQL),
    ],
)
def test_a_statement_is_classified_by_its_first_word(sql: object, expected: StatementType) -> None:
    assert classify(sql).statement_type is expected


@pytest.mark.parametrize("piece", ["/**/", "(", " ", "--\n", "/*", "/* *", ";", "-- "])
def test_no_text_takes_long_to_classify(piece: str) -> None:
    start = time.perf_counter()
    for tail in ("", "1", "*/", "\n"):
        classify(piece * 1_000_000 + tail)
    assert time.perf_counter() - start < 0.5


# Promise 14: exactly one event a statement, however it ends.


def iterate(cursor: Any) -> list[Any]:
    return list(cursor)


def fetch_one_by_one(cursor: Any) -> list[Any]:
    return list(iter(cursor.fetchone, None))


def fetch_in_twos(cursor: Any) -> None:
    while len(cursor.fetchmany(2)) == 2:
        pass


def fetch_by_arraysize(cursor: Any) -> Any:
    cursor.arraysize = 10
    return cursor.fetchmany()


ENDS_OF_RESULTS: dict[str, Callable[[Any], object]] = {
    "fetchall": lambda c: c.fetchall(),
    "fetchone": fetch_one_by_one,
    "fetchmany": fetch_in_twos,
    "fetchmany by arraysize": fetch_by_arraysize,
    "fetchmany by keyword": lambda c: c.fetchmany(size=4),
    "iteration": iterate,
    "fetch_arrow_table": lambda c: c.fetch_arrow_table(),
    "fetchallarrow": lambda c: c.fetchallarrow(),
    "fetch_df": lambda c: pytest.importorskip("pandas") and c.fetch_df(),
    "fetch_polars": lambda c: pytest.importorskip("polars") and c.fetch_polars(),
}


@pytest.mark.parametrize("name", ENDS_OF_RESULTS)
def test_a_statement_ends_with_its_results(name: str, connection: Any, recording: Recording) -> None:
    cursor = connection.cursor()
    cursor.execute(THREE_ROWS)
    assert recording.statements() == []
    ENDS_OF_RESULTS[name](cursor)
    assert recording.statements() == [QUERY]
    log = recording.driver_logs()[-1]
    assert log.sql_operation is not None
    assert log.sql_operation.result_latency is not None
    assert log.sql_operation.result_latency.result_set_consumption_latency_millis is not None
    cursor.close()
    connection.close()
    assert recording.statements() == [QUERY]


UNFINISHED: dict[str, Callable[[Any], object]] = {
    "nothing fetched": lambda c: None,
    "one row fetched": lambda c: c.fetchone(),
    "all rows but no end seen": lambda c: c.fetchmany(3),
    "no rows asked for": lambda c: c.fetchmany(0),
    "a reader handed out": lambda c: c.fetch_record_batch(),
    "a stream handed out": lambda c: c.fetch_arrow(),
}


def drop(holder: list[Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        holder.clear()
        gc.collect()


OTHER_ENDS: dict[str, tuple[Callable[[list[Any]], object], list[Event]]] = {
    "close": (lambda holder: holder[0].close(), []),
    "close twice": (lambda holder: (holder[0].close(), holder[0].close()), []),
    "leaving the block": (lambda holder: holder[0].__exit__(None, None, None), []),
    "execute again": (lambda holder: holder[0].execute("SELECT 2").fetchall(), [QUERY]),
    "executemany": (lambda holder: holder[0].executescript("SELECT 3"), [SQL]),
    "the connection closed": (lambda holder: holder[0].connection.close(), []),
    "dropped": (drop, []),
}


@pytest.mark.parametrize("end", OTHER_ENDS)
@pytest.mark.parametrize("state", UNFINISHED)
def test_a_statement_ends_with_its_cursor(
    state: str, end: str, connection: Any, recording: Recording
) -> None:
    holder = [connection.cursor()]
    holder[0].execute(THREE_ROWS)
    handed_out = UNFINISHED[state](holder[0])
    assert recording.statements() == []
    finish, others = OTHER_ENDS[end]
    if end == "execute again":
        handed_out = None
    finish(holder)
    assert recording.statements() == [QUERY, *others]
    del handed_out
    if holder:
        holder[0].close()
    connection.close()
    assert recording.statements() == [QUERY, *others]


def test_a_reader_that_was_handed_out_is_the_drivers_own(connection: Any) -> None:
    with connection.cursor() as cursor:
        reader = cursor.execute(THREE_ROWS).fetch_record_batch()
        assert type(reader) is pyarrow.RecordBatchReader
        assert reader.read_all().num_rows == 3


def test_a_statement_that_fails_is_one_event_with_the_error(connection: Any, recording: Recording) -> None:
    with connection.cursor() as cursor:
        with pytest.raises(dbapi.Error) as failure:
            cursor.execute("SELECT no_such_column FROM no_such_table")
        assert recording.statements() == [("EXECUTE_STATEMENT", "QUERY", failure.type.__name__)]
    assert len(recording.statements()) == 1


def test_a_fetch_that_fails_ends_the_statement_with_the_error(sqlite: Any, recording: Recording) -> None:
    with sqlite.cursor() as cursor:
        # SQLite infers a column's type from the first rows; a text after them is an error when it is reached.
        numbers = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5000) SELECT "
        cursor.execute(numbers + "CASE WHEN n < 4000 THEN n ELSE 'a text' END FROM r")
        with pytest.raises((dbapi.Error, OSError)) as failure:
            cursor.fetchall()
        assert recording.statements() == [("EXECUTE_STATEMENT", "QUERY", failure.type.__name__)]
    assert len(recording.statements()) == 1


def test_a_fetch_without_a_statement_is_no_event(sqlite: Any, recording: Recording) -> None:
    with sqlite.cursor() as cursor:
        for fetch in (cursor.fetchone, cursor.fetchmany, cursor.fetchall, cursor.fetch_arrow_table):
            with pytest.raises(dbapi.ProgrammingError):
                fetch()
        cursor.execute("SELECT 1").fetchall()
        assert cursor.fetchone() is None
        assert cursor.fetchall() == []
    assert recording.statements() == [QUERY]


def test_an_interrupt_is_recorded_and_passes_through(
    sqlite: Any, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    with sqlite.cursor() as cursor:
        with monkeypatch.context() as patch:
            patch.setattr(dbapi.Cursor, "execute", interrupted)
            with pytest.raises(KeyboardInterrupt):
                cursor.execute("SELECT 1")
        assert recording.statements() == [("EXECUTE_STATEMENT", "QUERY", "KeyboardInterrupt")]


@pytest.mark.parametrize(
    "sql", ["WITH x AS (SELECT 1) DELETE FROM t", "PRAGMA foreign_keys = on", "UPDATE t SET n = 1"]
)
def test_a_statement_without_rows_ends_at_once(sql: str, sqlite: Any, recording: Recording) -> None:
    with sqlite.cursor() as cursor:
        cursor.execute("CREATE TABLE t (n INT)")
        cursor.execute(sql)
        assert len(recording.statements()) == 2


def test_the_count_that_duckdb_answers_is_no_result(recording: Recording) -> None:
    with instrument(connect_duckdb(), ENDPOINT, config=enabled(), exporter=recording) as connection:
        cursor = connection.cursor()
        for sql in ("CREATE TABLE t (n INT)", "INSERT INTO t VALUES (1)", "DROP TABLE t"):
            cursor.execute(sql)
        assert recording.statements() == [SQL, UPDATE, SQL]


def test_rows_of_a_returning_clause_are_waited_for(connection: Any, recording: Recording) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (n INT)")
        cursor.execute("INSERT INTO t VALUES (1), (2) RETURNING n")
        assert recording.statements() == [SQL]
        assert cursor.fetch_arrow_table().num_rows == 2
        assert recording.statements() == [SQL, UPDATE]


def test_cursors_of_one_connection_are_followed_each_on_its_own(
    connection: Any, recording: Recording
) -> None:
    with connection.cursor() as one, connection.cursor() as other:
        one.execute("SELECT 1")
        other.execute("SELECT 2")
        assert other.fetchall() == [(2,)]
        assert recording.statements() == [QUERY]
        assert one.fetchall() == [(1,)]
        assert recording.statements() == [QUERY, QUERY]


# Sessions and leases.


def test_a_session_begins_and_ends_once(connect: Any, recording: Recording) -> None:
    connection = connect()
    assert instrument(connection, ENDPOINT, config=enabled(), exporter=recording) is connection
    assert instrument(connection, ENDPOINT, config=enabled(), exporter=recording) is connection
    manager = TelemetryClientManager.get_instance()
    assert manager.ref_count(ENDPOINT) == 1
    assert recording.events() == [CREATE]
    connection.close()
    connection.close()
    assert recording.events() == [CREATE, DELETE]
    assert manager.ref_count(ENDPOINT) == 0


def test_a_dropped_connection_ends_its_session_too(connect: Any, recording: Recording) -> None:
    holder = [instrument(connect(), ENDPOINT, config=enabled(), exporter=recording)]
    alive = weakref.ref(holder[0])
    with pytest.warns(ResourceWarning, match=r"adbc_driver_manager\.dbapi\.Connection was not explicitly"):
        holder.clear()
    assert alive() is None  # at once, without the help of the garbage collector: we have made no cycle
    wait_for_no_clients()
    assert recording.events() == [CREATE, DELETE]


def wait_for_no_clients() -> None:
    deadline = time.monotonic() + 10
    while TelemetryClientManager.get_instance().hosts() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_dropping_a_connection_does_not_wait_for_delivery() -> None:
    with raw_endpoint(black_hole) as url:
        config = enabled(close_timeout_ms=1500, request_timeout_ms=30_000)
        holder = [instrument(connect_sqlite(), url, config=config)]
        start = time.perf_counter()
        with pytest.warns(ResourceWarning):
            holder.clear()
        assert time.perf_counter() - start < 0.5
        wait_for_no_clients()


def test_closing_a_connection_delivers(server: TelemetryServer) -> None:
    with instrument(connect_sqlite(), server.url, config=enabled()) as connection:
        connection.execute("SELECT 1").close()
    sent = [
        log["entry"]["sql_driver_log"]["sql_operation"] for request in server.requests for log in request.logs
    ]
    operations = [operation["operation_detail"]["operation_type"] for operation in sent]
    assert operations == ["CREATE_SESSION", "EXECUTE_STATEMENT", "DELETE_SESSION"]


def test_a_clone_is_a_session_of_its_own(recording: Recording, sqlite: Any) -> None:
    clone = sqlite.adbc_clone()
    clone.execute("SELECT 1").close()
    clone.close()
    logs = recording.driver_logs()
    assert [event_of(log) for log in logs] == [CREATE, CREATE, QUERY, DELETE]
    assert [log.session_id == logs[0].session_id for log in logs] == [True, False, False, False]


def test_a_connection_that_will_not_close_stays_open_and_is_told_once(
    sqlite: Any, recording: Recording
) -> None:
    statement = sqlite.adbc_connection
    lost = adbc_statement(statement)
    with pytest.raises(RuntimeError, match="open AdbcStatement"):
        sqlite.close()
    assert recording.events() == [CREATE]
    lost.close()
    sqlite.close()
    assert recording.events() == [CREATE, ("DELETE_SESSION", None, "RuntimeError")]


def test_a_dropped_connection_that_will_not_close_ends_its_session(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[type[BaseException] | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(args.exc_type))
    holder = [instrument(connect_sqlite(), ENDPOINT, config=enabled(), exporter=recording)]
    lost = adbc_statement(holder[0].adbc_connection)
    holder.clear()
    assert unraisable == [RuntimeError]
    wait_for_no_clients()
    assert recording.events() == [CREATE, ("DELETE_SESSION", None, "RuntimeError")]
    lost.close()


def test_a_closed_connection_has_nothing_left_to_do_when_it_dies(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = instrument(connect_sqlite(), ENDPOINT, config=enabled(), exporter=recording)
    connection.close()
    released: list[object] = []
    monkeypatch.setattr(TelemetryClientLease, "release_soon", lambda lease: released.append(lease))
    del connection
    assert released == []


def adbc_statement(connection: Any) -> Any:
    import adbc_driver_manager

    return adbc_driver_manager.AdbcStatement(connection)


def test_events_after_the_client_has_gone_are_harmless(sqlite: Any) -> None:
    cursor = sqlite.cursor()
    cursor.execute(THREE_ROWS)
    TelemetryClientManager.get_instance().close_all()
    assert cursor.fetchall() == [(1,), (2,), (3,)]
    cursor.execute("SELECT 4")
    assert cursor.fetchall() == [(4,)]
    cursor.close()


# Nothing else changes.


def script(connection: Any) -> Iterator[Callable[[], object]]:
    """What a program may do with a connection; whatever comes of a step is compared."""
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


def test_a_program_runs_as_it_does_without_telemetry(connect: Any, recording: Recording) -> None:
    without = run(connect())
    with_telemetry = run(instrument(connect(), ENDPOINT, config=enabled(), exporter=recording))
    assert with_telemetry == without
    assert recording.statements() != []


def test_instrumented_objects_are_what_they_were(connect: Any, recording: Recording) -> None:
    connection = connect()
    cls, state = type(connection), dict(vars(connection))
    with connection.cursor() as cursor:
        cursor_cls = type(cursor)
    assert instrument(connection, ENDPOINT, config=enabled(), exporter=recording) is connection
    followed = connection.cursor()
    for thing, kind in ((connection, cls), (followed, cursor_cls)):
        assert isinstance(thing, kind)
        assert isinstance(thing, (dbapi.Connection, dbapi.Cursor))
        assert type(thing).__module__ == kind.__module__
        assert type(thing).__qualname__ == kind.__qualname__
        assert type(thing).__name__ == kind.__name__
        assert type(thing).__doc__ == kind.__doc__
        assert repr(thing).startswith(f"<{kind.__module__}.{kind.__qualname__} object at ")
        assert dir(kind) == [name for name in dir(thing) if name in dir(kind)]
        for name, member in inspect.getmembers(kind, callable):
            ours = getattr(type(thing), name)
            assert ours is member or getattr(ours, "__doc__", None) == getattr(member, "__doc__", None)
            if inspect.isfunction(member):
                assert inspect.signature(ours) == inspect.signature(member)
                assert ours.__qualname__ == member.__qualname__
    assert set(vars(connection)) - set(state) == {"_adbc_telemetry"}
    assert followed.connection is connection
    followed.close()
    connection.close()


def test_a_class_of_the_users_own_is_followed(recording: Recording) -> None:
    class Their(sqlite_dbapi.Connection):  # type: ignore[misc, name-defined]
        """A connection that counts."""

        made = 0

        def cursor(self, **kwargs: Any) -> Any:
            self.made += 1
            return super().cursor(**kwargs)

    raw = connect_sqlite()
    raw.__class__ = Their
    with instrument(raw, ENDPOINT, config=enabled(), exporter=recording) as connection:
        connection.execute("SELECT 1").close()
        assert connection.made == 1
        assert type(connection).__qualname__ == Their.__qualname__
        assert type(connection).__doc__ == "A connection that counts."
        assert recording.statements() == [QUERY]


class OwnCursor(dbapi.Cursor):  # type: ignore[misc, name-defined]
    """A cursor of a user's, strict and busy."""

    made = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        assert type(self) is OwnCursor
        super().__init__(*args, **kwargs)
        self.execute("SELECT 0")

    def __setattr__(self, name: str, value: object) -> None:
        if name == "_adbc_telemetry":
            raise AttributeError(name)
        super().__setattr__(name, value)

    def fetchone(self, as_dict: bool = False) -> Any:
        row = super().fetchone()
        return {"n": row[0]} if as_dict else row


class OwnConnection(sqlite_dbapi.Connection):  # type: ignore[misc, name-defined]
    """Makes them, and counts."""

    def cursor(self, *, adbc_stmt_kwargs: Any = None) -> Any:
        cursor = OwnCursor(self, adbc_stmt_kwargs)
        OwnCursor.made += 1
        self._cursors.add(cursor)
        return cursor


def test_cursors_of_the_users_own_are_made_as_ever(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OwnCursor, "made", 0)
    raw = connect_sqlite()
    raw.__class__ = OwnConnection
    with instrument(raw, ENDPOINT, config=enabled(), exporter=recording) as connection:
        with connection.cursor() as cursor:
            assert isinstance(cursor, OwnCursor)
            cursor.execute("SELECT 1")
            assert cursor.fetchone(as_dict=True) == {"n": 1}
        assert OwnCursor.made == 1
        assert recording.statements() == [QUERY]


TheirCursor = dbapi.Cursor


class Importing(sqlite_dbapi.Connection):  # type: ignore[misc, name-defined]
    """Makes the driver manager's cursors, but by itself."""

    def cursor(self, *, adbc_stmt_kwargs: Any = None) -> Any:
        return TheirCursor(self, adbc_stmt_kwargs)


def test_only_the_driver_managers_own_has_a_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    assert adbc._cursor_clone(dbapi.Connection) is not None
    assert adbc._cursor_clone(sqlite_dbapi.Connection) is not None
    assert adbc._cursor_clone(Importing) is None
    assert adbc._cursor_clone(OwnConnection) is None
    monkeypatch.setattr(dbapi, "Cursor", OwnCursor)
    assert adbc._cursor_clone(dbapi.Connection) is None


def test_a_connection_that_does_not_take_another_class_is_left_as_it_was(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adbc, "connection_class", lambda cls: int)
    with connect_sqlite() as connection:
        state = dict(vars(connection))
        assert instrument(connection, ENDPOINT, config=enabled(), exporter=recording) is connection
        assert vars(connection) == state
    wait_for_no_clients()


class Reusing(sqlite_dbapi.Connection):  # type: ignore[misc, name-defined]
    """Hands out the same cursor again and again."""

    kept: Any = None

    def cursor(self, **kwargs: Any) -> Any:
        if self.kept is None:
            self.kept = super().cursor(**kwargs)
        return self.kept


def test_a_cursor_that_is_handed_out_again_is_followed_once(recording: Recording) -> None:
    raw = connect_sqlite()
    raw.__class__ = Reusing
    with instrument(raw, ENDPOINT, config=enabled(), exporter=recording) as connection:
        first = connection.cursor()
        first.execute("SELECT 1")
        assert connection.cursor() is first
        assert len(type(first).__mro__) == len(dbapi.Cursor.__mro__) + 1
        first.fetchall()
        assert recording.statements() == [QUERY]


def test_what_the_program_makes_of_our_classes_works_and_is_not_followed(
    sqlite: Any, recording: Recording
) -> None:
    with sqlite.cursor() as cursor, type(cursor)(sqlite) as other:
        assert other.execute("SELECT 1").fetchall() == [(1,)]
        assert other.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(sqlite.Error):
            other.execute("nonsense")
        assert other.execute("SELECT 1").fetch_record_batch().read_all().num_rows == 1
        with contextlib.suppress(dbapi.NotSupportedError):
            other.adbc_cancel()
    clone = type(sqlite)(sqlite._db, _lib.AdbcConnection(sqlite._db._db))
    with clone, clone.cursor() as cursor:
        assert cursor.execute("SELECT 1").fetchall() == [(1,)]
        cursor.executescript("SELECT 1")
        clone.commit()
    assert recording.statements() == []


@pytest.mark.parametrize("name", ["execute", "cursor"])
def test_a_method_that_somebody_else_wraps_gets_the_arguments_that_it_was_given(
    name: str, sqlite: Any
) -> None:
    owner = dbapi.Cursor if name == "execute" else dbapi.Connection
    with mock.patch.object(owner, name, autospec=True) as spy, sqlite.cursor() as cursor:
        spy.reset_mock()
        if name == "execute":
            cursor.execute("SELECT 1")
            spy.assert_called_once_with(cursor, "SELECT 1")
        else:
            sqlite.cursor()
            spy.assert_called_once_with(sqlite)


def test_a_wrapper_with_more_arguments_than_it_shows_gets_them(recording: Recording) -> None:
    given: list[object] = []
    original = dbapi.Cursor.execute

    @functools.wraps(original)
    def execute(self: Any, *args: Any, timeout: float = 0.0) -> Any:
        given.append(timeout)
        return original(self, *args)

    class Wrapped(dbapi.Cursor):  # type: ignore[misc, name-defined]
        pass

    Wrapped.execute = execute

    class Wrapping(sqlite_dbapi.Connection):  # type: ignore[misc, name-defined]
        def cursor(self) -> Any:
            return Wrapped(self)

    raw = connect_sqlite()
    raw.__class__ = Wrapping
    with instrument(raw, ENDPOINT, config=enabled(), exporter=recording) as connection:
        with connection.cursor() as cursor:
            assert cursor.execute("SELECT 1", timeout=3.0).fetchall() == [(1,)]
        assert given == [3.0]
        assert recording.statements() == [QUERY]


def test_an_error_that_lets_nobody_set_its_attributes_passes(
    sqlite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Frozen(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    def failing(self: Any, *args: Any) -> None:
        raise Frozen

    with sqlite.cursor() as cursor, monkeypatch.context() as patch:
        patch.setattr(dbapi.Cursor, "execute", failing)
        with pytest.raises(Frozen):
            cursor.execute("SELECT 1")


class Tally:
    """What a class of the user's own counts with."""

    made = 0


class Counting(sqlite_dbapi.Connection):  # type: ignore[misc, name-defined]
    """Its `cursor` names a class as well, but not that of cursors."""

    make = dbapi.Connection.cursor

    def cursor(self, **kwargs: Any) -> Any:
        Tally.made += 1
        return self.make(**kwargs)


def test_a_class_that_is_none_of_cursors_is_left_alone(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tally, "made", 0)
    raw = connect_sqlite()
    raw.__class__ = Counting
    with instrument(raw, ENDPOINT, config=enabled(), exporter=recording) as connection:
        connection.execute("SELECT 1").close()
        assert Tally.made == 1
        assert recording.statements() == [QUERY]


def test_a_cursor_has_its_class_from_the_start(sqlite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[type] = []
    original = dbapi.Cursor.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        made.append(type(self))
        original(self, *args, **kwargs)

    monkeypatch.setattr(dbapi.Cursor, "__init__", __init__)
    with sqlite.cursor() as cursor:
        assert made == [type(cursor)]


def test_connections_of_one_class_share_one_subclass(connect: Any, recording: Recording) -> None:
    connections = [instrument(connect(), ENDPOINT, config=enabled(), exporter=recording) for _ in range(2)]
    cursors = [connection.cursor() for connection in connections]
    assert len({type(connection) for connection in connections}) == 1
    assert len({type(cursor) for cursor in cursors}) == 1
    for thing in (*cursors, *connections):
        thing.close()


def test_whoever_patches_the_drivers_class_is_not_bypassed(
    sqlite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Counter[str]()
    original = dbapi.Cursor.fetchall

    def fetchall(self: Any) -> Any:
        calls["fetchall"] += 1
        return original(self)

    with sqlite.cursor() as cursor:
        cursor.execute("SELECT 1")
        monkeypatch.setattr(dbapi.Cursor, "fetchall", fetchall)
        assert cursor.fetchall() == [(1,)]
    assert calls == {"fetchall": 1}


def test_whoever_patches_how_cursors_are_made_is_not_bypassed(
    sqlite: Any, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class Their(dbapi.Cursor):  # type: ignore[misc, name-defined]
        """A cursor that is counted."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append(self)
            super().__init__(*args, **kwargs)

    original = dbapi.Connection.cursor

    def cursor(self: Any, **kwargs: Any) -> Any:
        made.append(self)
        return original(self, **kwargs)

    sqlite.cursor().close()
    for owner, name, theirs in ((dbapi, "Cursor", Their), (dbapi.Connection, "cursor", cursor)):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, theirs)
            with sqlite.cursor() as followed:
                assert len(made) == 1
                assert isinstance(followed, Their) == (theirs is Their)
                followed.execute("SELECT 1").fetchall()
        made.clear()
    assert recording.statements() == [QUERY, QUERY]


def test_a_cursor_that_cannot_be_made_fails_as_it_would_without(
    sqlite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)

    def outcomes(connection: Any) -> list[object]:
        outcomes: list[object] = []
        gc.collect()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for call in (
                lambda: connection.cursor(adbc_stmt_kwargs={"no.such.option": "1"}),
                lambda: connection.cursor(adbc_stmt_kwargs=1),
                lambda: connection.cursor("nonsense"),
                lambda: connection.cursor(nonsense=1),
            ):
                try:
                    call()
                except Exception as error:  # noqa: BLE001 - to compare it
                    lines = [
                        (each.name, each.lineno)
                        for each in traceback.extract_tb(error.__traceback__)[2:]
                        if not is_ours(each.filename)  # Python 3.10 puts our frame in again
                    ]
                    outcomes.append((type(error), str(error).partition(" ")[2], lines))
            gc.collect()
        return [*outcomes, [(each.category, str(each.message)) for each in caught]]

    with connect_sqlite() as bare:
        expected = outcomes(bare)
    assert outcomes(sqlite) == expected
    assert len(expected) == 4 + 1
    assert unraisable == []


def _broken(*args: object, **kwargs: object) -> None:
    raise ZeroDivisionError("telemetry is broken")


@pytest.mark.parametrize("name", ["__init__", "record_execute_complete", "record_error", "emit"])
def test_errors_of_telemetry_itself_reach_nobody(
    name: str, connect: Any, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = run(connect())
    connection = instrument(connect(), ENDPOINT, config=enabled(), exporter=recording)
    monkeypatch.setattr(StatementTelemetryContext, name, _broken)
    assert run(connection) == without
    wait_for_no_clients()


def test_errors_of_a_client_reach_nobody_and_are_counted(
    connect: Any, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = run(connect())
    monkeypatch.setattr(TelemetryClient, "enqueue", _broken)
    connection = instrument(connect(), ENDPOINT, config=enabled(), exporter=recording)
    recorder = connection._adbc_telemetry
    assert run(connection) == without
    assert recorder.errors > 10
    wait_for_no_clients()


@pytest.mark.parametrize("owner", ["client", "class"])
def test_whoever_spies_on_the_client_sees_logs(
    owner: str, sqlite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    client = sqlite._adbc_telemetry.session.client
    if owner == "client":
        monkeypatch.setattr(client, "enqueue", seen.append)
    else:
        monkeypatch.setattr(TelemetryClient, "enqueue", lambda self, log: seen.append(log))
    sqlite.execute("SELECT 1").close()
    monkeypatch.undo()
    assert [type(log) for log in seen] == [TelemetryFrontendLog]


def test_a_description_that_fails_is_counted_and_costs_nothing_else(
    sqlite: Any, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    @property  # type: ignore[misc]
    def broken(cursor: object) -> None:
        raise ZeroDivisionError("the driver is broken")

    with sqlite.cursor() as cursor:
        with monkeypatch.context() as patch:
            patch.setattr(dbapi.Cursor, "description", broken)
            cursor.execute("WITH x AS (SELECT 1) SELECT * FROM x")
        assert cursor.fetchall() == [(1,)]
        assert cursor._adbc_telemetry.connection.errors == 1
    assert recording.statements() == [QUERY]


def test_sql_that_cannot_even_be_looked_at_is_the_drivers_to_judge(sqlite: Any, recording: Recording) -> None:
    class Odd:
        @property  # type: ignore[misc]
        def __class__(self) -> type[Any]:
            raise OverflowError("not to be looked at")

    assert classify(Odd()).statement_type is StatementType.SQL
    with sqlite.cursor() as cursor:
        with pytest.raises(OverflowError):
            cursor.execute(Odd())
        assert cursor.execute("SELECT 1").fetchall() == [(1,)]
    assert recording.statements() == [("EXECUTE_STATEMENT", "SQL", "OverflowError"), QUERY]


@pytest.mark.parametrize("name", ["acquire", "get_instance"])
def test_a_connection_that_cannot_be_followed_is_left_as_it_is(
    name: str, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("telemetry is broken")

    with connect_sqlite() as connection, monkeypatch.context() as patch:
        patch.setattr(TelemetryClientManager, name, broken)
        cls, state = type(connection), dict(vars(connection))
        assert instrument(connection, ENDPOINT, config=enabled(), exporter=recording) is connection
        assert type(connection) is cls
        assert vars(connection) == state


def test_a_driver_that_does_not_tell_its_name_is_followed_all_the_same(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert driver_info.driver_name_and_version(None) == (None, None)
    monkeypatch.setattr(driver_info, "driver_name_and_version", lambda connection: (None, None))
    instrument(connect_sqlite(), ENDPOINT, config=enabled(), exporter=recording).close()
    assert recording.events() == [CREATE, DELETE]
    assert recording.driver_logs()[0].system_configuration.driver_name == "adbc-telemetry"  # type: ignore[union-attr]


def test_of_two_threads_that_end_a_statement_one_emits_it(sqlite: Any, recording: Recording) -> None:
    with sqlite.cursor() as cursor:
        cursor.execute("SELECT 1")
        recorder = cursor._adbc_telemetry
        recorder.fetched(True)
        recorder._end(None, None, 0)  # by a thread that had looked before
    assert recording.statements() == [QUERY]


@pytest.mark.parametrize("first", [False, True])
def test_a_statement_may_be_ended_as_soon_as_it_has_begun(
    first: bool, sqlite: Any, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closing(self: Any, *args: Any) -> None:
        self.close()

    cursor = sqlite.cursor()
    if not first:
        cursor.execute("SELECT 1").fetchall()
    with monkeypatch.context() as patch:
        patch.setattr(dbapi.Cursor, "execute", closing)
        cursor.execute("SELECT 1")
    with pytest.raises(dbapi.ProgrammingError):
        cursor.fetchall()
    assert recording.statements() == [QUERY] * (1 if first else 2)
    assert sqlite._adbc_telemetry.errors == 0
    latency = recording.driver_logs()[-1].operation_latency_ms
    assert latency is not None
    assert 0 <= latency < 60_000


def test_a_fetch_in_the_middle_of_an_execution_is_no_error_of_ours(
    sqlite: Any, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetching(self: Any, *args: Any) -> None:
        self.fetchone()

    with sqlite.cursor() as cursor, monkeypatch.context() as patch:
        patch.setattr(dbapi.Cursor, "execute", fetching)
        patch.setattr(dbapi.Cursor, "fetchone", lambda self: (1,))
        cursor.execute("SELECT 1")
    assert recording.statements() == [QUERY]
    assert sqlite._adbc_telemetry.errors == 0


def test_an_exception_out_of_the_blue_is_not_replaced_by_one_of_ours(
    sqlite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a signal handler, at every single instruction's end that is a call in `begin`."""
    for name in ("monotonic_ns", "next_number", "classify"):
        original = getattr(recorder_module, name)

        def interrupt(*args: object, name: str = name, original: Any = original) -> None:
            monkeypatch.setattr(recorder_module, name, original)
            raise TimeoutError

        monkeypatch.setattr(recorder_module, name, interrupt)
        with pytest.raises(TimeoutError), sqlite.cursor() as cursor:
            cursor.execute("WITH x AS (SELECT 1) SELECT * FROM x")
        with sqlite.cursor() as cursor:
            cursor.execute("SELECT 1").fetchall()
    assert sqlite._adbc_telemetry.errors == 0


def test_the_limit_of_recursion_is_met_by_the_driver_or_by_nobody(
    sqlite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_deep(*args: object) -> None:
        raise RecursionError

    with sqlite.cursor() as cursor:
        monkeypatch.setattr(recorder_module, "StatementRecord", too_deep)
        assert cursor.execute("SELECT 1").fetchall() == [(1,)]
        cursor.execute("SELECT 1")
    assert sqlite._adbc_telemetry.errors == 2


def test_rows_may_be_fetched_while_another_thread_closes(recording: Recording) -> None:
    for _ in range(20):
        connection = instrument(connect_sqlite(), ENDPOINT, config=enabled(), exporter=recording)
        cursor = connection.cursor()
        cursor.execute(THREE_ROWS)
        closer = threading.Thread(target=cursor._adbc_telemetry.end)
        closer.start()
        cursor.fetchall()
        closer.join()
        cursor.close()
        connection.close()
    assert Counter(recording.events()) == {CREATE: 20, QUERY: 20, DELETE: 20}


# Promise 12: private by construction.


def test_nothing_of_the_users_enters_an_event(connect: Any, recording: Recording) -> None:
    connection = instrument(connect(), ENDPOINT, config=enabled(), exporter=recording)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE secret_table (secret_column TEXT)")
        cursor.execute("INSERT INTO secret_table VALUES ('secret_literal')")
        cursor.execute("INSERT INTO secret_table VALUES (?)", ("secret_parameter",))
        cursor.executemany("INSERT INTO secret_table VALUES (?)", [("secret_many",)])
        cursor.execute(
            "SELECT secret_column AS secret_alias FROM secret_table /* secret_comment */"
        ).fetchall()
        cursor.adbc_ingest("secret_ingested", pyarrow.table({"secret_field": ["secret_value"]}))
        connection.adbc_get_table_schema("secret_table")
        connection.adbc_get_objects(
            depth="tables", catalog_filter="secret_catalog", table_name_filter="secret_filter"
        ).read_all()
        for sql in ("SELECT secret_missing FROM secret_nowhere", "secret_nonsense"):
            with pytest.raises(dbapi.Error, match="secret_"):
                cursor.execute(sql)
        with pytest.raises(ValueError, match="secret_depth"):
            connection.adbc_get_objects(depth="secret_depth")
    connection.close()
    assert len(recording.driver_logs()) == 13
    for log in recording.logs:
        assert b"secret_" not in msgspec.json.encode(log)
        assert "secret_" not in repr(log)


def test_credentials_of_the_uri_do_not_enter_an_event(recording: Recording, tmp_path: Any) -> None:
    path = tmp_path / "secret_file.db"
    with instrument(
        sqlite_dbapi.connect(f"file:{path}?secret_password=x"),
        ENDPOINT,
        config=enabled(),
        exporter=recording,
        auth=lambda: {"Authorization": "Bearer secret_token"},
    ) as connection:
        connection.execute("SELECT 1").close()
    assert len(recording.driver_logs()) == 3
    for log in recording.logs:
        assert b"secret_" not in msgspec.json.encode(log)
        assert str(tmp_path).encode() not in msgspec.json.encode(log)


# Promise 13: the user has the last word.


def assert_untouched(connection: Any, *args: Any, **kwargs: Any) -> None:
    cls, state = type(connection), dict(vars(connection))
    assert instrument(connection, *args, **kwargs) is connection
    assert type(connection) is cls
    assert vars(connection) == state
    assert TelemetryClientManager.get_instance().hosts() == []


@pytest.mark.parametrize(
    ("name", "value"), [("DO_NOT_TRACK", "1"), ("DATABRICKS_TELEMETRY_ENABLED", "false")]
)
@pytest.mark.parametrize("config", [None, enabled()], ids=["no configuration", "enabled"])
def test_an_opt_out_beats_everything(
    name: str, value: str, config: Any, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    original = dbapi.Connection.__init__
    with connect_sqlite() as connection:
        assert_untouched(connection, ENDPOINT, config=config, exporter=recording)
        install(ENDPOINT, config=config, exporter=recording)
        assert dbapi.Connection.__init__ is original


def test_a_configuration_that_is_not_enabled_leaves_the_connection_untouched(recording: Recording) -> None:
    with connect_sqlite() as connection:
        for config in (TelemetryConfiguration(), TelemetryConfiguration(enabled=False)):
            assert_untouched(connection, ENDPOINT, config=config, exporter=recording)


def test_without_an_endpoint_nothing_happens() -> None:
    original = dbapi.Connection.__init__
    with connect_sqlite() as connection:
        assert_untouched(connection)
    install()
    assert dbapi.Connection.__init__ is original


def test_the_endpoint_may_come_from_the_environment(
    server: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADBC_TELEMETRY_ENDPOINT", server.url)
    instrument(connect_sqlite()).close()
    assert len(server.accepted) == 2


def test_an_endpoint_of_the_environment_that_makes_no_sense_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADBC_TELEMETRY_ENDPOINT", "ftp://nowhere")
    with connect_sqlite() as connection:
        assert_untouched(connection)


def test_an_exporter_needs_no_endpoint(recording: Recording) -> None:
    instrument(connect_sqlite(), exporter=recording).close()
    assert recording.events() == [CREATE, DELETE]


def test_a_closed_connection_is_left_as_it_is(recording: Recording) -> None:
    connection = connect_sqlite()
    connection.close()
    assert_untouched(connection, ENDPOINT, config=enabled(), exporter=recording)


def test_a_connection_of_another_kind_is_refused(recording: Recording) -> None:
    for thing in (1, "a string", sqlite3, sqlite3.Connection, None):
        with pytest.raises(TypeError, match=r"only DBAPI connections, .* not "):
            instrument(thing, ENDPOINT, config=enabled(), exporter=recording)


def test_wrong_arguments_are_told() -> None:
    http = "http://elsewhere.example"
    with connect_sqlite() as connection:
        for call in (lambda **a: instrument(connection, **a), install):
            with pytest.raises(ValueError, match="ftp"):
                call(endpoint="ftp://nowhere")
            with pytest.raises(ValueError, match="https only"):
                call(endpoint=http, auth=dict)
            with pytest.raises(ValueError, match="batch_size"):
                call(endpoint=ENDPOINT, config=enabled(batch_size=0))
            with pytest.raises(TypeError, match="config"):
                call(endpoint=ENDPOINT, config={"enabled": True})
            with pytest.raises(TypeError, match="auth"):
                call(endpoint=ENDPOINT, auth="Bearer")


# Installing for the whole process.


def test_every_connection_opened_from_then_on_is_followed(installed: Recording, connect: Any) -> None:
    with connect() as connection:
        connection.execute("SELECT 1").close()
    assert installed.events() == [CREATE, QUERY, DELETE]


def test_a_clone_of_an_installed_connection_is_followed_once(installed: Recording) -> None:
    with connect_sqlite() as connection:
        connection.adbc_clone().close()
    assert installed.events() == [CREATE, CREATE, DELETE, DELETE]


def test_a_connection_that_fails_to_open_fails_as_before(installed: Recording, tmp_path: Any) -> None:
    with pytest.raises(dbapi.Error) as failure:
        sqlite_dbapi.connect(f"file:{tmp_path}/no/such/folder/x.db")
    uninstall()
    with pytest.raises(dbapi.Error) as plain:
        sqlite_dbapi.connect(f"file:{tmp_path}/no/such/folder/x.db")
    assert failure.type is plain.type
    assert failure.value.args == plain.value.args
    assert installed.logs == []


def test_uninstalling_leaves_no_trace(recording: Recording) -> None:
    modules: list[ModuleType] = [dbapi, sqlite_dbapi]
    before = [
        dict(vars(thing)) for thing in (*modules, dbapi.Connection, dbapi.Cursor, sqlite_dbapi.Connection)
    ]
    install(ENDPOINT, config=enabled(), exporter=recording)
    install("another.example", config=enabled(), exporter=recording)
    with connect_sqlite() as connection:
        connection.execute("SELECT 1").close()
    uninstall()
    uninstall()
    after = [
        dict(vars(thing)) for thing in (*modules, dbapi.Connection, dbapi.Cursor, sqlite_dbapi.Connection)
    ]
    for one, other in zip(before, after, strict=True):
        assert one.keys() == other.keys()
        assert all(one[name] is other[name] for name in one if not name.startswith("_abc"))
    with connect_sqlite() as connection:
        assert type(connection) is sqlite_dbapi.Connection
    assert recording.events() == [CREATE, QUERY, DELETE]


def test_a_patch_that_another_has_wrapped_does_nothing_after_uninstall(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = dbapi.Connection.__init__
    install(ENDPOINT, config=enabled(), exporter=recording)
    ours = dbapi.Connection.__init__

    def theirs(self: Any, *args: Any, **kwargs: Any) -> None:
        ours(self, *args, **kwargs)

    dbapi.Connection.__init__ = theirs
    try:
        uninstall()
        with connect_sqlite() as connection:
            assert type(connection) is sqlite_dbapi.Connection
    finally:
        dbapi.Connection.__init__ = original


def test_what_is_installed_keeps_the_constructors_face(installed: Recording) -> None:
    assert dbapi.Connection.__init__.__qualname__ == "Connection.__init__"
    patched = inspect.signature(dbapi.Connection)
    uninstall()
    assert patched == inspect.signature(dbapi.Connection)


def test_importing_the_package_imports_no_driver_manager() -> None:
    import subprocess

    program = (
        "import sys; from adbc_telemetry import instrument;"
        "assert callable(instrument); assert instrument(1) == 1;"
        "print(sorted({'adbc_driver_manager', 'pyarrow', 'urllib3'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


# Those who read and write through ADBC.


def test_pandas_reads_and_writes_an_instrumented_connection(connection: Any, recording: Recording) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": [1, 2, 3]})
    assert frame.to_sql("t", connection, index=False) == 3
    assert pandas.read_sql("SELECT * FROM t", connection)["n"].tolist() == [1, 2, 3]
    connection.close()
    counts = Counter(recording.statements())
    assert counts[UPDATE] == 1
    assert counts[QUERY] >= 1


def test_polars_reads_and_writes_an_instrumented_connection(connection: Any, recording: Recording) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"n": [1, 2, 3]})
    assert frame.write_database("t", connection, engine="adbc") == 3
    assert polars.read_database("SELECT * FROM t", connection).equals(frame)
    batches = polars.read_database("SELECT * FROM t", connection, iter_batches=True, batch_size=2)
    assert polars.concat(list(batches)).equals(frame)
    connection.close()
    counts = Counter(recording.statements())
    assert counts[UPDATE] == 1
    assert counts[QUERY] >= 2


def test_pandas_and_polars_see_no_difference(connect: Any, recording: Recording) -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")

    def read(connection: Any) -> list[Any]:
        with connection, connection.cursor() as cursor:
            pandas.DataFrame({"n": [1, 2], "s": ["a", None]}).to_sql("t", connection, index=False)
            return [
                pandas.read_sql("SELECT * FROM t", connection).to_dict(),
                polars.read_database("SELECT * FROM t", connection).to_dicts(),
                polars.read_database("SELECT * FROM t", cursor).to_dicts(),
            ]

    assert repr(read(instrument(connect(), exporter=recording))) == repr(read(connect()))
