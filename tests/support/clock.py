"""A monotonic clock that stands still, for modules that call `time.monotonic`."""

from __future__ import annotations


class Clock:
    """Replaces the module `time`; a test sets `now`, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now
