"""A store or a table that this process only reads: for the page over it, while another process may be writing it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from adbc_telemetry.collector.destination import AcceptedLog, Added, Health, NotDurableError
from adbc_telemetry.collector.store.disk import measure, size_of
from adbc_telemetry.collector.store.layout import open_store
from adbc_telemetry.collector.store.writer import StoreHealth


class ReadOnlyStore:
    """Stands where a `Store` would, and takes no events."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.place = os.fspath(path)
        """The folder."""

    @property
    def largest_log(self) -> None:
        """None: it takes no log at all."""

    async def start(self) -> None:
        """See whether there is a store.

        Raises:
            StoreError: there is none.
        """
        self._folder = open_store(self.place)

    async def stop(self, timeout: float = 0.0) -> None:
        """There is nothing to stop."""

    async def add(self, logs: Sequence[AcceptedLog], array: bytes | None = None) -> Added:
        """Events are for a collector.

        Raises:
            NotDurableError: always.
        """
        raise NotDurableError

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
