"""pandas and polars read and write through instrumented ADBC connections."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from adbc_telemetry import (
    instrument,
)
from support.adbc import (
    QUERY,
    UPDATE,
    Recording,
)

dbapi = pytest.importorskip("adbc_driver_manager.dbapi")
_lib = pytest.importorskip("adbc_driver_manager._lib")
pyarrow = pytest.importorskip("pyarrow")
sqlite_dbapi = pytest.importorskip("adbc_driver_sqlite.dbapi")

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
