"""The databases of the matrix, each through ADBC and through its own PEP 249 driver."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from adbc_telemetry import instrument
from adbc_telemetry.testing import CapturingExporter, configuration

ENDPOINT = "telemetry.example"


@dataclass(frozen=True)
class Database:
    """A database and the driver that reaches it.

    Attributes:
        name: the column of the matrix.
        adbc: whether the driver is ADBC's.
        open: opens a connection to the same empty database at each call.
    """

    name: str
    adbc: bool
    open: Callable[..., Any]

    @property
    def mark(self) -> str:
        """The parameter placeholder."""
        return {"ADBC PostgreSQL": "$1", "psycopg": "%s"}.get(self.name, "?")


def adbc_sqlite(_: pytest.FixtureRequest) -> Callable[..., Any]:
    dbapi = pytest.importorskip("adbc_driver_sqlite.dbapi")
    return lambda **options: dbapi.connect(":memory:", **options)


def adbc_duckdb(_: pytest.FixtureRequest) -> Callable[..., Any]:
    dbapi = pytest.importorskip("adbc_driver_duckdb.dbapi")
    return lambda **options: dbapi.connect(**options)


def adbc_postgresql(request: pytest.FixtureRequest) -> Callable[..., Any]:
    dbapi = pytest.importorskip("adbc_driver_postgresql.dbapi")
    uri = request.getfixturevalue("postgres").fresh_uri()
    return lambda **options: dbapi.connect(uri, **options)


def plain_sqlite(_: pytest.FixtureRequest) -> Callable[..., Any]:
    return lambda: sqlite3.connect(":memory:")


def plain_duckdb(_: pytest.FixtureRequest) -> Callable[..., Any]:
    duckdb = pytest.importorskip("duckdb")
    return lambda: duckdb.connect(":memory:")


def plain_psycopg(request: pytest.FixtureRequest) -> Callable[..., Any]:
    psycopg = pytest.importorskip("psycopg")
    uri = request.getfixturevalue("postgres").fresh_uri()
    return lambda: psycopg.connect(uri)


WAYS: dict[str, Callable[[pytest.FixtureRequest], Callable[..., Any]]] = {
    "ADBC SQLite": adbc_sqlite,
    "ADBC DuckDB": adbc_duckdb,
    "ADBC PostgreSQL": adbc_postgresql,
    "sqlite3": plain_sqlite,
    "duckdb": plain_duckdb,
    "psycopg": plain_psycopg,
}
ADBC = [name for name in WAYS if name.startswith("ADBC")]
PLAIN = [name for name in WAYS if not name.startswith("ADBC")]


def database_of(request: pytest.FixtureRequest, name: str) -> Database:
    return Database(name, name in ADBC, WAYS[name](request))


@dataclass
class Followed:
    """An instrumented connection and the events that it recorded."""

    database: Database
    connection: Any
    captured: CapturingExporter


def follow(database: Database, **options: Any) -> Followed:
    captured = CapturingExporter()
    connection = instrument(
        database.open(**options),
        ENDPOINT,
        config=configuration(),
        exporter=captured,
        session_id="the session",
    )
    return Followed(database, connection, captured)


def followed(request: pytest.FixtureRequest, name: str) -> Iterator[Followed]:
    """An instrumented connection, closed at the end."""
    thing = follow(database_of(request, name))
    try:
        yield thing
    finally:
        thing.connection.close()
