"""All events of a store in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import duckdb

from adbc_telemetry.collector.queries.answers import FileFormat
from adbc_telemetry.collector.queries.sources import EventSource
from adbc_telemetry.collector.store.columns import quoted

_OPTIONS: Final[dict[FileFormat, str]] = {
    "parquet": "FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 20480, ROW_GROUP_SIZE_BYTES 16777216",
    "csv": "FORMAT csv, HEADER",
    "jsonl": "FORMAT json",
}


def export_store(
    source: EventSource, connection: duckdb.DuckDBPyConnection, target: Path, file_format: FileFormat
) -> None:
    """Write all events of a store or a table into a file, in no particular order.

    Raises:
        duckdb.Error: a file cannot be read or written.
    """
    source.read(
        connection,
        lambda snapshot: export_events(snapshot.events_sql(), connection, target, file_format),
    )


def export_events(
    events: str, connection: duckdb.DuckDBPyConnection, target: Path, file_format: FileFormat
) -> None:
    """Write the rows of a SELECT into a file.

    Raises:
        duckdb.Error: a file cannot be read or written.
    """
    connection.execute(f"COPY ({events}) TO {quoted(target)} ({_OPTIONS[file_format]})")
