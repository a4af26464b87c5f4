"""All questions about one store. Answers are kept for as long as the store stays as it is."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from adbc_telemetry.collector.queries import events
from adbc_telemetry.collector.queries.answers import By, FileFormat, Panel, Report
from adbc_telemetry.collector.queries.counting import select, slowest_bucket
from adbc_telemetry.collector.queries.export import export_store
from adbc_telemetry.collector.queries.filters import Filter
from adbc_telemetry.collector.queries.panels import Dashboard, timeline_range
from adbc_telemetry.collector.queries.report import MEMORY_LIMIT, report_over
from adbc_telemetry.collector.queries.rollup import Array, Rollup
from adbc_telemetry.collector.queries.rollups import Rollups
from adbc_telemetry.collector.queries.sources import open_source
from adbc_telemetry.collector.store.compaction import connect
from adbc_telemetry.collector.store.lines import journal_sql
from adbc_telemetry.collector.store.snapshot import Snapshot, files_sql

_KEPT_ANSWERS: Final = 64
T = TypeVar("T")


class Questions:
    """Answers questions about a store, one at a time, on one thread.

    Args:
        path: the folder of a store, or a Delta table.
        storage_options: for a table in an object store, as `deltalake` takes them.

    Raises:
        DestinationError: there is neither.
    """

    def __init__(
        self, path: str | os.PathLike[str], storage_options: Mapping[str, str] | None = None
    ) -> None:
        self._source = open_source(path, storage_options)
        self._connection = connect(MEMORY_LIMIT, threads=1)
        self._rollups = Rollups(self._source.rollups, self._connection)
        self._answers: OrderedDict[object, Any] = OrderedDict()

    def panel(self, name: str, filter: Filter) -> Panel:
        """A panel of the page.

        Raises:
            duckdb.Error: a file cannot be read, or the answer needs too much memory.
        """
        if name == "newest":
            return self._answer((name, filter), lambda snapshot: self._newest(snapshot, filter))
        if name == "slowest":
            return self._answer((name, filter), lambda snapshot: self._slowest(snapshot, filter))
        # The timeline's end moves with the clock.
        minute = time.time() // 60
        return self._answer(
            ("dashboard", filter, minute), lambda snapshot: self._dashboard(snapshot, filter, minute * 60)
        )[name]

    def event(self, event_id: str, filter: Filter) -> dict[str, Any] | None:
        """One event with all of its columns, or None. A filter for its time makes it quick to find.

        Raises:
            duckdb.Error: as in `panel`.
        """

        def find(snapshot: Snapshot) -> dict[str, Any] | None:
            for source, _ in self._sources(snapshot, filter):
                if (found := events.find(source, event_id, self._connection)) is not None:
                    return found
            return None

        return self._source.read(self._connection, find)

    def report(self, filter: Filter, by: By | None) -> Report:
        """The report of a range.

        Raises:
            duckdb.Error: as in `panel`.
        """
        return self._answer(
            ("report", filter, by),
            lambda snapshot: report_over(snapshot, self._rollups, self._connection, filter, by),
        )

    def export(self, target: Path, file_format: FileFormat) -> None:
        """Write all events into a file.

        Raises:
            duckdb.Error: a file cannot be read or written.
        """
        export_store(self._source, self._connection, target, file_format)

    def prepare(self) -> bool:
        """Count the events of one more Parquet file, if there is one that is complete and not counted.

        Raises:
            duckdb.Error: the file cannot be read.
        """
        snapshot = self._source.snapshot(self._connection)
        self._rollups.forget_others(snapshot)
        return self._rollups.prepare(snapshot)

    def _dashboard(self, snapshot: Snapshot, filter: Filter, now: float) -> dict[str, Panel]:
        first, last = self._range(snapshot, filter)
        dashboard = Dashboard(*timeline_range(filter.since, filter.until, first, last, now))
        for _, rollup in self._sources(snapshot, filter):
            if (part := select(rollup, filter)) is not None:
                dashboard.add(part)
        self._rollups.forget_others(snapshot)
        return dashboard.panels()

    def _range(self, snapshot: Snapshot, filter: Filter) -> tuple[int | None, int | None]:
        """The minutes of the first and the last event, if the filter leaves one of them open."""
        if filter.since is not None and filter.until is not None:
            return None, None
        ranges = self._rollups.ranges(snapshot, filter.since, filter.until)
        return min((each.first for each in ranges), default=None), max(
            (each.last for each in ranges), default=None
        )

    def _newest(self, snapshot: Snapshot, filter: Filter) -> Panel:
        bounds = {files_sql([state.path]): state.newest_us for state in snapshot.files}
        sources = (
            (source, bounds.get(source))
            for source, rollup in self._sources(snapshot, filter)
            if select(rollup, filter) is not None
        )
        return events.newest(sources, filter, self._connection)

    def _slowest(self, snapshot: Snapshot, filter: Filter) -> Panel:
        histograms: list[tuple[str, Array]] = []
        for source, rollup in self._sources(snapshot, filter):
            if (part := select(rollup, filter)) is not None:
                histograms.append((source, part.histogram()))
        if not histograms:
            return events.slowest([], 0, filter, self._connection)
        bucket = slowest_bucket(np.sum([histogram for _, histogram in histograms], axis=0), events.SLOWEST)
        sources = [source for source, histogram in histograms if np.any(histogram[bucket:-1])]
        return events.slowest(sources, bucket, filter, self._connection)

    def _sources(self, snapshot: Snapshot, filter: Filter) -> Iterator[tuple[str, Rollup]]:
        """Queries for the store's columns and their rollups, the newest first, one at a time."""
        for segment, rollup in self._rollups.of_journal(snapshot):
            yield journal_sql([segment.path], skip_damage=True), rollup
        for state, rollup in self._rollups.of_files(snapshot, filter.since, filter.until):
            yield files_sql([state.path]), rollup

    def _answer(self, question: object, query: Callable[[Snapshot], T]) -> T:
        """The answer that is known for the store as it is, or a new one."""

        def answer(snapshot: Snapshot) -> T:
            key = (question, snapshot.files, _journal_sizes(snapshot))
            if key not in self._answers:
                self._answers[key] = query(snapshot)
            self._answers.move_to_end(key)
            while len(self._answers) > _KEPT_ANSWERS:
                self._answers.popitem(last=False)
            found: T = self._answers[key]
            return found

        return self._source.read(self._connection, answer)


def _journal_sizes(snapshot: Snapshot) -> tuple[tuple[int, int], ...]:
    return tuple((segment.number, segment.path.stat().st_size) for segment in snapshot.journal)
