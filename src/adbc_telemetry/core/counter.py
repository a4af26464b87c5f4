"""A counter that any thread, destructor or signal handler may advance and read without a lock."""

from __future__ import annotations

import itertools


class AtomicCounter:
    """Counts with `itertools.count`, whose `next` is one indivisible step.

    So is its representation, `count(7)`, which tells the number and takes no step. A lock would not do: a signal
    handler that has interrupted a reader may wait for another thread that reads.
    """

    __slots__ = ("_steps", "increment")

    def __init__(self) -> None:
        self._steps = itertools.count()
        self.increment = self._steps.__next__

    def value(self) -> int:
        """How often `increment` has been called."""
        return int(repr(self._steps)[len("count(") : -len(")")])
