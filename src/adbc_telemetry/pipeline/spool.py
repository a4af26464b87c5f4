"""The spool: a folder for events that could not be delivered, until a process can deliver them.

Several processes may share the folder. It holds segments, each with events of one host, named so that sorting puts the
oldest first: `<time>-<host>-<random>.spool`. A record is a line: the checksum of a log, and the log as JSON. A process
that crashes in the middle of a line leaves a torn one: its checksum is wrong, or it does not end. It is never sent.

There are two kinds of file locks. The system releases those of a process that dies.

    the folder's    held while records are appended or old segments dropped, so that the bound is exact
    a segment's     held while it is appended to, dropped or sent, so that only one process sends each event
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from adbc_telemetry.core.diagnostics import Diagnostics, host_digits
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.native import sleep
from adbc_telemetry.events.encoding import LogEncoder
from adbc_telemetry.export.endpoints import normalize_endpoint
from adbc_telemetry.schema import TelemetryFrontendLog

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows: TelemetryConfiguration.validate() tells the user
    AVAILABLE = False
else:
    AVAILABLE = True

_SUFFIX: Final = ".spool"
_LARGEST_SEGMENT_BYTES: Final = 1024 * 1024
# A full spool has at least so many segments, so that only a small part of it is dropped to make room.
_SEGMENTS: Final = 16
_LOCK_SECONDS: Final = 0.5
_LOCK_POLL_SECONDS: Final = 0.002


class _SpoolBusyError(OSError):
    """Another process has held the folder's lock for too long."""


def _lost(error: Exception, spool: Spool, logs: Sequence[TelemetryFrontendLog]) -> int:
    spool.failed("written", error)
    return 0


def _nothing_to_claim(error: Exception, spool: Spool, *_: object) -> SpoolSegment | None:
    spool.failed("read", error)
    return None


class Spool:
    """The segments of one host, or of one of its tenants, in a folder.

    Args:
        directory: the folder. It is made when there is something to write, readable only for its owner.
        host: the host of the events, in any spelling.
        max_bytes: how large the folder may grow, with the segments of all hosts. Beyond that the oldest segments
            are dropped.
        diagnostics: gets failures, and how many events were written or dropped; None makes one for `host`.
        tenant: whose events these are, of several tenants of the host. They are sent by a process that has this
            tenant's client, so that they travel under its credentials; None has segments of its own, too.

    Attributes:
        dropped: events of any process that this one has dropped to make room, or has found torn.
        errors: how often the disk has failed.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        host: str,
        max_bytes: int,
        diagnostics: Diagnostics | None = None,
        tenant: object = None,
    ) -> None:
        self._directory = os.fspath(directory)
        owner = normalize_endpoint(host) if tenant is None else f"{normalize_endpoint(host)} {tenant!r}"
        self._host = host_digits(owner)
        self.diagnostics = diagnostics or Diagnostics(normalize_endpoint(host))
        self._max_bytes = max_bytes
        self._segment_bytes = max(1, min(_LARGEST_SEGMENT_BYTES, max_bytes // _SEGMENTS))
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """Start the counts anew: the parent reports what the parent has done."""
        self.dropped = 0
        self.errors = 0
        self._written = 0
        self._not_written = 0
        self._untold_failure: tuple[str, str] | None = None

    def append(self, logs: Sequence[TelemetryFrontendLog]) -> int:
        """Write `logs`. Never raises.

        Returns:
            How many of them are safe now: fewer than all if the disk is full or read-only, say.
        """
        written = self._append(logs)
        self._written += written
        self._not_written += len(logs) - written
        self.tell()
        return written

    def failed(self, what: str, error: BaseException) -> None:
        """Count an error, and remember its class and the system's name for it.

        Args:
            what: what could not be done with the spool: "written", "read" or "replayed".
            error: what was raised.
        """
        self.errors += 1
        code = errno.errorcode.get(error.errno or 0) if isinstance(error, OSError) else None
        kind = type(error).__name__ if code is None else f"{type(error).__name__} {code}"
        reason = self.diagnostics.failed(None, f"the spool could not be {what}: {kind}")
        self._untold_failure = f"spool {what}", reason

    def tell(self) -> None:
        """Log what has happened since the last call. Don't call it with any lock: handlers of the log may block."""
        diagnostics = self.diagnostics
        failure, self._untold_failure = self._untold_failure, None
        if failure is not None:
            diagnostics.tell(*failure)
        diagnostics.tell_count("spool written", self._written, "written to the spool")
        diagnostics.tell_count("spool full", self._not_written, "that could not be written to the spool")
        diagnostics.tell_count("spool dropped", self.dropped, "dropped from the spool, old ones or torn ones")

    @never_raises(_lost)
    def _append(self, logs: Sequence[TelemetryFrontendLog]) -> int:
        records = [_record(line) for line in LogEncoder().encode_lines(logs) if line is not None]
        if not records:
            return 0
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        with self._locked_folder():
            return sum(self._append_run(run) for run in _runs(records, self._segment_bytes))

    def claim(self) -> SpoolSegment | None:
        """The oldest segment that can be read and that no other process has locked, or None. Never raises."""
        segment = self._claim()
        self.tell()
        return segment

    @never_raises(_nothing_to_claim)
    def _claim(self) -> SpoolSegment | None:
        for name, _ in self._segments():
            if self._host in name:
                # Guarded one by one, so that a segment that cannot be read does not block those after it.
                segment = self._claim_one(os.path.join(self._directory, name))
                if segment is not None:
                    return segment
        return None

    @never_raises(_nothing_to_claim)
    def _claim_one(self, path: str) -> SpoolSegment | None:
        descriptor = _open_locked(path)
        if descriptor is None:
            return None
        segment = SpoolSegment(self, path, descriptor)
        loaded = False
        try:
            loaded = segment.load()
        finally:
            if not loaded:
                segment.release()  # else its lock would keep it from being claimed again
        return segment if loaded else None

    def _segments(self) -> list[tuple[str, int]]:
        """Names and sizes in bytes of all segments, the oldest first."""
        segments = []
        try:
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    if entry.name.endswith(_SUFFIX):
                        with contextlib.suppress(
                            FileNotFoundError
                        ):  # another process has just sent or dropped it
                            segments.append((entry.name, entry.stat(follow_symlinks=False).st_size))
        except FileNotFoundError:
            return []
        return sorted(segments)

    def _append_run(self, records: list[bytes]) -> int:
        """Write records that fit into one segment; return how many were written. Called with the folder's lock."""
        data = b"".join(records)
        segments = self._make_room(len(data))
        if segments is None:
            return 0
        path, descriptor = self._open_for_append(segments, len(data))
        try:
            start = _end_of_records(descriptor)
            try:
                _write_all(descriptor, data)
            except OSError as error:
                self.failed("written", error)
                os.ftruncate(descriptor, start)
                if not start:
                    os.unlink(path)
                return 0
            return len(records)
        finally:
            os.close(descriptor)

    def _make_room(self, size: int) -> list[tuple[str, int]] | None:
        """Drop the oldest segments until `size` bytes fit.

        Returns:
            The segments that are left; None if the bytes do not fit even so.
        """
        segments = self._segments()
        total = sum(size for _, size in segments)
        kept = []
        for name, segment_size in segments:
            if total + size > self._max_bytes and self._drop(os.path.join(self._directory, name)):
                total -= segment_size
            else:
                kept.append((name, segment_size))
        return kept if total + size <= self._max_bytes else None

    def _drop(self, path: str) -> bool:
        descriptor = _open_locked(path)
        if descriptor is None:
            return False  # it is being sent
        try:
            self.dropped += sum(line is not None for _, line in _read_records(descriptor))
            os.unlink(path)
        finally:
            os.close(descriptor)
        return True

    def _open_for_append(self, segments: list[tuple[str, int]], size: int) -> tuple[str, int]:
        """The newest segment of the host if it has room and is not being sent, else a new one; locked."""
        mine = [segment for segment in segments if self._host in segment[0]]
        if mine and mine[-1][1] + size <= self._segment_bytes:
            path = os.path.join(self._directory, mine[-1][0])
            descriptor = _open_locked(path)
            if descriptor is not None:
                return path, descriptor
        name = f"{time.time_ns():020d}-{self._host}-{secrets.token_hex(4)}{_SUFFIX}"
        path = os.path.join(self._directory, name)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
        return path, descriptor

    @contextlib.contextmanager
    def _locked_folder(self) -> Iterator[None]:
        path = os.path.join(self._directory, "lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            give_up = time.monotonic() + _LOCK_SECONDS
            while not _try_lock(descriptor):
                if time.monotonic() > give_up:  # the process that holds it may be stopped
                    raise _SpoolBusyError
                sleep(_LOCK_POLL_SECONDS)
            yield
        finally:
            os.close(descriptor)


class SpoolSegment:
    """A segment that this process has locked, to send it.

    Batches are taken from its end, because a file can be cut there in one step. After a crash the next process finds
    what has not been cut off.
    """

    def __init__(self, spool: Spool, path: str, descriptor: int) -> None:
        self._spool = spool
        self._path = path
        # None once it is closed: the number may then belong to another file.
        self._descriptor: int | None = descriptor
        self._records: list[tuple[int, TelemetryFrontendLog]] = []  # each with the offset at which it begins

    def load(self) -> bool:
        """Read the file; if nothing in it can be sent, delete it and return False."""
        for offset, line in _read_records(self._open_descriptor()):
            try:
                self._records.append((offset, msgspec.json.decode(line or b"", type=TelemetryFrontendLog)))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self._spool.dropped += 1  # torn, or written by another version of this package
        if not self._records:
            self._remove()
        return bool(self._records)

    def last(self, count: int) -> list[TelemetryFrontendLog]:
        """The newest `count` events, or fewer if no more are left."""
        return [log for _, log in self._records[-count:]]

    def cut(self, count: int) -> bool:
        """Cut off the newest `count` events; if none is left, delete the file and return False."""
        offset = self._records[-count][0]
        del self._records[-count:]
        if self._records:
            os.ftruncate(self._open_descriptor(), offset)
            return True
        self._remove()
        return False

    def release(self) -> None:
        """Unlock the file, and leave what is in it to the next process. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise ValueError("the segment has been released")
        return self._descriptor

    def _remove(self) -> None:
        try:
            os.unlink(self._path)
        finally:
            self.release()


def _record(line: bytes) -> bytes:
    return b"%08x %b\n" % (zlib.crc32(line), line)


def _runs(records: Sequence[bytes], max_bytes: int) -> Iterator[list[bytes]]:
    run: list[bytes] = []
    size = 0
    for record in records:
        if run and size + len(record) > max_bytes:
            yield run
            run, size = [], 0
        run.append(record)
        size += len(record)
    yield run


def _read_all(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    data = bytearray()
    while len(data) < size and (piece := os.pread(descriptor, size - len(data), len(data))):
        data += piece
    return bytes(data)


def _read_records(descriptor: int) -> Iterator[tuple[int, bytes | None]]:
    """The offset of each record, with its log as JSON, or None if the record is torn."""
    offset = 0
    for line in _read_all(descriptor).splitlines(keepends=True):
        yield offset, line[9:-1] if _is_whole(line) else None
        offset += len(line)


def _is_whole(line: bytes) -> bool:
    return line.endswith(b"\n") and line[:9] == b"%08x " % zlib.crc32(line[9:-1])


def _end_of_records(descriptor: int) -> int:
    """The size of the file, after cutting off a line that does not end: a crash has left it."""
    size = os.fstat(descriptor).st_size
    if not size or os.pread(descriptor, 1, size - 1) == b"\n":
        return size
    end = _read_all(descriptor).rfind(b"\n") + 1
    os.ftruncate(descriptor, end)
    return end


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _open_locked(path: str) -> int | None:
    """A descriptor with the segment's lock; None if another process has it, or the segment is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW)
    except OSError:
        return None  # gone, or another user's
    locked = False
    try:
        locked = _try_lock(descriptor) and os.fstat(descriptor).st_nlink > 0
    finally:
        if not locked:
            os.close(descriptor)
    return descriptor if locked else None


def _try_lock(descriptor: int) -> bool:
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True
