"""Helpers of the Delta table's tests."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from adbc_telemetry.collector.delta.schema import SCHEMA
from adbc_telemetry.collector.delta.table import EventTable, Move

TOPIC = "telemetry"


def a_table(path: Path) -> EventTable:
    """A table that is open; made if there is none."""
    table = EventTable(str(path), TOPIC)
    table.open()
    return table


def rows_of(*event_ids: str, received: float | None = None, **columns: Any) -> pa.Table:
    """A row for each id."""
    moment = datetime.fromtimestamp(time.time() if received is None else received, timezone.utc)
    rows = [
        {"event_id": each, "received_at": moment, "day": moment.date(), "log": "{}", **columns}
        for each in event_ids
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def write(table: EventTable, moves: Mapping[int, tuple[int | None, int]], *event_ids: str) -> None:
    """Commit rows of these ids, and move partitions from one offset to another."""
    table.commit(rows_of(*event_ids), {partition: Move(*move) for partition, move in moves.items()})


def ids_in(path: Path) -> list[str]:
    """The ids in a table, as `deltalake` reads it."""
    table = DeltaTable(str(path)).to_pyarrow_table(columns=["event_id"])
    return sorted(pa.table(table)["event_id"].to_pylist())


def columns_by_duckdb(path: Path, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Some columns of a table, as DuckDB reads its live files."""
    files = DeltaTable(str(path)).file_uris()
    with duckdb.connect() as connection:
        found: list[tuple[Any, ...]] = connection.execute(
            f"SELECT {', '.join(names)} FROM read_parquet(?, hive_partitioning = true) ORDER BY ALL", [files]
        ).fetchall()
        return found
