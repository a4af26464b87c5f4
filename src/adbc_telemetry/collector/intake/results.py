"""What became of a request and of each of its logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

MAX_ERRORS: Final = 20
"""Refused logs that an answer names one by one; it counts the others."""


class AcceptedLog(NamedTuple):
    """A log to be stored."""

    event_id: str
    """1 to 128 characters, of any form."""
    text: str
    """The log as it came, which may be over several lines. Private texts are taken out; of a name that stands
    twice, the last value is left; half a pair of surrogates is U+FFFD."""
    canonical: bytes | None
    """The log in the wire's own form: snake_case names, integers as numbers, enums by name, no nulls, and nothing
    that the schema does not know. None when `text` is in that form."""


class Refusal(NamedTuple):
    """A log that is not taken."""

    index: int  # type: ignore[assignment]  # the method of a tuple, which no reader of this one misses
    """Its place in `protoLogs`, from 0."""
    reason: str
    """Why, in a few words that are the same for each such log. They hold nothing that was sent."""


class Intake(NamedTuple):
    """What became of the logs of one request."""

    logs: list[AcceptedLog]
    refusals: list[Refusal]
    unknown: Mapping[str, int]
    """How often a field or an enum value was found that the schema does not know: `path.of.field`, or
    `path.of.field=NAME` for a value. Names that do not look like names, and those beyond a limit, are `(other)`."""
    dropped_private: int
    """Private texts that were taken out of the logs."""
    array: bytes | None = None
    """The JSON array of all logs as it came, on one line, if each of them is in the wire's own form. So they can be
    stored at once."""

    @property
    def errors(self) -> list[str]:
        """A sentence for each refused log, at most `MAX_ERRORS`, and one more that counts the others."""
        sentences = [
            f"protoLogs[{index}] was refused: {reason}." for index, reason in self.refusals[:MAX_ERRORS]
        ]
        if len(self.refusals) > MAX_ERRORS:
            sentences.append(f"{len(self.refusals) - MAX_ERRORS} more were refused.")
        return sentences

    def without_larger_than(self, limit: int) -> Intake:
        """The same, with logs of more than `limit` bytes refused."""
        # A character takes at most four bytes of UTF-8, so hardly any log is encoded here.
        if not any(len(log.text) > limit // 4 and len(log.text.encode()) > limit for log in self.logs):
            return self
        refused = {refusal.index for refusal in self.refusals}
        places = (place for place in range(len(self.logs) + len(refused)) if place not in refused)
        kept: list[AcceptedLog] = []
        refusals = list(self.refusals)
        for place, log in zip(places, self.logs, strict=True):
            if len(log.text.encode()) > limit:
                refusals.append(Refusal(place, f"larger than {limit} bytes"))
            else:
                kept.append(log)
        return self._replace(logs=kept, refusals=sorted(refusals), array=None)


class InvalidRequest(ValueError):
    """The body is not a `TelemetryRequest`. The message says why in a sentence, without quoting it."""


class TooManyLogs(InvalidRequest):
    """The request holds more logs, or more values, than one request may. A sender may split it."""
