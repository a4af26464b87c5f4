"""Which event ids are in the table since a while, so that an event that a client sent again is kept once.

A client sends an event again when its request was not answered 200. Whichever collector takes it, it comes into the
partition where it was before (see `kafka.records`). So the sink that owns the partition has seen the first one, or its
predecessor has, and then the table holds it.

The window is one of the records' time, not of the clock's: a sink that is days behind knows the ids of the hour before
the records that it reads. Ids are hashed to 64 bits, as in the folder store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from adbc_telemetry.collector.store.recent_ids import Hashes, hash_id

_MOST_NEWEST: Final = 100_000
"""Ids in the set; then they become a sorted array, of 8 bytes each."""


class RecentEvents:
    """The ids of a window of time.

    Args:
        seconds: its length.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._newest: set[int] = set()
        self._newest_until = 0.0  # when the newest of them came, Unix time
        self._older: list[tuple[float, Hashes]] = []  # likewise

    def __len__(self) -> int:
        return len(self._newest) + sum(len(hashes) for _, hashes in self._older)

    @property
    def seconds(self) -> float:
        """The window's length."""
        return self._seconds

    def known(self, hashes: Sequence[int]) -> set[int]:
        """Those of some ids that are in the window."""
        found = self._newest.intersection(hashes)
        wanted = np.array(hashes, dtype=np.uint64)
        for _, older in self._older:
            places = np.minimum(np.searchsorted(older, wanted), len(older) - 1)
            found.update(wanted[older[places] == wanted].tolist())
        return found

    def add(self, hashes: Iterable[int], oldest: float, newest: float) -> None:
        """Remember ids that are in the table from now on, and forget those of before the window.

        Args:
            hashes: of the ids.
            oldest: when the oldest of their records came, Unix time in seconds.
            newest: when the newest of them came.
        """
        self._newest.update(hashes)
        self._newest_until = max(self._newest_until, newest)
        if len(self._newest) >= _MOST_NEWEST:
            self._keep(np.fromiter(self._newest, dtype=np.uint64), self._newest_until)
            self._newest = set()
        begin = oldest - self._seconds
        self._older = [(until, older) for until, older in self._older if until >= begin]

    def replace(self, event_ids: Iterable[Iterable[str]], newest: float) -> None:
        """Forget all, and remember the ids that the table holds; they come in pieces.

        Args:
            event_ids: the ids.
            newest: when the newest of them came, Unix time in seconds, or later.
        """
        self._newest = set()
        self._newest_until = 0.0
        self._older = []
        pieces = [np.array([hash_id(each) for each in piece], dtype=np.uint64) for piece in event_ids]
        if any(map(len, pieces)):
            self._keep(np.concatenate(pieces), newest)

    def _keep(self, hashes: Hashes, until: float) -> None:
        hashes.sort()
        self._older.append((until, hashes))
