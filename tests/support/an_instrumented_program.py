"""A program that uses databases over ADBC, and knows nothing of telemetry: `opentelemetry-instrument` runs it."""

from __future__ import annotations

import importlib
import sys
from typing import Any

kind, uri, *what = sys.argv[1:]


def connect() -> Any:
    dbapi = importlib.import_module(f"adbc_driver_{kind}.dbapi")
    return dbapi.connect(uri) if uri else dbapi.connect()


def plain() -> None:
    import pyarrow

    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE hidden (n INT)")
        if kind == "duckdb":  # it binds one row
            cursor.execute("INSERT INTO hidden VALUES (1), (2)")
        else:
            mark = "$1" if kind == "postgresql" else "?"
            cursor.executemany(f"INSERT INTO hidden VALUES ({mark})", [(1,), (2,)])
        cursor.adbc_ingest("ingested", pyarrow.table({"n": [3]}))
        cursor.execute("SELECT n, 'a secret' FROM hidden")
        assert len(cursor.fetchall()) == 2
        cursor.execute("SELECT n FROM hidden")
        assert cursor.fetch_record_batch().read_all().num_rows == 2
        connection.adbc_get_objects(depth="tables").read_all()
        connection.commit()
        try:
            cursor.execute("SELECT 'a secret' FROM missing")
        except connection.Error:
            connection.rollback()


def libraries() -> None:
    pandas = importlib.import_module("pandas")
    polars = importlib.import_module("polars")
    with connect() as connection:
        frame = pandas.DataFrame({"n": [1, 2]})
        frame.to_sql("by_pandas", connection, index=False)
        assert len(pandas.read_sql("SELECT n FROM by_pandas", connection)) == 2
        assert len(polars.read_database("SELECT n FROM by_pandas", connection)) == 2
        polars.DataFrame({"n": [1]}).write_database("by_polars", connection, engine="adbc")


def alchemy() -> None:
    import sqlalchemy

    from support.sqlalchemy_over_adbc import over_adbc

    engine = over_adbc(connect)
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT 7")).scalar() == 7
    engine.dispose()


for name in what:
    {"plain": plain, "libraries": libraries, "alchemy": alchemy}[name]()
print("done")
