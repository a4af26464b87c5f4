"""The events of ADBC connections: one for each operation, with every field in its place."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from adbc_telemetry import (
    instrument,
)
from adbc_telemetry.instrumentation.operations import CONNECTION_OPERATIONS, classify
from adbc_telemetry.schema import (
    ExecutionResultFormat,
    OperationType,
    StatementType,
)
from support.adbc import (
    ASKED,
    CREATE,
    DELETE,
    ENDPOINT,
    QUERY,
    SQL,
    THREE_ROWS,
    UPDATE,
    Event,
    Recording,
    connect_duckdb,
    driver_log,
    enabled,
    event_of,
)

dbapi = pytest.importorskip("adbc_driver_manager.dbapi")
_lib = pytest.importorskip("adbc_driver_manager._lib")
pyarrow = pytest.importorskip("pyarrow")
sqlite_dbapi = pytest.importorskip("adbc_driver_sqlite.dbapi")

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
        time.sleep(0.2)  # after the end of the results: no latency of the statement
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
