"""What came in and what became of it, counted since the start, for the page, `/metrics` and the log."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

_MOST_NAMES: Final = 500
_OTHER: Final = "(other)"
_QUIET_SECONDS: Final = 60.0

_logger = logging.getLogger(__name__)


class IntakeAccount:
    """Counters of the intake. Used on the event loop only."""

    def __init__(self) -> None:
        self.since = time.time()
        self.answers: Counter[int] = Counter()
        """Requests with events, by the status of their answer."""
        self.refused: Counter[str] = Counter()
        """Events, by the reason."""
        self.unknown: Counter[str] = Counter()
        """Fields and enum values that no version known here has, by name. Their events are kept."""
        self.private_texts = 0
        """Texts that could tell a user's data, left out before anything was stored."""
        self._unsaid = 0
        self._quiet_until = 0.0

    def refuse(self, reasons: Iterable[str]) -> None:
        """Count refused events, and tell of them once in a while."""
        for reason in reasons:
            _add(self.refused, reason, 1)
            self._unsaid += 1
            last = reason
        if self._unsaid and time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + _QUIET_SECONDS
            # The reason is made of our words and the schema's names, never of what was sent.
            _logger.warning("%d events refused; the last one for: %s.", self._unsaid, last)
            self._unsaid = 0

    def see_unknown(self, names: Mapping[str, int]) -> None:
        """Count names that are not known."""
        for name, times in names.items():
            _add(self.unknown, name, times)


def _add(counter: Counter[str], name: str, times: int) -> None:
    # Names come from outside: memory must not grow with them.
    counter[name if name in counter or len(counter) < _MOST_NAMES else _OTHER] += times
