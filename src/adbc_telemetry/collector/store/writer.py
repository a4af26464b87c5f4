"""The store as this process writes it: opens it, runs what it is made of, and closes it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from adbc_telemetry.collector.destination import AcceptedLog, Added, Gauge, Health
from adbc_telemetry.collector.store.commits import Commits, explain, now_us
from adbc_telemetry.collector.store.disk import Disk, in_thread, measure, size_of
from adbc_telemetry.collector.store.journal import Journal, cut_incomplete_line
from adbc_telemetry.collector.store.layout import Segment, StoreError, StoreFolder, create_store, locked
from adbc_telemetry.collector.store.moving import COMPACTION_TIMEOUT, Moving
from adbc_telemetry.collector.store.recent_ids import WINDOW_SECONDS, RecentIds
from adbc_telemetry.collector.store.retention import Retention
from adbc_telemetry.collector.workers import WorkerError, WorkerProcess

_COMMIT_US: Final = 30 * 1_000_000
"""More than the time from an event's arrival to the end of its commit."""
_COMPACTOR: Final = "adbc_telemetry.collector.store.compaction"


class StoreHealth(Health, frozen=True, kw_only=True):
    """How the store is doing."""

    journal_bytes: int
    """Not yet in Parquet files."""
    bytes: int
    free_bytes: int
    remembered_ids: int

    def gauges(self) -> list[Gauge]:
        """The sizes."""
        return [
            Gauge("journal_bytes", "Bytes that are not in Parquet files yet.", self.journal_bytes),
            Gauge("store_bytes", "Bytes of the store.", self.bytes),
            Gauge("disk_free_bytes", "Free bytes of the store's disk.", self.free_bytes),
            Gauge("remembered_ids", "Event ids of the last hour.", self.remembered_ids),
        ]

    def details(self) -> dict[str, object]:
        """The room that is left."""
        return {"free_bytes": self.free_bytes}


class Store:
    """A store that this process writes. Create it, `await start()`, and `await stop()` on the same event loop.

    Args:
        path: the folder; made if it is new or empty.
        retention: when data is deleted.
    """

    def __init__(self, path: str | os.PathLike[str], retention: Retention | None = None) -> None:
        self.path = Path(path)
        self._retention = retention or Retention()
        self._undo = contextlib.ExitStack()
        self._disk = Disk()
        self._tasks: list[asyncio.Task[None]] = []
        self._stop: asyncio.Future[None] | None = None
        self._folder: StoreFolder
        self._compactor: WorkerProcess
        self._journal: Journal
        self._ids: RecentIds
        self._moving: Moving
        self._commits: Commits

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.path)

    @property
    def largest_log(self) -> None:
        """None: the intake's limit is the store's."""

    async def start(self) -> None:
        """Open the store, and take up what an earlier process left.

        Raises:
            StoreError: the folder cannot be used.
        """
        try:
            await self._start()
        except BaseException as error:
            await in_thread(self._close)
            if isinstance(error, WorkerError):
                raise StoreError(
                    f"{self.path} cannot be read ({error}); see whether its disk is in order and has room, and move "
                    "damaged files out of it."
                ) from None
            if isinstance(error, OSError):
                raise StoreError(
                    f"{self.path} cannot be used: {error.strerror or type(error).__name__}; see whether its disk is "
                    "in order and has room."
                ) from None
            raise

    async def stop(self, timeout: float = 8.0) -> None:
        """Write everything and close the store. What cannot be compacted in time stays in the journal. Idempotent.

        Args:
            timeout: seconds for the last compaction.
        """
        if self._stop is None:
            if self._tasks:
                self._commits.stop()
                self._moving.stop()
            self._stop = asyncio.ensure_future(self._write_the_rest(time.monotonic() + timeout))
        await asyncio.shield(self._stop)

    async def add(self, logs: Sequence[AcceptedLog], array: bytes | None = None) -> Added:
        """See `Commits.add`. A store that stops takes no events."""
        return await self._commits.add(logs, array)

    def health(self) -> StoreHealth:
        """How the store is doing now."""
        commits, moving = self._commits, self._moving
        problems = []
        if commits.error is not None:
            problems.append(explain(commits.error, self.path))
        if moving.failed_at is not None:
            problems.append("Events are durable, but cannot be written as Parquet files at the moment.")
        if self._stop is None and any(task.done() for task in self._tasks):
            problems.append("The writer has ended; restart the collector.")
        journal = sum(size_of(segment.path) for segment in moving.closed)
        return StoreHealth(
            problems=problems,
            events=commits.events,
            duplicates=commits.duplicates,
            failed_requests=commits.failed,
            newest_commit_age_seconds=None if commits.newest is None else time.monotonic() - commits.newest,
            journal_bytes=journal + self._journal.length,
            bytes=moving.measured[0],
            free_bytes=moving.measured[1],
            remembered_ids=len(self._ids),
        )

    async def _start(self) -> None:
        # The lock waits for a moment, and the rest reads files: not on the loop.
        await in_thread(self._open)
        files = self._folder.data_files()
        newest = files[-1] if files else None
        rows, last = 0, 0
        if newest is not None:
            rows, last = await self._compactor.call(
                tuple[int, int], "describe", timeout=COMPACTION_TIMEOUT, path=str(newest.path)
            )
        closed = await in_thread(self._take_over, last)
        if newest is not None or closed:
            await self._remember_ids()
        self._moving = Moving(
            self._folder, self._journal, self._disk, self._compactor, self._retention, (newest, rows), closed
        )
        self._moving.measured = measure(self._folder)
        self._commits = Commits(self.path, self._journal, self._ids, self._disk, self._moving.segment_closed)
        self._tasks = [
            asyncio.create_task(self._commits.run()),
            asyncio.create_task(self._moving.run(self._commits.close_segment)),
        ]

    def _open(self) -> None:
        self._folder = create_store(self.path)
        with contextlib.ExitStack() as undo:
            lock = undo.enter_context(locked(self._folder))
            self._compactor = WorkerProcess(_COMPACTOR, [str(self.path)], niceness=10, inherited=lock)
            undo.callback(self._compactor.close)
            self._undo = undo.pop_all()

    def _take_over(self, last: int) -> list[Segment]:
        """Tidy up; returns the segments that are not in a Parquet file yet."""
        for leftover in self._folder.tmp.iterdir():
            leftover.unlink()
        segments = self._folder.segments()
        closed = []
        for segment in segments:
            if segment.number <= last:
                segment.path.unlink()  # a process ended between the two steps of a compaction
            else:
                cut_incomplete_line(segment)
                closed.append(segment)
        numbers = [segment.number for segment in segments]
        self._journal = Journal(self._folder, max([last, *numbers]) + 1)
        self._ids = RecentIds(self._folder)
        return closed

    async def _remember_ids(self) -> None:
        complete_until = await in_thread(self._ids.load)
        self._ids.forget_old(now_us())
        # Events that were on their way to the disk when a generation was closed are not in it.
        since = max(complete_until - _COMMIT_US, now_us() - WINDOW_SECONDS * 1_000_000)
        target = self._folder.tmp / "recent.ids"
        await self._compactor.call(
            int, "collect_ids", timeout=COMPACTION_TIMEOUT, since_us=since, target=str(target)
        )
        await in_thread(self._ids.add_file, target, now_us())

    async def _write_the_rest(self, deadline: float) -> None:
        try:
            if self._tasks:
                # Not cancelled: a compaction that the other process finishes unheard would be made twice.
                await asyncio.gather(*self._tasks)
                await self._commits.end()
                await self._moving.compact_the_rest(deadline)
        finally:
            await in_thread(self._close)

    def _close(self) -> None:
        self._undo.close()
        if hasattr(self, "_ids"):
            self._ids.close()
        self._disk.close()
