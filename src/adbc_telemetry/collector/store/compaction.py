"""Journal segments become Parquet files, in a process of its own beside the collector's.

Commands come from the collector, which alone decides what is compacted and when; see `workers` for the way they take.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import duckdb
import numpy as np

from adbc_telemetry.collector import workers
from adbc_telemetry.collector.store.columns import quoted
from adbc_telemetry.collector.store.layout import StoreFolder, fsync_folder
from adbc_telemetry.collector.store.lines import event_ids, journal_sql
from adbc_telemetry.collector.store.recent_ids import Hashes, hash_id
from adbc_telemetry.collector.store.snapshot import Snapshot, files_sql, last_segment, read_consistently

_MEMORY_LIMIT: Final = "180MB"
_ROW_GROUP: Final = 20_480
"""Rows that DuckDB holds in memory before it writes them."""
_ROW_GROUP_BYTES: Final = 8 * 1024 * 1024
"""Bytes of them, for logs that are far larger than usual: a reader holds a whole row group too."""
_PIECE_BYTES: Final = 2 * 1024 * 1024
"""Large logs take some 20 times their size while they are read, so they are read by so many bytes."""
_FETCHED: Final = 10_000


class Compactor:
    """The work of the compacting process, over one store."""

    def __init__(self, folder: str) -> None:
        self._folder = StoreFolder(folder)
        self._connection = connect(_MEMORY_LIMIT, threads=1)

    def compact(self, segments: list[tuple[int, str]], target: str) -> tuple[int, bool]:
        """Write the events of journal segments into a Parquet file, which appears in one step.

        Segments that the file holds already are passed over: the collector may not have heard of a success.

        Args:
            segments: number and path of each segment, oldest first.
            target: path of the Parquet file. If it exists, its events stay in it.

        Returns:
            The rows of the file, and whether lines of the journal could not be read and are left out.

        Raises:
            duckdb.Error, OSError: the file stays as it was.
        """
        merge = os.path.exists(target)
        rows, last = self.describe(target) if merge else (0, 0)
        paths = [path for number, path in segments if number > last]
        if not paths:
            return rows, False
        last = segments[-1][0]
        part = self._folder.tmp / "compaction.parquet"
        old_events = [files_sql([Path(target)])] if merge else []
        try:
            damaged = self._copy_journal(paths, old_events, part, last)
        except duckdb.OutOfMemoryException:
            damaged = self._copy_by_pieces(paths, old_events, part, last)
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        Path(target).parent.mkdir(exist_ok=True)
        os.replace(part, target)
        fsync_folder(Path(target).parent)
        rows, _ = self.describe(target)
        return rows, damaged

    def _copy_journal(
        self, paths: Sequence[str | Path], old_events: list[str], part: Path, last: int
    ) -> bool:
        """Write old events and those of the journal; returns whether lines could not be read."""
        try:
            self._copy([*old_events, journal_sql(paths, skip_damage=False)], part, last)
        except duckdb.InvalidInputException:
            self._copy([*old_events, journal_sql(paths, skip_damage=True)], part, last)
            return True
        return False

    def _copy_by_pieces(self, paths: Sequence[str], old_events: list[str], part: Path, last: int) -> bool:
        """The same in little memory: without it, a few large logs would keep all others in the journal for ever."""
        damaged = False
        piece = self._folder.tmp / "piece.jsonl"
        written: list[Path] = []
        try:
            for content in _pieces(paths):
                piece.write_bytes(content)
                written.append(self._folder.tmp / f"piece-{len(written)}.parquet")
                damaged |= self._copy_journal([piece], [], written[-1], last)
            self._copy([*old_events, files_sql(written)], part, last)
        finally:
            for each in (piece, *written):
                each.unlink(missing_ok=True)
        return damaged

    def _copy(self, events: list[str], part: Path, last: int) -> None:
        self._connection.execute(
            f"COPY ({' UNION ALL '.join(events)}) TO {quoted(part)} (FORMAT parquet, COMPRESSION zstd, "
            f"COMPRESSION_LEVEL 1, ROW_GROUP_SIZE {_ROW_GROUP}, ROW_GROUP_SIZE_BYTES {_ROW_GROUP_BYTES}, "
            f"KV_METADATA {{last_segment: '{last}'}})"
        )

    def describe(self, path: str) -> tuple[int, int]:
        """The rows of a Parquet file, and the last segment of the journal that it holds."""
        row = self._connection.execute(
            f"SELECT num_rows FROM parquet_file_metadata({quoted(path)})"
        ).fetchone()
        assert row is not None
        return row[0], last_segment(Path(path), self._connection)

    def collect_ids(self, since_us: int, target: str) -> int:
        """Write the hashes of the event ids that were received since a moment into a file; returns how many.

        The journal's are all recent, and are read line by line: it may hold logs that DuckDB has no room for.
        """

        def ids(snapshot: Snapshot) -> list[Hashes]:
            hashes = [
                _hashes(event_ids(line)) for segment in snapshot.journal for line in _lines(segment.path)
            ]
            if snapshot.files:
                cursor = self._connection.execute(
                    f"SELECT event_id FROM ({files_sql([state.path for state in snapshot.files])}) "
                    f"WHERE received_at >= make_timestamptz({since_us}) AND event_id IS NOT NULL"
                )
                # As arrays: an hour may hold many millions, and Python's integers are large.
                while rows := cursor.fetchmany(_FETCHED):
                    hashes.append(_hashes([event_id for (event_id,) in rows]))
            return hashes

        found = read_consistently(self._folder, self._connection, ids)
        hashes = np.concatenate([_hashes([]), *found])
        hashes.sort()
        hashes.tofile(target)
        return len(hashes)


def _hashes(event_ids: list[str]) -> Hashes:
    return np.array([hash_id(event_id) for event_id in event_ids], dtype=np.uint64)


def _lines(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        yield from file


def _pieces(paths: Sequence[str]) -> Iterator[bytes]:
    """The lines of several files, some of them at a time."""
    for path in paths:
        with open(path, "rb") as file:
            while lines := file.readlines(_PIECE_BYTES):
                yield b"".join(lines)


def connect(memory_limit: str, *, threads: int) -> duckdb.DuckDBPyConnection:
    """A DuckDB of its own in memory, that reads files and keeps within its limit."""
    connection = duckdb.connect(
        config={
            "memory_limit": memory_limit,
            "threads": threads,
            "preserve_insertion_order": False,
            "temp_directory": "",
            "autoinstall_known_extensions": False,
        }
    )
    connection.execute("SET TimeZone = 'UTC'")
    return connection


if __name__ == "__main__":
    workers.serve(Compactor(sys.argv[1]))
