"""Closed segments of the journal become Parquet files, and old files are deleted.

    a closed segment     waits until four are closed, or until the oldest event in them is old enough
    four and more        become a file of their own
    fewer                join the day's newest file while that is small; it is written anew

Everything here runs on the event loop, but for what the compacting process and `Disk` do.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from adbc_telemetry.collector.rarely import RareLog
from adbc_telemetry.collector.store.disk import Disk, in_thread, measure, unlink_all
from adbc_telemetry.collector.store.journal import Journal
from adbc_telemetry.collector.store.layout import DataFile, Segment, StoreFolder
from adbc_telemetry.collector.store.retention import Retention, files_to_delete
from adbc_telemetry.collector.workers import WorkerError, WorkerProcess

TICK_SECONDS: Final = 0.25
FIRST_FLUSH_SECONDS: Final = 2.0
"""Events are in a Parquet file after that, while the day's newest file is small."""
_LAST_FLUSH_SECONDS: Final = 60.0
_ROWS_PER_SECOND: Final = 10_000
"""Each second of waiting allows so many rows of the newest file to be written once more."""
_SEALED_ROWS: Final = 400_000
_COMPACTED_TOGETHER: Final = 4
"""Closed segments that are compacted at once, without waiting: 64 MB."""
_MOST_TOGETHER: Final = 8
COMPACTION_TIMEOUT: Final = 120.0
RETRY_SECONDS: Final = 5.0
RETENTION_SECONDS: Final = 10.0

_logger = logging.getLogger(__name__)


class Moving:
    """The way of events out of the journal.

    Args:
        folder: the store.
        journal: its open segment.
        disk: deletes segments.
        compactor: the compacting process.
        retention: what the store keeps.
        newest: the newest Parquet file and its rows, if there is one.
        closed: segments that an earlier process left.
    """

    def __init__(
        self,
        folder: StoreFolder,
        journal: Journal,
        disk: Disk,
        compactor: WorkerProcess,
        retention: Retention,
        newest: tuple[DataFile | None, int],
        closed: Sequence[Segment],
    ) -> None:
        self._folder = folder
        self._journal = journal
        self._disk = disk
        self._compactor = compactor
        self._retention = retention
        self._log = RareLog(_logger)
        self._newest, self._newest_rows = newest  # the Parquet file that may still grow
        self.closed = list(closed)
        """Segments that are not in a Parquet file yet, oldest first."""
        self._oldest_closed_at = 0.0  # when the first event of the closed segments came, or a little later
        self.failed_at: float | None = None
        """When the last compaction failed, by `time.monotonic()`; None if it did not."""
        self._next_retention = 0.0
        self._stopping = False
        self.measured = (0, 0)
        """Bytes of the events, and free bytes of the disk; some seconds old."""

    def segment_closed(self, segment: Segment, opened_at: float) -> None:
        """Take over a segment that is closed."""
        if not self.closed:
            self._oldest_closed_at = opened_at
        self.closed.append(segment)

    def stop(self) -> None:
        """Begin no more work."""
        self._stopping = True

    async def run(self, close_segment: Callable[[], Awaitable[None]]) -> None:
        """Look after the store until `stop` is called.

        Args:
            close_segment: closes the journal's open segment.
        """
        while not self._stopping:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self._close_old_segment(close_segment)
                if self._is_compaction_due():
                    await self._compact()
                await self._retain()
            except Exception as error:  # noqa: BLE001 - the next tick tries again; only the class: texts may quote events
                self._log.warn("care", f"{self._folder.path} cannot be looked after: {type(error).__name__}.")

    async def _close_old_segment(self, close_segment: Callable[[], Awaitable[None]]) -> None:
        age = time.monotonic() - self._journal.opened_at
        # A commit may be under way on the disk's thread; it is waited for there, and then the segment is closed.
        if self._journal.length and age >= self._flush_seconds():
            await close_segment()

    def _flush_seconds(self) -> float:
        """How long events wait in the journal: the larger the newest file, the longer, since it is written anew."""
        return min(_LAST_FLUSH_SECONDS, max(FIRST_FLUSH_SECONDS, self._newest_rows / _ROWS_PER_SECOND))

    def _is_compaction_due(self) -> bool:
        if not self.closed:
            return False
        now = time.monotonic()
        if self.failed_at is not None:
            return now - self.failed_at >= RETRY_SECONDS
        waited = now - self._oldest_closed_at >= self._flush_seconds()
        return waited or len(self.closed) >= _COMPACTED_TOGETHER

    async def _compact(self) -> None:
        """Turn the oldest closed segments of one day into a Parquet file."""
        if self.failed_at is not None:
            await self._pass_over_compacted()
            if not self.closed:
                return
        day = self.closed[0].day
        # After a failure one at a time: one segment that cannot be compacted must not keep the others from it.
        most = _MOST_TOGETHER if self.failed_at is None else 1
        # Only up to the first one of another day: a clock that is set back must not pass over what lies between.
        segments = list(itertools.takewhile(lambda each: each.day == day, self.closed[:most]))
        merge = (
            self._newest is not None
            and self._newest.day == day
            and self._newest_rows < _SEALED_ROWS
            and len(segments) < _COMPACTED_TOGETHER
        )
        target = self._newest if merge and self._newest else self._folder.data_file(segments[0].number, day)
        try:
            rows, damaged = await self._compactor.call(
                tuple[int, bool],
                "compact",
                timeout=COMPACTION_TIMEOUT,
                segments=[(each.number, str(each.path)) for each in segments],
                target=str(target.path),
            )
        except WorkerError as error:
            self.failed_at = time.monotonic()
            self._log.warn("compaction", f"Parquet files cannot be written in {self._folder.path} ({error}).")
            return
        if damaged:
            _logger.error(
                "Some lines of the journal in %s could not be read and are left out.", self._folder.path
            )
        self.failed_at = None
        self._newest, self._newest_rows = target, rows
        # The file is in its place, and names its last segment: from here on readers pass these segments over.
        del self.closed[: len(segments)]
        self._oldest_closed_at = time.monotonic()
        await self._disk.in_order(unlink_all, [each.path for each in segments])

    async def _pass_over_compacted(self) -> None:
        """After a failure: the process may have ended between its work and its answer.

        The same segments may get another target now, so that its own look at the target does not find them.
        """
        files = await in_thread(self._folder.data_files)
        self._newest, self._newest_rows = (files[-1] if files else None), 0
        if self._newest is None:
            return
        try:
            self._newest_rows, last = await self._compactor.call(
                tuple[int, int], "describe", timeout=COMPACTION_TIMEOUT, path=str(self._newest.path)
            )
        except WorkerError:
            self._newest = None  # it cannot be read: nothing is merged into it
            return
        done = [each for each in self.closed if each.number <= last]
        self.closed = [each for each in self.closed if each.number > last]
        if not self.closed:
            self.failed_at = None
        await self._disk.in_order(unlink_all, [each.path for each in done])

    async def compact_the_rest(self, deadline: float) -> None:
        """Compact what is left, until `deadline` by `time.monotonic()`."""
        while self.closed and self.failed_at is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            try:
                await asyncio.wait_for(self._compact(), left)
            except asyncio.TimeoutError:
                return

    async def _retain(self) -> None:
        if time.monotonic() < self._next_retention:
            return
        self._next_retention = time.monotonic() + RETENTION_SECONDS
        self.measured, deleted = await in_thread(self._delete_old_files)
        if self._newest is not None and self._newest.path in deleted:
            self._newest, self._newest_rows = None, 0

    def _delete_old_files(self) -> tuple[tuple[int, int], list[Path]]:
        doomed = files_to_delete(self._folder, self._retention, time.time())
        unlink_all(doomed)
        for path in doomed:
            with contextlib.suppress(OSError):
                path.parent.rmdir()  # when it was the day's last one
        return measure(self._folder), doomed
