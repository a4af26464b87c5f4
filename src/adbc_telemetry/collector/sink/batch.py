"""What a sink has read since its last commit."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from adbc_telemetry.collector.delta.rows import Log
from adbc_telemetry.collector.delta.table import Move

MOST_BYTES: Final = 64 * 1024 * 1024
"""Bytes of logs in a batch; making rows of them takes about twice as much again."""
MOST_LOGS: Final = 100_000


class Batch:
    """Logs, each id once, and how far each partition was read.

    Args:
        begins: for each partition, the offset in the table.
    """

    def __init__(self, begins: Mapping[int, int | None]) -> None:
        self.began: float | None = None
        """When the first record came, by `time.monotonic()`; None if none has come."""
        self.logs: list[Log] = []
        self.hashes: set[int] = set()
        """Of the ids of its logs."""
        self.oldest = float("inf")
        """When the oldest of its records came into Kafka, Unix time in seconds."""
        self.newest = 0.0
        """When the newest of them came."""
        self._begins = dict(begins)
        self._ends: dict[int, int] = {}
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether it is to be committed however young it is."""
        return self._bytes >= MOST_BYTES or len(self.logs) >= MOST_LOGS

    @property
    def moves(self) -> dict[int, Move]:
        """How far its commit moves each partition that was read."""
        return {partition: Move(self._begins[partition], end) for partition, end in self._ends.items()}

    def is_due(self, seconds: float) -> bool:
        """Whether its first record came so many seconds ago, or it is full."""
        if self.began is None:
            return False
        return self.is_full or time.monotonic() - self.began >= seconds

    def next_offset(self, partition: int) -> int | None:
        """The offset of the next record of a partition; None if any record may be the first one."""
        return self._ends.get(partition, self._begins[partition])

    def read(self, partition: int, offset: int, came: float) -> None:
        """Note that a record was read, whatever becomes of it.

        Args:
            partition: of the record.
            offset: of the record.
            came: when it came into Kafka, Unix time in seconds.
        """
        self.oldest = min(self.oldest, came)
        self.newest = max(self.newest, came)
        if self.began is None:
            self.began = time.monotonic()
        self._ends[partition] = offset + 1

    def add(self, number: int, log: Log) -> bool:
        """Add a log by the hash of its id; returns False if its event is in the batch already."""
        if number in self.hashes:
            return False
        self.hashes.add(number)
        self.logs.append(log)
        self._bytes += len(log.text)
        return True
