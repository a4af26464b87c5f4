"""What a store holds at one moment, for readers. They take no lock and may be other processes.

The collector moves events from the journal into Parquet files while others read. A Parquet file appears, or replaces
its earlier version, in one step. Its metadata names the last segment of the journal that it holds. So a reader leaves
out the segments up to that one, and looks again after its query: if a file was replaced meanwhile, it repeats.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import duckdb

from adbc_telemetry.collector.store.columns import COLUMNS, path_list, quoted
from adbc_telemetry.collector.store.layout import Segment, StoreFolder
from adbc_telemetry.collector.store.lines import journal_sql

_ATTEMPTS: Final = 8
T = TypeVar("T")


class FileState(NamedTuple):
    """A Parquet file and what tells it from its successor of the same name."""

    path: str
    content: str
    """A name that no other file and no successor has."""
    inode: int = 0
    mtime_ns: int = 0
    newest_us: int | None = None
    """When its newest event was received, Unix time in microseconds, or a little later. None if all events of earlier
    files are older than all of its own."""


class Snapshot(NamedTuple):
    """The files that together hold each event once."""

    files: tuple[FileState, ...]
    """Oldest first."""
    journal: tuple[Segment, ...]
    """Oldest first; the last one may be written to meanwhile."""

    def events_sql(self) -> str:
        """A SELECT of the store's columns over all events."""
        parts = []
        if self.files:
            parts.append(files_sql([state.path for state in self.files]))
        if self.journal:
            # One by one: DuckDB holds the buffers of all files of one list, which large logs fill.
            parts += [journal_sql([segment.path], skip_damage=True) for segment in self.journal]
        return " UNION ALL ".join(parts) or _NO_EVENTS


def take_snapshot(folder: StoreFolder, connection: duckdb.DuckDBPyConnection) -> Snapshot:
    """What the store holds now.

    Args:
        folder: the store.
        connection: any connection; it reads the newest file's metadata.
    """
    # The journal first: events move from there to the files, so none is missed.
    segments = folder.segments()
    files = []
    for file in folder.data_files():
        try:
            found = os.stat(file.path)
        except FileNotFoundError:
            continue  # the retention has just deleted it
        content = f"{file.first:012d}.{found.st_size}.{found.st_mtime_ns}"
        files.append(FileState(str(file.path), content, found.st_ino, found.st_mtime_ns))
    last = last_segment(Path(files[-1].path), connection) if files else 0
    return Snapshot(tuple(files), tuple(segment for segment in segments if segment.number > last))


def read_consistently(
    folder: StoreFolder, connection: duckdb.DuckDBPyConnection, query: Callable[[Snapshot], T]
) -> T:
    """The result of a query over a snapshot that stayed as it was meanwhile.

    Raises:
        duckdb.Error: the query fails, or a file is damaged.
    """
    for attempt in range(_ATTEMPTS):
        last_attempt = attempt == _ATTEMPTS - 1
        try:
            snapshot = take_snapshot(folder, connection)
            result = query(snapshot)
        except (duckdb.IOException, FileNotFoundError):
            if last_attempt:
                raise
            continue
        # The last attempt counts even so: a count that is a little off is better than none.
        if last_attempt or _is_unchanged(snapshot):
            return result
    raise AssertionError("unreachable")


def last_segment(path: Path, connection: duckdb.DuckDBPyConnection) -> int:
    """The last segment of the journal that a Parquet file holds."""
    row = connection.execute(
        f"SELECT decode(value) FROM parquet_kv_metadata({quoted(path)}) WHERE decode(key) = 'last_segment'"
    ).fetchone()
    return int(row[0]) if row else 0


def files_sql(paths: Sequence[str | Path]) -> str:
    """A SELECT of the store's columns over Parquet files."""
    names = ", ".join(f'"{column.name}"' for column in COLUMNS)
    return f"SELECT {names} FROM read_parquet({path_list(paths)}, hive_partitioning = false)"


def _is_unchanged(snapshot: Snapshot) -> bool:
    try:
        for state in snapshot.files[-1:]:
            found = os.stat(state.path)
            if (found.st_ino, found.st_mtime_ns) != (state.inode, state.mtime_ns):
                return False
        return all(segment.path.exists() for segment in snapshot.journal)
    except FileNotFoundError:
        return False


_NO_EVENTS: Final = "SELECT {} WHERE false".format(
    ", ".join(f'CAST(NULL AS {column.sql_type}) AS "{column.name}"' for column in COLUMNS)
)
