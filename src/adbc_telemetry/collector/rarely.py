"""Log lines that come rarely, however often their cause does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

_SECONDS: Final = 10.0


class RareLog:
    """Logs each kind of trouble at most once in ten seconds, and counts what it leaves out. Thread-safe.

    Args:
        logger: gets the lines.
        clock: seconds that only grow.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._lock = threading.Lock()  # guards the two below
        self._last: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warn(self, kind: str, sentence: str) -> None:
        """Log `sentence` unless one of its kind came just now.

        Args:
            kind: out of a small set, since each kind is remembered.
            sentence: nothing that a client sent may stand in it.
        """
        with self._lock:
            now = self._clock()
            last = self._last.get(kind)
            if last is not None and now - last < _SECONDS:
                self._left_out[kind] = self._left_out.get(kind, 0) + 1
                return
            self._last[kind] = now
            left_out = self._left_out.pop(kind, 0)
        self._logger.warning("%s%s", sentence, f" ({left_out} more since the last line.)" if left_out else "")
