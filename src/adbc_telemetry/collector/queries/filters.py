"""What a question is about: a range of time, and the values that its events have."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Final

from msgspec import Struct, structs

DIMENSIONS: Final = ("operation", "statement_type", "driver", "version", "host", "error")
"""What events are counted by and filtered by."""
COLUMN_OF: Final = {
    "operation": "operation_type",
    "statement_type": "statement_type",
    "driver": "driver_name",
    "version": "driver_version",
    "host": "host",
    "error": "error_name",
}
"""The store's column of each dimension."""
ANY_ERROR: Final = "*"
"""As the value of `error`: events with any error."""
MAX_VALUE: Final = 200
"""Characters of a value by which events are told apart."""

PARAMETERS: Final = ("since", "until", *DIMENSIONS)
_DURATION: Final = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_MINUTE: Final = 60


class BadQuestion(ValueError):
    """A question that cannot be answered. The message says in one sentence what to do."""


class Filter(Struct, frozen=True, kw_only=True):
    """Events between two moments, with the values named. None leaves a value open; "" asks for events without it.

    `error` may also be `ANY_ERROR`.
    """

    since: float | None = None
    """The first moment, in seconds since 1970."""
    until: float | None = None
    """The moment after the last one."""
    operation: str | None = None
    statement_type: str | None = None
    driver: str | None = None
    version: str | None = None
    host: str | None = None
    error: str | None = None

    def values(self) -> dict[str, str]:
        """The values that are asked for, by dimension."""
        named = {name: getattr(self, name) for name in DIMENSIONS}
        return {name: value[:MAX_VALUE] for name, value in named.items() if value is not None}

    def in_whole_minutes(self) -> Filter:
        """The same range, widened to whole minutes."""
        since = None if self.since is None else self.since // _MINUTE * _MINUTE
        until = None if self.until is None else -(-self.until // _MINUTE) * _MINUTE
        return structs.replace(self, since=since, until=until)


def parse_filter(parameters: Mapping[str, str], *, now: float | None = None) -> Filter:
    """A filter from the parameters of a URL or a command.

    Args:
        parameters: `since` and `until` as durations before now (15m, 1h, 7d) or ISO 8601 times, which are UTC
            where they name no zone; and values by dimension.
        now: seconds since 1970.

    Raises:
        BadQuestion: a parameter is unknown or cannot be read.
    """
    for name, value in parameters.items():
        if name not in PARAMETERS:
            raise BadQuestion(f"There is no such parameter; give some of {', '.join(PARAMETERS)}.")
        if len(value) > 5 * MAX_VALUE:
            raise BadQuestion(f"The value of {name} is too long; give at most {5 * MAX_VALUE} characters.")
    now = time.time() if now is None else now
    since = _moment("since", parameters.get("since"), now)
    until = _moment("until", parameters.get("until"), now)
    if since is not None and until is not None and since >= until:
        raise BadQuestion("The range is empty; give a since that is earlier than until.")
    return Filter(since=since, until=until, **{name: parameters.get(name) for name in DIMENSIONS})


def _moment(name: str, text: str | None, now: float) -> float | None:
    if text is None:
        return None
    duration = _DURATION.fullmatch(text)
    if duration is not None:
        return max(0.0, now - int(duration[1]) * _SECONDS[duration[2]])
    try:
        # Before Python 3.11 `fromisoformat` knows no Z. In a URL a plus sign that is not escaped arrives as a space.
        moment = datetime.fromisoformat(
            re.sub(r"[Zz]$", "+00:00", text).replace(" ", "+", _spaces_of_zone(text))
        )
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return max(0.0, moment.timestamp())
    except (ValueError, OverflowError):
        raise BadQuestion(
            f"The value of {name} is not a time; give a duration such as 15m, 1h or 7d, "
            "or a time such as 2026-01-31T12:00:00Z."
        ) from None


def _spaces_of_zone(text: str) -> int:
    return 1 if re.search(r"T[\d:.]+ \d\d:?\d\d$", text) else 0
