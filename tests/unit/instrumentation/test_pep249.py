"""Plain PEP 249 connections: watched through proxies that a program cannot tell from the originals."""

from __future__ import annotations

import contextlib
import gc
import inspect
import sqlite3
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from adbc_telemetry import TelemetryClientManager, instrument
from adbc_telemetry.instrumentation.proxies import is_proxy
from adbc_telemetry.testing import CapturingExporter, Event, configuration
from support.databases import ENDPOINT, PLAIN, Database, Followed, database_of, follow, followed
from support.differential import outcomes
from support.matrix import CREATE, DELETE, QUERY, SELECT, SQL, UPDATE
from support.pep249 import script, sqlite, with_table
from support.waiting import wait_until


@pytest.fixture(params=PLAIN)
def on(request: pytest.FixtureRequest) -> Iterator[Followed]:
    for thing in followed(request, request.param):
        with_table(thing.connection)
        thing.captured.wait_until(lambda events: events == [CREATE, SQL, UPDATE])
        thing.captured.clear()
        yield thing


# Nothing else changes.


def test_a_program_runs_as_it_does_without_telemetry(database: Database) -> None:
    without = outcomes(script(database.open(), database.mark))
    if database.name == "psycopg":  # two connections to the one database
        with database.open() as connection:
            connection.execute("DROP TABLE t")
    thing = follow(database)
    for one, other in zip(outcomes(script(thing.connection, database.mark)), without, strict=True):
        assert one == other
    assert thing.captured.events != []


def test_proxies_are_what_they_stand_for(on: Followed) -> None:
    raw = on.connection.__wrapped__
    cursor = on.connection.cursor()
    for thing, original in ((on.connection, raw), (cursor, cursor.__wrapped__)):
        kind = type(original)
        assert is_proxy(thing)
        assert isinstance(thing, kind)
        assert thing.__class__ is kind
        for name in ("__module__", "__qualname__", "__name__", "__doc__"):
            assert getattr(type(thing), name) == getattr(kind, name)
        assert repr(thing) == repr(original)
        assert dir(thing) == dir(original)
        assert callable(thing) == callable(original)
        for name, member in inspect.getmembers(kind, inspect.isroutine):
            ours = getattr(thing, name)
            assert callable(ours)
            if not name.startswith("__"):
                assert ours.__doc__ == member.__doc__
                assert ours.__name__ == member.__name__
        for name in ("__iter__", "__next__", "__enter__", "__exit__", "__call__", "__len__", "__await__"):
            assert hasattr(type(thing), name) == hasattr(kind, name), name
        assert weakref.ref(thing)() is thing
    assert getattr(cursor, "connection", on.connection) is on.connection
    cursor.close()


def test_signatures_are_the_drivers(captured: CapturingExporter) -> None:
    connection = sqlite(captured)
    for name in ("execute", "create_function", "iterdump", "close"):
        raw = getattr(connection.__wrapped__, name)
        try:
            expected = inspect.signature(raw)
        except ValueError:  # written in C, without one
            continue
        assert str(inspect.signature(getattr(connection, name))) == str(expected)
    connection.close()


def test_what_is_set_on_a_proxy_is_set_on_its_original(captured: CapturingExporter) -> None:
    connection = sqlite(captured)
    connection.row_factory = sqlite3.Row
    assert connection.__wrapped__.row_factory is sqlite3.Row
    assert connection.execute("SELECT 1 AS one").fetchone()["one"] == 1
    assert connection.Error is sqlite3.Error
    connection.create_function("twice", 1, lambda n: 2 * n)
    assert connection.execute("SELECT twice(21)").fetchone()[0] == 42
    connection.close()


def test_a_proxy_may_be_given_where_the_driver_wants_its_own(captured: CapturingExporter) -> None:
    source, target = sqlite(captured), sqlite(captured)
    with_table(source)
    source.commit()
    source.backup(target)
    source.backup(target=target)
    with sqlite3.connect(":memory:") as raw:
        source.backup(raw)
        raw.backup(target.__wrapped__)
    raw.close()
    assert target.execute(SELECT).fetchall() == [(1,), (2,), (3,)]
    for connection in (source, target):
        connection.close()


def test_a_transaction_s_block_commits_and_rolls_back(captured: CapturingExporter) -> None:
    connection = sqlite(captured)
    with_table(connection)
    connection.commit()
    with connection as entered:
        assert entered is connection
        connection.execute("INSERT INTO t VALUES (4)")
    with contextlib.suppress(ZeroDivisionError), connection:
        connection.execute("INSERT INTO t VALUES (5)")
        raise ZeroDivisionError
    assert connection.execute("SELECT max(n) FROM t").fetchone() == (4,)
    connection.close()


def test_a_block_that_closes_the_connection_ends_the_session(request: pytest.FixtureRequest) -> None:
    thing = follow(database_of(request, "psycopg"))
    with thing.connection as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert connection.closed
    assert thing.captured.wait_for(3)
    assert thing.captured.events == [CREATE, QUERY, DELETE]


# One event a statement.

ENDS_OF_RESULTS: dict[str, Callable[[Any], object]] = {
    "fetchall": lambda c: c.fetchall(),
    "fetchone": lambda c: list(iter(c.fetchone, None)),
    "fetchmany": lambda c: [c.fetchmany(2) for _ in range(2)],
    "fetchmany by keyword": lambda c: c.fetchmany(size=4),
}


@pytest.mark.parametrize("name", ENDS_OF_RESULTS)
def test_a_statement_ends_with_its_results(name: str, on: Followed) -> None:
    cursor = on.connection.cursor()
    cursor.execute(SELECT)
    assert on.captured.events == []
    ENDS_OF_RESULTS[name](cursor)
    on.captured.wait_for(1)
    cursor.close()
    on.connection.close()
    on.captured.wait_for(2)
    assert on.captured.events == [QUERY, DELETE]


def drop(holder: list[Any]) -> None:
    holder.clear()
    gc.collect()


OTHER_ENDS: dict[str, tuple[Callable[[list[Any]], object], list[Event]]] = {
    "close": (lambda holder: holder[0].close(), []),
    "close twice": (lambda holder: (holder[0].close(), holder[0].close()), []),
    "execute again": (lambda holder: holder[0].execute("SELECT 2").fetchall(), [QUERY]),
    "a failure to execute again": (lambda holder: fail(holder[0]), [Event("EXECUTE_STATEMENT", "SQL", "")]),
    "dropped": (drop, []),
}
UNFINISHED: dict[str, Callable[[Any], object]] = {
    "nothing fetched": lambda c: None,
    "one row fetched": lambda c: c.fetchone(),
    "all rows but no end seen": lambda c: c.fetchmany(3),
}


def fail(cursor: Any) -> None:
    with pytest.raises(Exception, match=r"(?i)nonsense"):
        cursor.execute("NONSENSE")


@pytest.mark.parametrize("end", OTHER_ENDS)
@pytest.mark.parametrize("state", UNFINISHED)
def test_a_statement_ends_with_its_cursor(state: str, end: str, on: Followed) -> None:
    holder = [on.connection.cursor()]
    holder[0].execute(SELECT)
    UNFINISHED[state](holder[0])
    assert on.captured.events == []
    finish, others = OTHER_ENDS[end]
    finish(holder)
    holder.clear()
    on.connection.close()
    on.captured.wait_for(2 + len(others))
    told = [
        event if event.error_name is None else event._replace(error_name="") for event in on.captured.events
    ]
    assert told == [QUERY, *others, DELETE]


def test_a_connection_closed_first_ends_its_statements(on: Followed) -> None:
    cursors = [on.connection.cursor() for _ in range(3)]
    for cursor in cursors:
        cursor.execute("SELECT 1")
    on.connection.close()
    on.captured.wait_for(4)
    assert on.captured.events == [QUERY, QUERY, QUERY, DELETE]
    del cursors, cursor
    gc.collect()
    assert len(on.captured.events) == 4


def test_a_dropped_connection_ends_its_session_once_its_cursors_are_gone(database: Database) -> None:
    thing = follow(database)
    cursor = thing.connection.cursor()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the driver's own
        del thing.connection
        gc.collect()
        cursor.execute("SELECT 1")
        assert cursor.fetchall() == [(1,)]
        assert thing.captured.wait_for(2)
        assert thing.captured.events == [CREATE, QUERY]
        del cursor
        gc.collect()
    thing.captured.wait_for(3)
    assert thing.captured.events == [CREATE, QUERY, DELETE]
    wait_until(lambda: TelemetryClientManager.get_instance().hosts() == [])


def test_a_statement_that_fails_is_one_event_with_the_error(on: Followed) -> None:
    cursor = on.connection.cursor()
    with pytest.raises(Exception, match="no_such_table") as failure:
        cursor.execute("SELECT n FROM no_such_table")
    on.captured.wait_for(1)
    cursor.close()
    assert on.captured.events == [Event("EXECUTE_STATEMENT", "QUERY", failure.type.__name__)]


@pytest.mark.parametrize(
    "fetch",
    [lambda c: c.fetchall(), list, lambda c: c.fetchmany(9), lambda c: [c.fetchone() for _ in range(9)]],
)
def test_a_fetch_that_fails_ends_the_statement_with_the_error(
    fetch: Callable[[Any], object], captured: CapturingExporter
) -> None:
    connection = sqlite(captured)
    with_table(connection)
    connection.create_function("invert", 1, lambda n: 1 // (3 - n))
    cursor = connection.cursor()
    cursor.execute("SELECT invert(n) FROM t")
    with pytest.raises(sqlite3.OperationalError):
        fetch(cursor)
    cursor.close()
    connection.close()
    captured.wait_for(5)
    assert captured.events[3:] == [Event("EXECUTE_STATEMENT", "QUERY", "OperationalError"), DELETE]


def test_a_short_cut_s_statement_ends_with_its_cursor(on: Followed) -> None:
    for _ in range(3):
        on.connection.execute(SELECT).fetchone()
        gc.collect()
    on.connection.close()
    on.captured.wait_for(4)
    assert on.captured.events == [QUERY, QUERY, QUERY, DELETE]


def test_a_connection_that_will_not_close_stays_open_and_is_told_once(captured: CapturingExporter) -> None:
    class Stubborn(sqlite3.Connection):
        will = False

        def close(self) -> None:
            if not self.will:
                raise RuntimeError("not yet")
            super().close()

    raw = sqlite3.connect(":memory:", factory=Stubborn)
    connection = instrument(raw, ENDPOINT, config=configuration(), exporter=captured)
    with pytest.raises(RuntimeError, match="not yet"):
        connection.close()
    connection.will = True
    assert raw.will
    connection.close()
    captured.wait_for(2)
    assert captured.events == [CREATE, Event("DELETE_SESSION", None, "RuntimeError")]


# Nothing is assumed beyond PEP 249.


class BareCursor:
    """Has what PEP 249 asks for, and nothing besides."""

    arraysize = 1

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.description: Any = None
        self.rowcount = -1

    def execute(self, operation: str, parameters: object = ()) -> str:
        self.rows = [1, 2]
        self.description = [("n", None, None, None, None, None, None)]
        return "whatever"

    def executemany(self, operation: str, seq_of_parameters: object) -> None:
        self.description = None

    def callproc(self, procname: str, parameters: object = ()) -> object:
        self.execute(procname)
        return parameters

    def fetchone(self) -> Any:
        return self.rows.pop(0) if self.rows else None

    def fetchmany(self, size: int | None = None) -> list[int]:
        count = self.arraysize if size is None else size
        rows, self.rows = self.rows[:count], self.rows[count:]
        return rows

    def fetchall(self) -> list[int]:
        return self.fetchmany(100)

    def nextset(self) -> None:
        return None

    def setinputsizes(self, sizes: object) -> None:
        pass

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        pass

    def close(self) -> None:
        pass


class BareConnection:
    """A connection whose cursors know nothing of it."""

    def close(self) -> None:
        pass

    def commit(self) -> None:
        pass

    def cursor(self) -> BareCursor:
        return BareCursor()


def test_a_driver_of_nothing_but_pep_249_is_followed(captured: CapturingExporter) -> None:
    connection = instrument(BareConnection(), ENDPOINT, config=configuration(), exporter=captured)
    assert isinstance(connection, BareConnection)
    assert not hasattr(connection, "rollback")
    assert not hasattr(connection, "execute")
    cursor: Any = connection.cursor()
    assert cursor.execute("SELECT 1") == "whatever"
    assert cursor.fetchmany() == [1]
    assert cursor.fetchall() == [2]
    assert cursor.callproc("p", (1, 2)) == (1, 2)
    assert cursor.fetchone() == 1
    assert cursor.nextset() is None
    cursor.executemany("INSERT", [])
    cursor.execute(operation="DELETE FROM t")
    with pytest.raises(TypeError):
        list(cursor)
    cursor.close()
    connection.commit()
    connection.close()
    captured.wait_for(7)
    assert captured.events == [CREATE, QUERY, SQL, UPDATE, UPDATE, SQL, DELETE]


def test_rows_that_an_iterator_of_its_own_yields_are_followed(captured: CapturingExporter) -> None:
    class Iterable(BareCursor):
        def __iter__(self) -> Iterator[int]:
            yield from self.rows
            if self.rowcount == 0:
                raise ZeroDivisionError

    class Iterables(BareConnection):
        def cursor(self) -> Iterable:
            return Iterable()

    connection = instrument(Iterables(), ENDPOINT, config=configuration(), exporter=captured)
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    assert list(cursor) == [1, 2]
    cursor.execute("SELECT 1")
    cursor.rowcount = 0
    with pytest.raises(ZeroDivisionError):
        list(cursor)
    cursor.execute("SELECT 1")
    assert next(iter(cursor)) == 1
    connection.close()
    captured.wait_for(5)
    failed = Event("EXECUTE_STATEMENT", "QUERY", "ZeroDivisionError")
    assert captured.events == [CREATE, QUERY, failed, QUERY, DELETE]


@pytest.mark.parametrize("sql", [b"SELECT 1", "SELECT 1"])
def test_sql_may_come_as_bytes(sql: object, request: pytest.FixtureRequest) -> None:
    for thing in followed(request, "psycopg"):
        with thing.connection.cursor() as cursor:
            cursor.execute(sql)
            assert cursor.fetchall() == [(1,)]
        thing.captured.wait_for(2)
        assert thing.captured.events == [CREATE, QUERY]


def test_a_composed_statement_is_one_of_no_known_kind(request: pytest.FixtureRequest) -> None:
    from psycopg import sql

    for thing in followed(request, "psycopg"):
        with thing.connection.cursor() as cursor:
            cursor.execute(sql.SQL("SELECT {}").format(sql.Literal(1)))
            assert cursor.fetchall() == [(1,)]
        thing.captured.wait_for(2)
        assert thing.captured.events == [CREATE, SQL]
