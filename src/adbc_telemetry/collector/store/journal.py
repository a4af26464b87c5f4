"""The journal: events go into it before their request is acknowledged.

A group of requests is one write and one `fdatasync`. All methods are called by one thread at a time.

    closed       no segment is open; the next commit opens one
    open         the segment ends where the last commit ended
    torn         a commit failed half-way; before anything else the segment is cut back to its last commit
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from typing import Final

from adbc_telemetry.collector.store.layout import Segment, StoreFolder, fsync_folder

SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""A segment that is longer is closed."""
_BLOCK: Final = 64 * 1024


class Journal:
    """The segment that is being written.

    Args:
        folder: the store; this process holds its lock.
        next_number: the number of the next segment.
    """

    def __init__(self, folder: StoreFolder, next_number: int) -> None:
        self._folder = folder
        self._next_number = next_number
        self._descriptor: int | None = None
        self._torn = False
        self.segment: Segment | None = None
        self.length = 0
        """Bytes in the segment that are durable."""
        self.opened_at = 0.0
        """When the segment was opened, by `time.monotonic()`."""

    def commit(self, lines: Sequence[bytes], day: str) -> None:
        """Append lines durably. When it raises, none of them is in the journal.

        Raises:
            OSError: the disk is full, or fails.
        """
        if self._descriptor is None:
            self._open(day)
        assert self._descriptor is not None
        if self._torn:
            self._cut()
        content = b"".join(lines)
        try:
            _write(self._descriptor, content)
            _sync(self._descriptor)
        except OSError:
            self._torn = True
            # What was written of it must not be read as events: their senders will send them again.
            with contextlib.suppress(OSError):
                self._cut()
            raise
        self.length += len(content)

    def close_segment(self) -> Segment | None:
        """Close the segment; returns it, or None if there was none.

        Raises:
            OSError: it is torn and cannot be cut back yet.
        """
        segment = self.segment
        if self._descriptor is None or segment is None:
            return None
        if self._torn:
            self._cut()
        os.close(self._descriptor)
        self._descriptor = self.segment = None
        self.length = 0
        return segment

    def _open(self, day: str) -> None:
        segment = self._folder.segment(self._next_number, day)
        self._descriptor = os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._next_number += 1
        self.segment = segment
        self.length = 0
        self.opened_at = time.monotonic()
        fsync_folder(segment.path.parent)

    def _cut(self) -> None:
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, self.length)
        os.lseek(self._descriptor, self.length, os.SEEK_SET)
        _sync(self._descriptor)
        self._torn = False


def cut_incomplete_line(segment: Segment) -> None:
    """Remove what a process that was killed left behind the last complete line. It was not acknowledged."""
    with open(segment.path, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        position = end
        while position > 0:
            start = max(0, position - _BLOCK)
            file.seek(start)
            found = file.read(position - start).rfind(b"\n")
            if found >= 0:
                position = start + found + 1
                break
            position = start
        if position < end:
            file.truncate(position)
            file.flush()
            os.fsync(file.fileno())


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync(descriptor: int) -> None:
    # macOS and Windows have no fdatasync.
    getattr(os, "fdatasync", os.fsync)(descriptor)
