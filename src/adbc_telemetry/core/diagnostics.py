"""What a pipeline says about itself: its last failure, and lines in the log that do not flood it.

Nothing here names the host, or repeats a message of an exception. A line calls its host by the digits that begin the
name of the host's segments in a spool, so that the lines of several hosts can be told apart.

To log takes locks and calls handlers of the program's. So nothing here is called from `enqueue`, nor while a lock of
ours is held. There is no lock here either: every change is a single step.
"""

from __future__ import annotations

import hashlib
import logging
import time
from typing import Final

from msgspec import Struct

from adbc_telemetry.core.guard import log, logger

LINE_SECONDS: Final = 5.0
"""For so long no second line of a kind is written."""

_LONGEST_REASON: Final = 200


class Failure(Struct, frozen=True):
    """Something that has gone wrong.

    Since 0.1.

    Attributes:
        reason: what it was, in words without a host, a token or a payload; of an exception, the class's name.
        age: how long ago it was, in seconds.
    """

    reason: str
    age: float


class Diagnostics:
    """The last failure of one host's pipeline, and its lines in the log.

    Args:
        host: the host, normalised.
    """

    def __init__(self, host: str) -> None:
        self._host = host.rpartition("://")[2]
        self._name = f"host {host_digits(host)[:8]}"
        self.reset()

    def reset(self) -> None:
        """Start anew, as a forked child does."""
        self._failure: tuple[str, float] | None = None
        self._quiet_until: dict[str, float] = {}
        self._left_out: dict[str, int] = {}
        self._told: dict[str, int] = {}

    @property
    def last_failure(self) -> Failure | None:
        """The last thing that went wrong, if anything has."""
        failure = self._failure
        return None if failure is None else Failure(failure[0], max(0.0, time.monotonic() - failure[1]))

    def failed(self, reason: str | None, otherwise: str) -> str:
        """Remember a failure.

        Args:
            reason: what it was. A foreign exporter may have said it: what does not look like words counts as nothing.
            otherwise: what is said then.

        Returns:
            What is said.
        """
        said = reason if reason is not None and self._is_in_words(reason) else otherwise
        self._failure = said, time.monotonic()
        return said

    def tell(self, kind: str, text: str) -> None:
        """Log a line, unless one of its kind has just been written: then it is counted for the next one."""
        if logger.isEnabledFor(logging.DEBUG) and self._is_due(kind):
            left_out = self._left_out.pop(kind, 0)
            log("%s: %s%s", self._name, text, f" ({left_out} lines like this left out)" if left_out else "")

    def tell_count(self, kind: str, total: int, text: str, *, last: bool = False) -> None:
        """Log how many more events there are of a kind than were told before.

        Args:
            kind: of the line.
            total: how many there have been so far.
            text: what has become of them.
            last: whether this is the last chance to tell.
        """
        more = total - self._told.get(kind, 0)
        if more > 0 and logger.isEnabledFor(logging.DEBUG) and (self._is_due(kind) or last):
            self._left_out.pop(kind, None)
            self._told[kind] = total
            log("%s: %d %s %s", self._name, more, "event" if more == 1 else "events", text)

    def _is_due(self, kind: str) -> bool:
        now = time.monotonic()
        if now < self._quiet_until.get(kind, 0.0):
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return False
        # Before the line is written: a handler may lead here again.
        self._quiet_until[kind] = now + LINE_SECONDS
        return True

    def _is_in_words(self, reason: object) -> bool:
        return (
            isinstance(reason, str)
            and 0 < len(reason) <= _LONGEST_REASON
            and reason.isprintable()
            and "://" not in reason
            and not ("." in self._host and self._host in reason.lower())
        )


def host_digits(host: str) -> str:
    """Sixteen digits that stand for a host (normalised) where it is not to be named."""
    return hashlib.sha256(host.encode()).hexdigest()[:16]
