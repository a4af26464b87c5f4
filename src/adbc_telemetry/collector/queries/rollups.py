"""The rollups of a snapshot. They are kept in the store's folder, next to the files that they are made of.

A file is told from its successor of the same name by its size and its time. So a rollup is never of an earlier version
of its file, and a rollup that is lost or damaged is made anew.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import duckdb

from adbc_telemetry.collector.queries.rollup import Rollup, make_rollup, pack, unpack
from adbc_telemetry.collector.store.layout import Segment
from adbc_telemetry.collector.store.lines import journal_sql
from adbc_telemetry.collector.store.snapshot import FileState, Snapshot, files_sql

_ENDING: Final = ".npz"
_PART_SECONDS: Final = 60.0
"""A part that is older was left behind by a process that was ended."""
_KEPT_BYTES: Final = 32 * 1024 * 1024
"""Rollups in memory, of a store that cannot be written."""


class Range(NamedTuple):
    """The minutes of the first and of the last event, since 1970."""

    first: int
    last: int

    def overlaps(self, since: float | None, until: float | None) -> bool:
        """Whether events may lie between two moments in seconds."""
        return (since is None or (self.last + 1) * 60 > since) and (until is None or self.first * 60 < until)


class Rollups:
    """Makes, keeps and finds rollups.

    Args:
        folder: where they are kept; if it cannot be written, they are kept in memory.
        connection: reads the events; no other thread uses it meanwhile.
    """

    def __init__(self, folder: Path, connection: duckdb.DuckDBPyConnection) -> None:
        self._folder = folder
        self._connection = connection
        self._ranges: dict[str, Range | None] = {}
        """By the rollup's name; None if the file holds no events."""
        self._in_memory: OrderedDict[str, bytes] = OrderedDict()
        self._segments: dict[tuple[int, int], Rollup] = {}
        """By the segment's number and size."""

    def of_files(
        self, snapshot: Snapshot, since: float | None = None, until: float | None = None
    ) -> Iterator[tuple[FileState, Rollup]]:
        """The rollups of the Parquet files with events between two moments, newest file first.

        Raises:
            duckdb.Error: a file cannot be read.
        """
        for state in reversed(snapshot.files):
            name = _name(state)
            if name in self._ranges and not _overlaps(self._ranges[name], since, until):
                continue
            rollup = self._find(name) or self._make(state)
            self._ranges[name] = _range(rollup)
            if _overlaps(self._ranges[name], since, until):
                yield state, rollup

    def of_journal(self, snapshot: Snapshot) -> list[tuple[Segment, Rollup]]:
        """The rollups of the journal's segments, newest first. They are in memory only: segments live for seconds.

        Raises:
            duckdb.Error: a segment cannot be read.
            FileNotFoundError: a segment is in a Parquet file by now.
        """
        known, self._segments = self._segments, {}
        found = []
        for segment in reversed(snapshot.journal):
            key = (segment.number, segment.path.stat().st_size)
            rollup = known.get(key)
            if rollup is None and key[1]:
                rollup = make_rollup(journal_sql([segment.path], skip_damage=True), self._connection)
            if rollup is not None:
                self._segments[key] = rollup
                found.append((segment, rollup))
        return found

    def ranges(self, snapshot: Snapshot, since: float | None, until: float | None) -> list[Range]:
        """The range of each file and segment with events between two moments.

        Raises:
            duckdb.Error, FileNotFoundError: as in `of_files` and `of_journal`.
        """
        found: list[Range | None] = [_range(rollup) for _, rollup in self.of_journal(snapshot)]
        for state in snapshot.files:
            name = _name(state)
            if name not in self._ranges:
                self._ranges[name] = _range(self._find(name) or self._make(state))
            found.append(self._ranges[name])
        return [each for each in found if each is not None and each.overlaps(since, until)]

    def prepare(self, snapshot: Snapshot) -> bool:
        """Make the rollup of a file that has none, except of the newest file, which will be written anew.

        Returns:
            Whether there was one to make.

        Raises:
            duckdb.Error: a file cannot be read.
        """
        for state in snapshot.files[:-1]:
            name = _name(state)
            if name not in self._ranges and not self._path(name).exists():
                self._ranges[name] = _range(self._make(state))
                return True
        return False

    def forget_others(self, snapshot: Snapshot) -> None:
        """Delete the rollups of files that are gone."""
        names = {_name(state) for state in snapshot.files}
        for name in self._ranges.keys() - names:
            del self._ranges[name]
        for name in self._in_memory.keys() - names:
            del self._in_memory[name]
        with contextlib.suppress(OSError):  # the store may be one that this user cannot write
            for entry in os.scandir(self._folder):
                # A part that is young may be one that another process is writing.
                is_part = not entry.name.endswith(_ENDING)
                if entry.name not in names and not (is_part and _is_young(entry)):
                    os.unlink(entry.path)

    def _find(self, name: str) -> Rollup | None:
        with contextlib.suppress(OSError, ValueError):
            packed = self._in_memory.get(name)
            return unpack(packed if packed is not None else self._path(name).read_bytes())
        return None

    def _make(self, state: FileState) -> Rollup:
        rollup = make_rollup(files_sql([state.path]), self._connection)
        packed, name = pack(rollup), _name(state)
        # A name of its own: the collector and a command may make the same rollup at once.
        part = self._folder / f"{name}.{os.getpid()}"
        try:
            part.write_bytes(packed)
            os.replace(part, self._path(name))
        except OSError:  # a store that cannot be written, or a full disk
            with contextlib.suppress(OSError):
                part.unlink()
            self._in_memory[name] = packed
            while sum(map(len, self._in_memory.values())) > _KEPT_BYTES:
                self._in_memory.popitem(last=False)
        return rollup

    def _path(self, name: str) -> Path:
        return self._folder / name


def _is_young(entry: os.DirEntry[str]) -> bool:
    return time.time() - entry.stat().st_mtime < _PART_SECONDS


def _name(state: FileState) -> str:
    return state.content + _ENDING


def _range(rollup: Rollup) -> Range | None:
    if not len(rollup.minutes):
        return None
    return Range(int(rollup.minutes[0]), int(rollup.minutes[-1]))


def _overlaps(range: Range | None, since: float | None, until: float | None) -> bool:
    return range is not None and range.overlaps(since, until)
