"""The page's panels: all that count events are filled in one pass over the rollups."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any, Final

from adbc_telemetry.collector.queries.answers import Panel
from adbc_telemetry.collector.queries.counting import Group, Groups, Intervals, Part, PartCounts

_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10_080, 43_200)
"""Minutes of an interval, as people count them."""
_INTERVALS: Final = 120
"""The most intervals of a timeline."""
_ROWS: Final = 100
"""The most rows of a panel."""
_FAR_AHEAD: Final = 1440
"""Minutes. Clocks that are further ahead do not stretch the timeline."""
_PERCENTILES: Final = ["p50_ms", "p95_ms", "p99_ms"]


class Dashboard:
    """Fills the panels that count.

    Args:
        first: the first minute of the timeline, since 1970.
        end: the minute after the last one.
    """

    def __init__(self, first: int, end: int) -> None:
        step = interval_minutes(end - first)
        self._first = first // step * step
        self._step = step
        self._number = max(1, -(-(end - self._first) // step))
        self._all = Groups()
        self._ranges: list[tuple[int, int]] = []
        self._timeline = Intervals(self._first, step, self._number)
        self._operations = Groups("operation", "statement_type")
        self._drivers = Groups("driver", "version")
        self._hosts = Groups("host")
        self._errors = Groups("error")

    def add(self, part: Part) -> None:
        """Count a rollup."""
        self._timeline.add(part)
        self._ranges.append(part.range())
        counts = PartCounts(part)
        for each in (self._all, self._operations, self._drivers, self._hosts, self._errors):
            each.add(counts)

    def panels(self) -> dict[str, Panel]:
        """What was counted, by the panel's name."""
        return {
            "summary": self._summary(),
            "timeline": self._intervals(),
            "operations": _grouped(
                ["operation_type", "statement_type"], self._operations.most_frequent(_ROWS)
            ),
            "drivers": _grouped(["driver_name", "driver_version"], self._drivers.most_frequent(_ROWS)),
            "hosts": _grouped(["host"], self._hosts.most_frequent(_ROWS)),
            "errors": self._error_classes(),
        }

    def _summary(self) -> Panel:
        rows: list[list[Any]] = [
            [
                group.events,
                group.errors,
                *group.percentiles,
                time_text(min(first for first, _ in self._ranges)),
                time_text(max(last for _, last in self._ranges)),
            ]
            for group in self._all.most_frequent()
        ]
        return Panel(
            columns=["events", "errors", *_PERCENTILES, "first", "last"],
            rows=rows or [[0, 0, None, None, None, None, None]],
        )

    def _intervals(self) -> Panel:
        events, errors = self._timeline.events.tolist(), self._timeline.errors.tolist()
        percentiles = self._timeline.percentiles()
        starts = range(self._first, self._first + self._number * self._step, self._step)
        return Panel(
            columns=["time", "events", "errors", *_PERCENTILES],
            rows=[
                [time_text(start), count, failed, *shares]
                for start, count, failed, shares in zip(starts, events, errors, percentiles, strict=True)
            ],
            step_seconds=self._step * 60,
        )

    def _error_classes(self) -> Panel:
        failed = [group for group in self._errors.most_frequent() if group.values != ("",)]
        return Panel(
            columns=["error_name", "events", "last"],
            rows=[[group.values[0], group.events, time_text(group.last_failure)] for group in failed[:_ROWS]],
        )


def interval_minutes(minutes: int) -> int:
    """The length of an interval in minutes, so that not too many make up a range."""
    for step in _STEPS:
        if minutes <= step * _INTERVALS:
            return step
    return -(-minutes // (_INTERVALS * _STEPS[-1])) * _STEPS[-1]


def timeline_range(
    since: float | None, until: float | None, first: int | None, last: int | None, now: float
) -> tuple[int, int]:
    """The first minute of a timeline and the one after its last.

    Args:
        since: where the question begins, in seconds, None if it is open.
        until: where it ends.
        first: the minute of the first event, None if there is none.
        last: the minute of the last one.
        now: in seconds.
    """
    this_minute = int(now // 60)
    if until is not None:
        end = int(until // 60)
    else:
        end = this_minute + 1
        if last is not None and last < this_minute + _FAR_AHEAD:
            end = max(end, last + 1)
    if since is None:
        since = (end - 60 if first is None else min(first, end - 1)) * 60
    begin = int(since // 60)
    return begin, max(end, begin + 1)


def time_text(minute: int) -> str:
    """A minute since 1970 in ISO 8601."""
    return datetime.fromtimestamp(minute * 60, timezone.utc).isoformat().replace("+00:00", "Z")


def _grouped(columns: list[str], groups: Iterable[Group]) -> Panel:
    return Panel(
        columns=[*columns, "events", "errors", *_PERCENTILES],
        rows=[
            [*(value or None for value in group.values), group.events, group.errors, *group.percentiles]
            for group in groups
        ],
    )
