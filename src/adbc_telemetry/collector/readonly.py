"""A store or a table that this process only reads: for the page over it, while others may be writing it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence

from adbc_telemetry.collector.destination import AcceptedLog, Added, Health, NotDurableError
from adbc_telemetry.collector.queries.sources import open_source
from adbc_telemetry.collector.store.disk import measure, size_of
from adbc_telemetry.collector.store.layout import open_store
from adbc_telemetry.collector.store.writer import StoreHealth


class _ReadOnly:
    """Stands where a destination would, and takes no events."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.place = os.fspath(path)
        """The path or URI."""

    @property
    def largest_log(self) -> None:
        """None: it takes no log at all."""

    async def add(self, logs: Sequence[AcceptedLog], array: bytes | None = None) -> Added:
        """Events are for a collector.

        Raises:
            NotDurableError: always.
        """
        raise NotDurableError

    async def stop(self, timeout: float = 0.0) -> None:
        """There is nothing to stop."""


class ReadOnlyStore(_ReadOnly):
    """The folder of a store."""

    async def start(self) -> None:
        """See whether there is a store.

        Raises:
            StoreError: there is none.
        """
        self._folder = open_store(self.place)

    def health(self) -> Health:
        """The sizes; the counts are those of a process that takes no events."""
        size, free_bytes = measure(self._folder)
        return StoreHealth(
            problems=[],
            journal_bytes=sum(size_of(segment.path) for segment in self._folder.segments()),
            bytes=size,
            free_bytes=free_bytes,
            remembered_ids=0,
        )


class ReadOnlyTable(_ReadOnly):
    """A Delta table.

    Args:
        uri: a path, or a URI that `deltalake` knows.
        storage_options: for a table in an object store.
    """

    def __init__(self, uri: str | os.PathLike[str], storage_options: Mapping[str, str] | None = None) -> None:
        super().__init__(uri)
        self._storage_options = storage_options

    async def start(self) -> None:
        """See whether there is a table that can be read.

        Raises:
            DestinationError: there is none.
        """
        # An object store may take its time.
        await asyncio.get_running_loop().run_in_executor(None, open_source, self.place, self._storage_options)

    def health(self) -> Health:
        """All is well: whether the table can be read now, each question finds out."""
        return Health(problems=[])
