"""pandas, polars and SQLAlchemy on plain PEP 249 connections that are instrumented."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from adbc_telemetry.testing import CapturingExporter
from support.databases import Database, follow
from support.differential import outcomes
from support.matrix import DELETE, QUERY, SELECT, SQL, UPDATE
from support.pep249 import sqlite, with_table

# Those who read and write through such a connection.


def test_pandas_reads_and_writes_an_instrumented_connection(captured: CapturingExporter) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": [1, 2, 3]})
    connection = sqlite(captured)
    assert frame.to_sql("t", connection, index=False) == 3
    assert pandas.read_sql("SELECT * FROM t", connection).equals(frame)
    assert [len(part) for part in pandas.read_sql("SELECT * FROM t", connection, chunksize=2)] == [2, 1]
    connection.close()
    captured.wait_until(lambda events: DELETE in events)
    assert Counter(captured.events)[UPDATE] >= 1
    assert Counter(captured.events)[QUERY] >= 2


def test_pandas_and_polars_see_no_difference(database: Database) -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")

    def steps(connection: Any) -> Iterator[Callable[[], object]]:
        with_table(connection)
        yield lambda: pandas.read_sql(SELECT, connection).to_dict()
        yield lambda: pandas.read_sql("SELECT nothing FROM nowhere", connection)
        if database.name != "duckdb":
            connection.rollback()
            if database.name == "psycopg":
                with_table(connection)
        yield lambda: polars.read_database(SELECT, connection).to_dicts()
        yield lambda: polars.read_database(SELECT, connection.cursor()).to_dicts()
        yield lambda: [
            part.to_dicts()
            for part in polars.read_database(SELECT, connection, iter_batches=True, batch_size=2)
        ]
        if database.name != "duckdb":
            connection.rollback()
        connection.close()

    without = outcomes(steps(database.open()))
    thing = follow(database)
    for one, other in zip(outcomes(steps(thing.connection)), without, strict=True):
        assert one == other
    assert QUERY in thing.captured.events


def test_sqlalchemy_s_orm_works_on_instrumented_connections(captured: CapturingExporter) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from sqlalchemy import orm

    engine = sqlalchemy.create_engine(
        "sqlite://", creator=lambda: sqlite(captured), poolclass=sqlalchemy.pool.StaticPool
    )
    registry = orm.registry()

    class Thing:
        id: int
        name: str

    registry.map_imperatively(
        Thing,
        sqlalchemy.Table(
            "things",
            registry.metadata,
            sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True),
            sqlalchemy.Column("name", sqlalchemy.String),
        ),
    )
    registry.metadata.create_all(engine)
    with orm.Session(engine) as session:
        thing = Thing()
        thing.name = "one"
        session.add(thing)
        session.commit()
        assert session.scalars(sqlalchemy.select(Thing)).one().name == "one"
    engine.dispose()
    captured.wait_until(lambda events: DELETE in events)
    assert {QUERY, UPDATE, SQL} <= set(captured.events)
