"""A counter that any thread, destructor or signal handler may advance without a lock."""

from __future__ import annotations

import itertools

from adbc_telemetry.native import RLock


class AtomicCounter:
    """Counts with `itertools.count`, whose `next` is one indivisible step.

    Reading takes a step too, which a second counter takes back.
    """

    __slots__ = ("_lock", "_reads", "_steps", "increment")

    def __init__(self) -> None:
        self._steps = itertools.count()
        self._reads = itertools.count()
        self._lock = RLock()  # readers among themselves
        self.increment = self._steps.__next__

    def value(self) -> int:
        """How often `increment` has been called."""
        with self._lock:
            return next(self._steps) - next(self._reads)
