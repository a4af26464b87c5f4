"""Which Parquet files are too old, or too many. Whole files are deleted, the oldest first."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from adbc_telemetry.collector.store.layout import StoreFolder

DEFAULT_MAX_SECONDS: Final = 30 * 86_400.0
DEFAULT_MAX_BYTES: Final = 10_000_000_000


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how much a store keeps."""

    max_seconds: float = DEFAULT_MAX_SECONDS
    """A file is deleted when its newest event is older."""
    max_bytes: int = DEFAULT_MAX_BYTES
    """The oldest files are deleted while the store holds more."""


def files_to_delete(folder: StoreFolder, retention: Retention, now: float) -> list[Path]:
    """The files that the retention deletes.

    Args:
        folder: the store.
        retention: what it keeps.
        now: Unix time in seconds.
    """
    sizes = []
    for file in folder.data_files():
        try:
            found = file.path.stat()
        except FileNotFoundError:
            continue
        # A file is written when its newest event has just come.
        sizes.append((file.path, found.st_size, found.st_mtime))
    total = sum(size for _, size, _ in sizes)
    for segment in folder.segments():
        try:
            total += segment.path.stat().st_size
        except FileNotFoundError:
            continue
    doomed = []
    for path, size, written in sizes:
        if written < now - retention.max_seconds or total > retention.max_bytes:
            doomed.append(path)
            total -= size
    return doomed
