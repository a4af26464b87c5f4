"""All events of a store in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import duckdb

from adbc_telemetry.collector.queries.answers import FileFormat
from adbc_telemetry.collector.store.columns import quoted
from adbc_telemetry.collector.store.layout import StoreFolder
from adbc_telemetry.collector.store.snapshot import read_consistently

_OPTIONS: Final[dict[FileFormat, str]] = {
    "parquet": "FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 20480, ROW_GROUP_SIZE_BYTES 16777216",
    "csv": "FORMAT csv, HEADER",
    "jsonl": "FORMAT json",
}


def export_store(
    folder: StoreFolder, connection: duckdb.DuckDBPyConnection, target: Path, file_format: FileFormat
) -> None:
    """Write all events of a store into a file, in no particular order.

    Raises:
        duckdb.Error: a file cannot be read or written.
    """
    read_consistently(
        folder,
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
