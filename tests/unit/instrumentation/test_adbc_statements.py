"""A statement on an ADBC connection is exactly one event, however it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from adbc_telemetry import (
    instrument,
)
from support.adbc import (
    ENDPOINT,
    QUERY,
    SQL,
    THREE_ROWS,
    UPDATE,
    Event,
    Recording,
    connect_duckdb,
    drop,
    enabled,
)

dbapi = pytest.importorskip("adbc_driver_manager.dbapi")
_lib = pytest.importorskip("adbc_driver_manager._lib")
pyarrow = pytest.importorskip("pyarrow")
sqlite_dbapi = pytest.importorskip("adbc_driver_sqlite.dbapi")

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
