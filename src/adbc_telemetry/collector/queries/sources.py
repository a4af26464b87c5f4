"""What questions are asked of: the folder of a store, or a Delta table."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

import duckdb

from adbc_telemetry.collector.store.layout import StoreFolder, open_store
from adbc_telemetry.collector.store.snapshot import Snapshot, read_consistently, take_snapshot

T = TypeVar("T")


class EventSource(Protocol):
    """Events that may grow while they are read."""

    @property
    def rollups(self) -> Path:
        """The folder where rollups are kept. If it cannot be written, they are kept in memory."""

    def snapshot(self, connection: duckdb.DuckDBPyConnection) -> Snapshot:
        """What it holds now."""

    def read(self, connection: duckdb.DuckDBPyConnection, query: Callable[[Snapshot], T]) -> T:
        """The result of a query over a snapshot that stayed as it was meanwhile.

        Raises:
            duckdb.Error: the query fails, or a file is damaged.
        """


class StoreSource:
    """The folder of a store."""

    def __init__(self, folder: StoreFolder) -> None:
        self._folder = folder
        self.rollups = folder.rollups

    def snapshot(self, connection: duckdb.DuckDBPyConnection) -> Snapshot:
        """See `EventSource`."""
        return take_snapshot(self._folder, connection)

    def read(self, connection: duckdb.DuckDBPyConnection, query: Callable[[Snapshot], T]) -> T:
        """See `EventSource`."""
        return read_consistently(self._folder, connection, query)


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a path or URI is that of a Delta table, and not of a store."""
    text = os.fspath(path)
    return "://" in text or os.path.isdir(os.path.join(text, "_delta_log"))


def open_source(
    path: str | os.PathLike[str], storage_options: Mapping[str, str] | None = None
) -> EventSource:
    """The events at a path or URI.

    Args:
        path: the folder of a store, or a Delta table.
        storage_options: for a table in an object store, as `deltalake` takes them.

    Raises:
        DestinationError: there are none.
    """
    if not is_table(path):
        return StoreSource(open_store(path))
    try:
        from adbc_telemetry.collector.delta.reading import TableSource
    except ImportError as error:
        from adbc_telemetry.collector.destination import DestinationError

        raise DestinationError(
            f"{os.fspath(path)} is a Delta table, and {error.name} is missing; install adbc-telemetry[delta]."
        ) from error
    return TableSource(os.fspath(path), storage_options)
