"""PEP 249 connections without ADBC, for tests."""

from __future__ import annotations

import copy
import pickle
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

from adbc_telemetry import instrument
from adbc_telemetry.testing import CapturingExporter, configuration
from support.databases import ENDPOINT


def with_table(connection: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE t (n INT)")
    cursor.execute("INSERT INTO t VALUES (1), (2), (3)")
    cursor.close()


def sqlite(captured: CapturingExporter) -> Any:
    return instrument(sqlite3.connect(":memory:"), ENDPOINT, config=configuration(), exporter=captured)


def script(connection: Any, mark: str) -> Iterator[Callable[[], object]]:
    """Steps of a program that uses a connection of any driver."""
    cursor = connection.cursor()
    insert = f"INSERT INTO t VALUES ({mark}, {mark})"
    yield lambda: cursor.execute("CREATE TABLE t (n INT, s VARCHAR(9))") is cursor
    yield lambda: cursor.executemany(insert, [(1, "a"), (2, "b"), (3, None)]) in (None, cursor)
    yield lambda: (cursor.rowcount, cursor.description)
    yield lambda: cursor.executemany(insert, [(1,)])
    yield connection.rollback
    yield lambda: cursor.execute("CREATE TABLE IF NOT EXISTS t (n INT, s VARCHAR(9))") is cursor
    yield lambda: cursor.execute(insert, (4, "d")) is cursor
    yield lambda: cursor.execute(f"SELECT n, s FROM t WHERE n >= {mark} ORDER BY n", (2,)) is cursor
    yield lambda: (cursor.rowcount, cursor.description)
    yield cursor.fetchone
    yield lambda: cursor.fetchmany(2)
    yield cursor.fetchall
    yield cursor.fetchall
    yield cursor.fetchone
    if hasattr(cursor, "__iter__"):
        yield lambda: list(cursor.execute("SELECT n FROM t ORDER BY n"))
        yield lambda: iter(cursor)
        yield lambda: next(cursor.execute("SELECT n FROM t ORDER BY n"))
    yield lambda: setattr(cursor, "arraysize", 2)
    yield lambda: cursor.arraysize
    yield lambda: cursor.execute("SELECT n FROM t ORDER BY n").fetchmany()
    yield lambda: setattr(cursor, "nothing_of_this_name", 2)
    yield lambda: cursor.nothing_of_this_name
    yield lambda: delattr(cursor, "nothing_of_this_name")
    yield lambda: cursor.connection is connection
    yield lambda: connection.execute("SELECT 1").fetchone()
    yield connection.commit
    yield lambda: cursor.execute("SELECT nothing FROM nowhere")
    yield connection.rollback
    yield lambda: cursor.execute("NONSENSE")
    yield connection.rollback
    yield lambda: cursor.execute(None)
    yield lambda: cursor.execute()
    yield lambda: cursor.execute("SELECT 1", (1, 2, 3))
    yield connection.rollback
    yield lambda: cursor.fetchmany("many")
    yield lambda: cursor.fetchone(1)
    yield lambda: cursor.callproc("p", ())
    yield lambda: cursor.nextset()
    yield lambda: cursor.setinputsizes([1])
    yield lambda: cursor.executescript("SELECT 1; SELECT 2")
    yield lambda: connection.executescript("SELECT 1; NONSENSE")
    if callable(connection):
        yield lambda: connection("SELECT 1")
    yield lambda: connection.cursor(1, 2, 3)
    yield lambda: connection == connection
    yield lambda: hash(connection) == hash(connection)
    yield lambda: bool(cursor)
    yield lambda: pickle.dumps(connection)
    yield lambda: pickle.dumps(cursor)
    yield lambda: copy.copy(connection)
    yield lambda: repr(connection)
    yield lambda: str(cursor)
    yield lambda: f"{cursor}"
    yield cursor.close
    yield lambda: cursor.execute("SELECT 1")
    yield connection.close
    yield lambda: connection.execute("SELECT 1")
    yield connection.cursor
    yield connection.commit
    yield connection.close
