"""Counts and percentiles over rollups. A counter takes in one rollup after the other; only one is in memory."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from adbc_telemetry.collector.queries.buckets import BUCKETS, NO_LATENCY, percentiles
from adbc_telemetry.collector.queries.filters import ANY_ERROR, DIMENSIONS, Filter
from adbc_telemetry.collector.queries.rollup import Array, Rollup

SHARES: Final = (0.5, 0.95, 0.99)
_ERROR: Final = DIMENSIONS.index("error")
_MOST_GROUPS: Final = 500
"""Groups that are told apart; the rest is one more group."""
REST: Final = "(other)"


class Part(NamedTuple):
    """The rows of a rollup that a filter lets through."""

    rollup: Rollup
    minutes: Array
    """For each row, its minute."""
    combinations: Array
    buckets: Array
    counts: Array

    def events(self) -> int:
        """How many events these are."""
        return int(self.counts.sum(dtype=np.int64))

    def is_error(self) -> Array:
        """For each row, whether its events ended in an error."""
        failed: Array = (self.rollup.values[:, _ERROR] != 0)[self.combinations]
        return failed


def select(rollup: Rollup, filter: Filter) -> Part | None:
    """The rows that a filter in whole minutes lets through, or None if there are none."""
    first = 0 if filter.since is None else int(np.searchsorted(rollup.minutes, filter.since // 60))
    end = len(rollup.minutes) if filter.until is None else int(np.searchsorted(rollup.minutes, filter.until // 60))
    if first >= end:
        return None
    rows = slice(int(rollup.starts[first]), int(rollup.starts[end]))
    allowed = _allowed(rollup, filter)
    if allowed is not None and not allowed.any():
        return None
    part = Part(
        rollup,
        np.repeat(rollup.minutes[first:end], np.diff(rollup.starts[first : end + 1])),
        rollup.combinations[rows],
        rollup.buckets[rows],
        rollup.counts[rows],
    )
    if allowed is None or allowed.all():
        return part
    chosen = allowed[part.combinations]
    if not chosen.any():
        return None
    return Part(rollup, *(column[chosen] for column in part[1:]))


def _allowed(rollup: Rollup, filter: Filter) -> Array | None:
    """Which combinations of values a filter lets through; None for all."""
    allowed: Array | None = None
    for dimension, value in filter.values().items():
        column = DIMENSIONS.index(dimension)
        codes = rollup.values[:, column]
        if dimension == "error" and value == ANY_ERROR:
            fits = codes != 0
        elif value in rollup.names[column]:
            fits = codes == rollup.names[column].index(value)
        else:
            fits = np.zeros(len(codes), dtype=bool)
        allowed = fits if allowed is None else allowed & fits
    return allowed


class Totals:
    """All events together."""

    def __init__(self) -> None:
        self.events = 0
        self.errors = 0
        self.first: int | None = None
        """The minute of the first event, since 1970."""
        self.last: int | None = None
        self._histogram = np.zeros((1, BUCKETS), dtype=np.int64)

    def add(self, part: Part) -> None:
        """Count a rollup."""
        self.events += part.events()
        self.errors += int(part.counts[part.is_error()].sum(dtype=np.int64))
        first, last = int(part.minutes[0]), int(part.minutes[-1])
        self.first = first if self.first is None else min(self.first, first)
        self.last = last if self.last is None else max(self.last, last)
        self._histogram[0] += _histogram(part.buckets, part.counts, 1)[0]

    def percentiles(self) -> list[float | None]:
        """The percentiles `SHARES` of the latency in milliseconds."""
        return percentiles(self._histogram, SHARES)[0]


class Intervals:
    """Events by intervals of time.

    Args:
        first: the minute at which the first interval begins, since 1970.
        step: minutes of an interval.
        number: of intervals. Events before the first and after the last one are left out.
    """

    def __init__(self, first: int, step: int, number: int) -> None:
        self._first = first
        self._step = step
        self.errors = np.zeros(number, dtype=np.int64)
        self._histograms = np.zeros((number, BUCKETS), dtype=np.int64)

    @property
    def events(self) -> Array:
        """Events of each interval."""
        return self._histograms.sum(axis=1)

    def add(self, part: Part) -> None:
        """Count a rollup."""
        number = len(self.errors)
        intervals = (part.minutes.astype(np.int64) - self._first) // self._step
        inside = slice(
            int(np.searchsorted(intervals, 0)), int(np.searchsorted(intervals, number))
        )  # rows are in order of time
        intervals, counts = intervals[inside], part.counts[inside]
        self._histograms += _histogram(intervals * BUCKETS + part.buckets[inside], counts, number)
        self.errors += _sums(intervals, counts * part.is_error()[inside], number)

    def percentiles(self) -> list[list[float | None]]:
        """For each interval, the percentiles `SHARES` of the latency in milliseconds."""
        return percentiles(self._histograms, SHARES)


class Group(NamedTuple):
    """The events that share values."""

    values: tuple[str, ...]
    events: int
    errors: int
    last: int
    """The minute of the last event, since 1970."""
    percentiles: list[float | None]


class Groups:
    """Events by the values of some dimensions.

    Args:
        dimensions: their names.
    """

    def __init__(self, *dimensions: str) -> None:
        self._columns = [DIMENSIONS.index(name) for name in dimensions]
        self._numbers: dict[tuple[str, ...], int] = {}
        self._errors = np.zeros(0, dtype=np.int64)
        self._last = np.zeros(0, dtype=np.int64)
        self._histograms = np.zeros((0, BUCKETS), dtype=np.int64)

    def add(self, part: Part) -> None:
        """Count a rollup."""
        group_of = self._group_of(part.rollup)
        groups = group_of[part.combinations]
        number = len(self._numbers)
        grown = number - len(self._errors)
        if grown:
            self._errors = np.append(self._errors, np.zeros(grown, dtype=np.int64))
            self._last = np.append(self._last, np.zeros(grown, dtype=np.int64))
            self._histograms = np.concatenate([self._histograms, np.zeros((grown, BUCKETS), dtype=np.int64)])
        self._histograms += _histogram(groups * BUCKETS + part.buckets, part.counts, number)
        self._errors += _sums(groups, part.counts * part.is_error(), number)
        # Rows are in order of time, and of several assignments to one place the last one stays.
        last = np.zeros(number, dtype=np.int64)
        last[groups] = part.minutes
        self._last = np.maximum(self._last, last)

    def most_frequent(self, limit: int | None = None) -> list[Group]:
        """The groups with the most events; ties by their values."""
        events = self._histograms.sum(axis=1)
        found = sorted(
            ((values, number) for values, number in self._numbers.items() if events[number]),
            key=lambda each: (-events[each[1]], each[0]),
        )[:limit]
        numbers = [number for _, number in found]
        shares = percentiles(self._histograms[numbers], SHARES) if numbers else []
        return [
            Group(values, int(events[number]), int(self._errors[number]), int(self._last[number]), each)
            for (values, number), each in zip(found, shares, strict=True)
        ]

    def _group_of(self, rollup: Rollup) -> Array:
        """For each combination of values, the number of its group."""
        different, inverse = np.unique(rollup.values[:, self._columns], axis=0, return_inverse=True)
        numbers = np.array(
            [
                self._number(tuple(rollup.names[column][code] for column, code in zip(self._columns, row, strict=True)))
                for row in different
            ],
            dtype=np.int64,
        )
        return numbers[inverse.reshape(-1)]

    def _number(self, values: tuple[str, ...]) -> int:
        if values not in self._numbers and len(self._numbers) >= _MOST_GROUPS:
            values = (REST,) * len(values)
        return self._numbers.setdefault(values, len(self._numbers))


def slowest_bucket(parts: list[Array], limit: int) -> int:
    """The bucket from which on upwards there are at least `limit` events, or 0.

    Args:
        parts: counts by bucket.
    """
    total = np.sum(parts, axis=0)[:NO_LATENCY]
    from_above = np.cumsum(total[::-1])[::-1]
    enough = np.flatnonzero(from_above >= limit)
    return int(enough[-1]) if len(enough) else 0


def histogram_of(part: Part) -> Array:
    """Events by bucket."""
    found: Array = _histogram(part.buckets, part.counts, 1)[0]
    return found


def _histogram(keys: Array, counts: Array, rows: int) -> Array:
    return _sums(keys, counts, rows * BUCKETS).reshape(rows, BUCKETS)


def _sums(keys: Array, counts: Array, number: int) -> Any:
    # The sums are floats, and exact: they stay far below 2 ** 53.
    return np.bincount(keys, weights=counts, minlength=number).astype(np.int64)
