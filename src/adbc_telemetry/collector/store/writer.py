"""The store's writer: acknowledges events once they are durable, and moves them on into Parquet files.

Everything here runs on the event loop. What touches the disk runs on one thread (`_disk`), or in the compacting
process.

    a request's events       known ids are left out; the others join the group that gathers
    the group                when the last group is durable, the gathered one is written: one write, one fdatasync
    its end                  durable: its ids are remembered, its requests acknowledged; failed: neither, and 503
    closed segments          become Parquet files, together with the newest file of the day while that one is small
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import msgspec

from adbc_telemetry.collector.store.journal import SEGMENT_BYTES, Journal, cut_incomplete_line
from adbc_telemetry.collector.store.layout import (
    DataFile,
    Segment,
    StoreError,
    StoreFolder,
    create_store,
    locked,
)
from adbc_telemetry.collector.store.recent_ids import WINDOW_SECONDS, Generation, RecentIds, hash_id
from adbc_telemetry.collector.store.retention import Retention, files_to_delete
from adbc_telemetry.collector.workers import WorkerError, WorkerProcess

_TICK_SECONDS: Final = 0.25
_FIRST_FLUSH_SECONDS: Final = 2.0
"""Events are in a Parquet file after that, while the day's newest file is small."""
_LAST_FLUSH_SECONDS: Final = 60.0
_ROWS_PER_SECOND: Final = 10_000
"""Each second of waiting allows so many rows of the newest file to be written once more."""
_SEALED_ROWS: Final = 400_000
_COMPACTED_TOGETHER: Final = 4
"""Closed segments that are compacted at once, without waiting: 64 MB."""
_MOST_TOGETHER: Final = 8
_COMPACTION_TIMEOUT: Final = 120.0
_RETRY_SECONDS: Final = 5.0
_RETENTION_SECONDS: Final = 10.0
_ROTATE_IDS_SECONDS: Final = 600.0
_COMMIT_US: Final = 120 * 1_000_000
"""More than the time from an event's arrival to the end of its commit."""
_COMPACTOR: Final = "adbc_telemetry.collector.store.compaction"

_logger = logging.getLogger(__name__)
T = TypeVar("T")


class AcceptedLog(Protocol):
    """A log that the intake has accepted."""

    @property
    def event_id(self) -> str:
        """At most 128 characters."""

    @property
    def text(self) -> str:
        """JSON, as it came."""

    @property
    def canonical(self) -> bytes | None:
        """JSON in the wire's own form, if `text` is in another."""


class StoreUnavailableError(Exception):
    """The events are not durable. Their sender keeps them and tries again."""


class Added(NamedTuple):
    """What became of the events of one request; all of them are durable."""

    new: int
    duplicates: int


class StoreHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How the store is doing."""

    problems: list[str]
    """A sentence each; empty if all is well."""
    events: int
    """Written since the start."""
    duplicates: int
    """Left out since the start, because they were known."""
    failed_requests: int
    newest_commit_age_seconds: float | None
    journal_bytes: int
    """Not yet in Parquet files."""
    bytes: int
    free_bytes: int
    remembered_ids: int


class _Group:
    """The events of the requests that become durable together."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.hashes: list[int] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # A request may be given up while it waits; then the group's error has no reader, which is no fault.
        self.done.add_done_callback(lambda done: done.cancelled() or done.exception())


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
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="adbc-telemetry-disk")
        self._pending: dict[int, _Group] = {}  # ids that are on their way to the disk
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._stop: asyncio.Future[None] | None = None
        self._closed_segments: list[Segment] = []
        self._oldest_closed_at = 0.0  # when the first event of the closed segments came, or a little later
        self._newest: DataFile | None = None  # the Parquet file that may still grow
        self._newest_rows = 0
        self._compaction_failed_at: float | None = None
        self._commit_error: OSError | None = None
        self._last_commit: float | None = None
        self._ids_rotated = time.monotonic()
        self._rotation: asyncio.Task[None] | None = None
        self._events = self._duplicates = self._failed = 0
        self._measured = (0, 0)  # bytes of the store, free bytes of its disk
        self._next_retention = 0.0
        self._quiet_until: dict[str, float] = {}

    async def start(self) -> None:
        """Open the store, and take up what an earlier process left.

        Raises:
            StoreError: the folder cannot be used.
        """
        try:
            await self._start()
        except BaseException as error:
            await _in_thread(self._close)
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
        self._stopping = True
        if self._stop is None:
            self._stop = asyncio.ensure_future(self._write_the_rest(time.monotonic() + timeout))
        await asyncio.shield(self._stop)

    async def add(self, logs: Sequence[AcceptedLog]) -> Added:
        """Make the events of one request durable, each id once.

        Raises:
            StoreUnavailableError: the disk is full or fails, or the store is stopping.
        """
        if self._stopping:
            raise StoreUnavailableError
        group = self._group
        head = b'{"received_us":%d,"log":' % _now_us()
        hashes = [hash_id(log.event_id) for log in logs]
        known = self._ids.known(hashes)
        waits_for = set()
        new = 0
        for number, log in zip(hashes, logs, strict=True):
            if number in known:
                continue
            under_way = self._pending.get(number)
            if under_way is not None:
                waits_for.add(under_way)  # it was sent twice; it is not durable before the first one is
                continue
            self._pending[number] = group
            group.hashes.append(number)
            canonical = b"" if log.canonical is None else b',"canonical":' + log.canonical
            group.lines.append(head + _encode(log.text) + canonical + b"}\n")
            new += 1
        if new:
            waits_for.add(group)
            self._wake.set()
        for each in waits_for:
            # Shielded: a request that is given up must not cancel the others of its group.
            await asyncio.shield(each.done)
        self._duplicates += len(hashes) - new
        return Added(new, len(hashes) - new)

    def health(self) -> StoreHealth:
        """How the store is doing now."""
        now = time.monotonic()
        problems = []
        if self._commit_error is not None:
            problems.append(_explain(self._commit_error, self.path, self._measured[1]))
        if self._compaction_failed_at is not None:
            problems.append("Events are durable, but cannot be written as Parquet files at the moment.")
        if not self._stopping and any(task.done() for task in self._tasks):
            problems.append("The writer has ended; restart the collector.")
        journal = sum(_size(segment.path) for segment in self._closed_segments)
        return StoreHealth(
            problems=problems,
            events=self._events,
            duplicates=self._duplicates,
            failed_requests=self._failed,
            newest_commit_age_seconds=None if self._last_commit is None else now - self._last_commit,
            journal_bytes=journal + self._journal.length,
            bytes=self._measured[0],
            free_bytes=self._measured[1],
            remembered_ids=len(self._ids),
        )

    # --- opening and closing

    async def _start(self) -> None:
        # The lock waits for a moment, and the rest reads files: not on the loop.
        await self._on_disk(self._open)
        files = await self._on_disk(self._folder.data_files)
        last = 0
        if files:
            self._newest = files[-1]
            self._newest_rows, last = await self._compactor.call(
                tuple[int, int], "describe", timeout=_COMPACTION_TIMEOUT, path=str(self._newest.path)
            )
        await self._on_disk(self._take_over, last)
        if self._newest is not None or self._closed_segments:
            await self._remember_ids()
        self._group = _Group()
        self._tasks = [asyncio.create_task(self._commit_groups()), asyncio.create_task(self._look_after())]

    async def _write_the_rest(self, deadline: float) -> None:
        self._wake.set()
        try:
            if self._tasks:
                await asyncio.gather(*self._tasks)
                if self._rotation is not None:
                    await self._rotation
                with contextlib.suppress(OSError):
                    await self._close_segment()
                await self._compact_the_rest(deadline)
                await self._rotate_ids()
        finally:
            await _in_thread(self._close)

    def _open(self) -> None:
        self._folder = create_store(self.path)
        with contextlib.ExitStack() as undo:
            lock = undo.enter_context(locked(self._folder))
            self._compactor = WorkerProcess(_COMPACTOR, [str(self.path)], niceness=10, inherited=lock)
            undo.callback(self._compactor.close)
            self._undo = undo.pop_all()

    def _take_over(self, last: int) -> None:
        for leftover in self._folder.tmp.iterdir():
            leftover.unlink()
        segments = self._folder.segments()
        for segment in segments:
            if segment.number <= last:
                segment.path.unlink()  # a process ended between the two steps of a compaction
            else:
                cut_incomplete_line(segment)
                self._closed_segments.append(segment)
        numbers = [segment.number for segment in segments]
        self._journal = Journal(self._folder, max([last, *numbers]) + 1)
        self._ids = RecentIds(self._folder)
        self._measured = measure(self._folder)

    async def _remember_ids(self) -> None:
        complete_until = await self._on_disk(self._ids.load)
        self._ids.forget_old(_now_us())
        # Events that were on their way to the disk when a generation was closed are not in it.
        since = max(complete_until - _COMMIT_US, _now_us() - WINDOW_SECONDS * 1_000_000)
        target = self._folder.tmp / "recent.ids"
        await self._compactor.call(
            int, "collect_ids", timeout=_COMPACTION_TIMEOUT, since_us=since, target=str(target)
        )
        self._ids.add_file(target)
        target.unlink()

    def _close(self) -> None:
        self._undo.close()
        self._disk.shutdown(wait=True)

    # --- becoming durable

    async def _commit_groups(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            group, self._group = self._group, _Group()
            if group.lines:
                await self._commit(group)
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
                await self._close_segment()
            await self._on_disk(self._journal.commit, group.lines, day)
        except OSError as error:
            self._failed += 1
            self._commit_error = error
            self._log_rarely("commit", _explain(error, self.path, _measure_free(self.path)))
            self._forget_pending(group)
            group.done.set_exception(StoreUnavailableError())
        else:
            if self._commit_error is not None:
                self._commit_error = None
                _logger.warning("%s can be written again.", self.path)
            self._last_commit = time.monotonic()
            self._events += len(group.lines)
            self._ids.add(group.hashes)
            self._forget_pending(group)
            group.done.set_result(None)
            self._rotate_ids_when_full()

    def _forget_pending(self, group: _Group) -> None:
        for number in group.hashes:
            del self._pending[number]

    async def _close_segment(self) -> None:
        opened_at = self._journal.opened_at
        segment = await self._on_disk(self._journal.close_segment)
        if segment is not None:
            if not self._closed_segments:
                self._oldest_closed_at = opened_at
            self._closed_segments.append(segment)

    # --- remembering ids

    def _rotate_ids_when_full(self) -> None:
        due = self._ids.is_full or time.monotonic() - self._ids_rotated > _ROTATE_IDS_SECONDS
        if due and (self._rotation is None or self._rotation.done()):
            self._rotation = asyncio.create_task(self._rotate_ids())

    async def _rotate_ids(self) -> None:
        self._ids_rotated = time.monotonic()
        newest_us = _now_us()
        hashes = self._ids.begin_generation()
        if hashes is None:
            return
        generation: Generation | None = None
        # On a full disk the ids stay in memory. The log tells of it where events are written.
        with contextlib.suppress(OSError):
            generation = await _in_thread(self._ids.write_generation, hashes, newest_us)
        self._ids.end_generation(generation)
        small = self._ids.small_generations()
        if small:
            with contextlib.suppress(OSError):  # they stay apart until the next time
                self._ids.replace(small, await _in_thread(self._ids.merge, small))
        self._ids.forget_old(_now_us())

    # --- moving on into Parquet files

    async def _look_after(self) -> None:
        while not self._stopping:
            await asyncio.sleep(_TICK_SECONDS)
            try:
                await self._close_old_segment()
                if self._is_compaction_due():
                    await self._compact()
                await self._retain()
            except Exception as error:  # noqa: BLE001 - the next tick tries again; only the class: texts may quote events
                self._log_rarely("care", f"cannot look after {self.path}: {type(error).__name__}")

    async def _close_old_segment(self) -> None:
        age = time.monotonic() - self._journal.opened_at
        # A commit may be under way on the disk's thread; it is waited for there, and then the segment is closed.
        if self._journal.length and age >= self._flush_seconds() and self._commit_error is None:
            await self._close_segment()

    def _flush_seconds(self) -> float:
        """How long events wait in the journal: the larger the newest file, the longer, since it is written anew."""
        return min(_LAST_FLUSH_SECONDS, max(_FIRST_FLUSH_SECONDS, self._newest_rows / _ROWS_PER_SECOND))

    def _is_compaction_due(self) -> bool:
        if not self._closed_segments:
            return False
        now = time.monotonic()
        if self._compaction_failed_at is not None:
            return now - self._compaction_failed_at >= _RETRY_SECONDS
        waited = now - self._oldest_closed_at >= self._flush_seconds()
        return waited or len(self._closed_segments) >= _COMPACTED_TOGETHER

    async def _compact(self) -> None:
        """Turn the oldest closed segments of one day into a Parquet file."""
        if self._compaction_failed_at is not None:
            await self._pass_over_compacted()
            if not self._closed_segments:
                return
        day = self._closed_segments[0].day
        # Only up to the first one of another day: a clock that is set back must not pass over what lies between.
        segments = list(
            itertools.takewhile(lambda each: each.day == day, self._closed_segments[:_MOST_TOGETHER])
        )
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
                timeout=_COMPACTION_TIMEOUT,
                segments=[(each.number, str(each.path)) for each in segments],
                target=str(target.path),
            )
        except WorkerError as error:
            self._compaction_failed_at = time.monotonic()
            self._log_rarely("compaction", f"cannot write Parquet files in {self.path} ({error}).")
            return
        if damaged:
            _logger.error("Some lines of the journal in %s could not be read and are left out.", self.path)
        self._compaction_failed_at = None
        self._newest, self._newest_rows = target, rows
        # The file is in its place, and names its last segment: from here on readers pass these segments over.
        del self._closed_segments[: len(segments)]
        self._oldest_closed_at = time.monotonic()
        await self._on_disk(_unlink_all, [each.path for each in segments])

    async def _pass_over_compacted(self) -> None:
        """After a failure: the process may have ended between its work and its answer.

        The same segments may get another target now, so that its own look at the target does not find them.
        """
        if self._newest is None:
            return
        try:
            self._newest_rows, last = await self._compactor.call(
                tuple[int, int], "describe", timeout=_COMPACTION_TIMEOUT, path=str(self._newest.path)
            )
        except WorkerError:
            self._newest = None  # it cannot be read: nothing is merged into it
            return
        done = [each for each in self._closed_segments if each.number <= last]
        self._closed_segments = [each for each in self._closed_segments if each.number > last]
        if not self._closed_segments:
            self._compaction_failed_at = None
        await self._on_disk(_unlink_all, [each.path for each in done])

    async def _compact_the_rest(self, deadline: float) -> None:
        while self._closed_segments and self._compaction_failed_at is None:
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
        self._next_retention = time.monotonic() + _RETENTION_SECONDS
        self._measured, deleted = await _in_thread(self._delete_old_files)
        if self._newest is not None and self._newest.path in deleted:
            self._newest, self._newest_rows = None, 0

    def _delete_old_files(self) -> tuple[tuple[int, int], list[Path]]:
        doomed = files_to_delete(self._folder, self._retention, time.time())
        _unlink_all(doomed)
        for path in doomed:
            with contextlib.suppress(OSError):
                path.parent.rmdir()  # when it was the day's last one
        return measure(self._folder), doomed

    # --- small things

    async def _on_disk(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, function, *arguments)

    def _log_rarely(self, subject: str, sentence: str) -> None:
        now = time.monotonic()
        if now >= self._quiet_until.get(subject, 0.0):
            self._quiet_until[subject] = now + 60.0
            _logger.error("%s", sentence)


_encode: Final = msgspec.json.Encoder().encode


async def _in_thread(function: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)


def _now_us() -> int:
    return time.time_ns() // 1000


def _today() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def measure(folder: StoreFolder) -> tuple[int, int]:
    """Bytes of the events, and free bytes of the disk."""
    files = [file.path for file in folder.data_files()] + [segment.path for segment in folder.segments()]
    return sum(map(_size, files)), _measure_free(folder.path)


def _measure_free(path: Path) -> int:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0


def _unlink_all(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _explain(error: OSError, path: Path, free: int) -> str:
    return (
        f"Events cannot be written to {path}: {error.strerror or type(error).__name__}, with {free // 1_000_000} MB "
        "free. Senders keep their events and try again; make room, or lower --max-size."
    )
