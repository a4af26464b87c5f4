"""Events become durable: groups of requests are written to the journal, and their ids are remembered.

    a request's events       known ids are left out; the others join the group that gathers
    the group                when the last group is durable, the gathered one is written: one write, one fdatasync
    its end                  durable: its ids are remembered, its requests acknowledged; failed: neither, and 503

Everything here runs on the event loop, but for what `Disk` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from adbc_telemetry.collector.destination import AcceptedLog, Added, NotDurableError
from adbc_telemetry.collector.rarely import RareLog
from adbc_telemetry.collector.store.disk import Disk, free_bytes, in_thread
from adbc_telemetry.collector.store.journal import SEGMENT_BYTES, Journal
from adbc_telemetry.collector.store.layout import Segment
from adbc_telemetry.collector.store.lines import line_of_array, lines_of_logs
from adbc_telemetry.collector.store.recent_ids import Generation, RecentIds, hash_id

_COMMIT_SECONDS: Final = 0.004
"""From the beginning of a commit to that of the next one, at least."""
_ROTATE_IDS_SECONDS: Final = 600.0

_logger = logging.getLogger(__name__)


class _Group:
    """The events of the requests that become durable together."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.hashes: set[int] = set()
        self.events = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # A request may be given up while it waits; then the group's error has no reader, which is no fault.
        self.done.add_done_callback(lambda done: done.cancelled() or done.exception())


class Commits:
    """The way of events into the journal.

    Args:
        path: of the store, for messages.
        journal: where they go.
        ids: those of the last hour.
        disk: calls the journal.
        segment_closed: is told of each segment that is closed, and when it was opened.
    """

    def __init__(
        self,
        path: Path,
        journal: Journal,
        ids: RecentIds,
        disk: Disk,
        segment_closed: Callable[[Segment, float], None],
    ) -> None:
        self._path = path
        self._journal = journal
        self._ids = ids
        self._disk = disk
        self._segment_closed = segment_closed
        self._log = RareLog(_logger)
        self._group = _Group()
        self._pending: dict[int, _Group] = {}  # ids that are on their way to the disk
        self._wake = asyncio.Event()
        self._stopping = False
        self._ids_rotated = time.monotonic()
        self._rotation: asyncio.Task[None] | None = None
        self.events = 0
        """Written since the start."""
        self.duplicates = 0
        """Left out since the start."""
        self.failed = 0
        """Groups that could not be written since the start."""
        self.error: Exception | None = None
        """Why the last group could not be written; None if it was."""
        self.newest: float | None = None
        """When the last group became durable, by `time.monotonic()`."""

    async def add(self, logs: Sequence[AcceptedLog], array: bytes | None = None) -> Added:
        """Make the events of one request durable, each id once.

        Args:
            logs: the events.
            array: the texts of all of them as a JSON array on one line, if there is one. It is written as it is.

        Raises:
            NotDurableError: the disk is full or fails, or the store is stopping.
        """
        if self._stopping:
            raise NotDurableError
        group = self._group
        hashes = [hash_id(log.event_id) for log in logs]
        known = self._ids.known(hashes)
        fresh = []
        waits_for = set()
        for number, log in zip(hashes, logs, strict=True):
            if number in known:
                continue
            under_way = self._pending.setdefault(number, group)
            waits_for.add(under_way)
            if under_way is group and number not in group.hashes:
                group.hashes.add(number)
                fresh.append(log)
        if fresh:
            if array is not None and len(fresh) == len(logs):
                group.lines.append(line_of_array(array, now_us()))
            else:
                group.lines.extend(lines_of_logs(fresh, now_us()))
            group.events += len(fresh)
            self._wake.set()
        new = len(fresh)
        for each in waits_for:
            # Shielded: a request that is given up must not cancel the others of its group.
            await asyncio.shield(each.done)
        self.duplicates += len(hashes) - new
        return Added(new, len(hashes) - new)

    async def run(self) -> None:
        """Write groups until `stop` is called and all are written."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            group, self._group = self._group, _Group()
            if group.lines:
                began = time.monotonic()
                await self._commit(group)
                # Under load, more requests share a commit. A request that comes alone does not wait.
                if not self._stopping:
                    await asyncio.sleep(max(0.0, began + _COMMIT_SECONDS - time.monotonic()))
            elif self._stopping:
                return
            if self._stopping:
                self._wake.set()  # what has gathered meanwhile is written too

    async def _commit(self, group: _Group) -> None:
        day = _today()
        try:
            if self._journal.segment is not None and (
                self._journal.segment.day != day or self._journal.length >= SEGMENT_BYTES
            ):
                await self.close_segment()
            await self._disk.in_order(self._journal.commit, group.lines, day)
        except Exception as error:  # noqa: BLE001 - requests wait for an answer, and later ones for this loop
            self.failed += 1
            self.error = error
            self._log.warn("commit", explain(error, self._path))
            self._forget_pending(group)
            group.done.set_exception(NotDurableError())
        else:
            if self.error is not None:
                self.error = None
                _logger.warning("%s can be written again.", self._path)
            self.newest = time.monotonic()
            self.events += group.events
            self._ids.add(group.hashes)
            self._forget_pending(group)
            group.done.set_result(None)
            self._rotate_ids_when_full()

    def _forget_pending(self, group: _Group) -> None:
        for number in group.hashes:
            del self._pending[number]

    async def close_segment(self) -> None:
        """Close the journal's segment, so that it can be compacted.

        Raises:
            OSError: it cannot be cut back to its last commit yet.
        """
        opened_at = self._journal.opened_at
        segment = await self._disk.in_order(self._journal.close_segment)
        if segment is not None:
            self._segment_closed(segment, opened_at)

    def _rotate_ids_when_full(self) -> None:
        due = self._ids.is_full or time.monotonic() - self._ids_rotated > _ROTATE_IDS_SECONDS
        if due and (self._rotation is None or self._rotation.done()):
            self._rotation = asyncio.create_task(self.rotate_ids())

    async def rotate_ids(self) -> None:
        """Write the newest ids to disk as a generation, and forget those that are older than an hour."""
        self._ids_rotated = time.monotonic()
        newest_us = now_us()
        hashes = self._ids.begin_generation()
        if hashes is None:
            return
        generation: Generation | None = None
        # On a full disk the ids stay in memory. The log tells of it where events are written.
        with contextlib.suppress(OSError):
            generation = await in_thread(self._ids.write_generation, hashes, newest_us)
        self._ids.end_generation(generation)
        small = self._ids.small_generations()
        if small:
            with contextlib.suppress(OSError):  # they stay apart until the next time
                self._ids.replace(small, await in_thread(self._ids.merge, small))
        self._ids.forget_old(now_us())

    def stop(self) -> None:
        """Take no more events."""
        self._stopping = True
        self._wake.set()

    async def end(self) -> None:
        """After `run` has ended: close the segment and write the ids."""
        if self._rotation is not None:
            await self._rotation
        with contextlib.suppress(OSError):
            await self.close_segment()
        await self.rotate_ids()


def explain(error: Exception, path: Path) -> str:
    """Why events cannot be written, and what to do."""
    reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
    return (
        f"Events cannot be written to {path}: {reason}, with "
        f"{free_bytes(path) // 1_000_000} MB free. Senders keep their events and try again; "
        "make room, or lower --max-size."
    )


def now_us() -> int:
    """Unix time in microseconds."""
    return time.time_ns() // 1000


def _today() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d")
