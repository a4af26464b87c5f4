"""The two threads that wait for the disk, so that the event loop need not."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from adbc_telemetry.collector.store.layout import StoreFolder

T = TypeVar("T")


class Disk:
    """One thread for the journal, on which calls follow one another, and any thread for all else."""

    def __init__(self) -> None:
        self._journal = ThreadPoolExecutor(1, thread_name_prefix="adbc-telemetry-disk")

    async def in_order(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function after all earlier ones of this kind."""
        return await asyncio.get_running_loop().run_in_executor(self._journal, function, *arguments)

    def close(self) -> None:
        """Wait for what is under way."""
        self._journal.shutdown(wait=True)


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function on any thread."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)


def measure(folder: StoreFolder) -> tuple[int, int]:
    """Bytes of the events, and free bytes of the disk."""
    files = [file.path for file in folder.data_files()] + [segment.path for segment in folder.segments()]
    return sum(map(size_of, files)), free_bytes(folder.path)


def size_of(path: Path) -> int:
    """Bytes of a file; 0 if it was just deleted."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def free_bytes(path: Path) -> int:
    """Free bytes of a path's disk; 0 if they are not known."""
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0


def unlink_all(paths: Sequence[Path]) -> None:
    """Delete files that may be gone already."""
    for path in paths:
        path.unlink(missing_ok=True)
