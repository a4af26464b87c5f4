"""Logs become rows, by the same SQL as in the folder's Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import duckdb
import pyarrow as pa

from adbc_telemetry.collector.delta.schema import DAY, SCHEMA
from adbc_telemetry.collector.store.columns import columns_sql

_LOGS: Final = pa.schema([("received_us", pa.int64()), ("log", pa.string()), ("canonical", pa.string())])


class Log(NamedTuple):
    """A log that becomes a row."""

    received_us: int
    """When it was received, Unix time in microseconds."""
    text: str
    """As it came."""
    canonical: bytes | None
    """In the wire's own form, if `text` is in another."""


def make_rows(logs: Sequence[Log], connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """A row for each log.

    Args:
        logs: any number.
        connection: in UTC; no other thread uses it meanwhile.

    Raises:
        duckdb.Error: there is not enough memory.
    """
    given = pa.table(
        [
            [log.received_us for log in logs],
            [log.text for log in logs],
            [None if log.canonical is None else log.canonical.decode() for log in logs],
        ],
        schema=_LOGS,
    )
    cursor = connection.cursor()
    try:
        cursor.register("given", given)
        found = cursor.sql(
            f"SELECT *, CAST(make_timestamp(epoch_us(received_at)) AS DATE) AS {DAY} "
            f"FROM ({columns_sql('SELECT * FROM given')})"
        )
        return pa.table(found).cast(SCHEMA)
    finally:
        cursor.close()
