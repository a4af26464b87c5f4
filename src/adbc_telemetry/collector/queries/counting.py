"""Counts and percentiles over rollups. A counter takes in one rollup after the other; only one is in memory."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from adbc_telemetry.collector.queries.buckets import BUCKETS, NO_LATENCY, percentiles
from adbc_telemetry.collector.queries.filters import ANY_ERROR, DIMENSIONS, Filter
from adbc_telemetry.collector.queries.rollup import CODE_BITS, OTHER, Array, Rollup

SHARES: Final = (0.5, 0.95, 0.99)
_ERROR: Final = DIMENSIONS.index("error")
_MOST_GROUPS: Final = 500
"""Groups that are told apart; the rest is one more group."""
_MOST_COMBINATIONS: Final = 4000


class Part(NamedTuple):
    """The rows of a rollup that a filter lets through."""

    rollup: Rollup
    minutes: Array
    """The minutes in the range, since 1970, in order."""
    starts: Array
    """The first row of each minute, and the number of rows at the end."""
    combinations: Array
    """For each row, which combination of values."""
    buckets: Array
    counts: Array | None
    """For each row, how many events; None if each row is one."""

    def failed_combinations(self) -> Array:
        """For each combination of values, whether its events ended in an error."""
        failed: Array = self.rollup.values[:, _ERROR] != 0
        return failed

    def range(self) -> tuple[int, int]:
        """The minutes of the first and of the last event, since 1970."""
        occupied = self.minutes[np.diff(self.starts) > 0]
        return int(occupied[0]), int(occupied[-1])

    def histogram(self) -> Array:
        """Events by bucket."""
        return _sums(self.buckets, self.counts, BUCKETS)


def select(rollup: Rollup, filter: Filter) -> Part | None:
    """The rows that a filter in whole minutes lets through, or None if there are none."""
    first = 0 if filter.since is None else int(np.searchsorted(rollup.minutes, filter.since // 60))
    end = len(rollup.minutes)
    if filter.until is not None:
        end = int(np.searchsorted(rollup.minutes, filter.until // 60))
    if first >= end:
        return None
    allowed = _allowed(rollup, filter)
    if allowed is not None and not allowed.any():
        return None
    rows = slice(int(rollup.starts[first]), int(rollup.starts[end]))
    part = Part(
        rollup,
        rollup.minutes[first:end],
        rollup.starts[first : end + 1] - rollup.starts[first],
        rollup.combinations[rows],
        rollup.buckets[rows],
        rollup.counts[rows] if len(rollup.counts) else None,
    )
    if allowed is None or allowed.all():
        return part
    chosen = allowed[part.combinations]
    chosen_before = np.concatenate([[0], np.cumsum(chosen)])
    if not chosen_before[-1]:
        return None
    return part._replace(
        starts=chosen_before[part.starts],
        combinations=part.combinations[chosen],
        buckets=part.buckets[chosen],
        counts=None if part.counts is None else part.counts[chosen],
    )


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
        """For each interval."""
        self._histograms = np.zeros((number, BUCKETS), dtype=np.int64)

    @property
    def events(self) -> Array:
        """For each interval."""
        events: Array = self._histograms.sum(axis=1)
        return events

    def add(self, part: Part) -> None:
        """Count a rollup."""
        failed = part.failed_combinations()[part.combinations]
        intervals = (part.minutes.astype(np.int64) - self._first) // self._step
        different, firsts = np.unique(intervals, return_index=True)
        ends = np.append(firsts[1:], len(intervals))
        # Rows are in order of time: those of an interval stand together.
        for interval, first, end in zip(different, part.starts[firsts], part.starts[ends], strict=True):
            if 0 <= interval < len(self.errors):
                counts = None if part.counts is None else part.counts[first:end]
                self._histograms[interval] += _sums(part.buckets[first:end], counts, BUCKETS)
                self.errors[interval] += _number(failed[first:end], counts)

    def percentiles(self) -> list[list[float | None]]:
        """For each interval, the percentiles `SHARES` of the latency in milliseconds."""
        return percentiles(self._histograms, SHARES)


class Group(NamedTuple):
    """The events that share values."""

    values: tuple[str, ...]
    events: int
    errors: int
    last_failure: int
    """The minute of the last event that ended in an error, since 1970; 0 if none did."""
    percentiles: list[float | None]


class Groups:
    """Events by the values of some dimensions.

    Args:
        dimensions: their names; none of them for all events together.
    """

    def __init__(self, *dimensions: str) -> None:
        self._columns = [DIMENSIONS.index(name) for name in dimensions]
        self._numbers: dict[tuple[str, ...], int] = {}
        self._histograms = np.zeros((0, BUCKETS), dtype=np.int64)
        self._errors = np.zeros(0, dtype=np.int64)
        self._last = np.zeros(0, dtype=np.int64)

    def add(self, counts: PartCounts) -> None:
        """Count a rollup."""
        part = counts.part
        group_of = self._group_of(part.rollup)
        self._grow()
        if counts.histograms is not None:
            order = np.argsort(group_of, kind="stable")
            groups, firsts = np.unique(group_of[order], return_index=True)
            self._histograms[groups] += np.add.reduceat(counts.histograms[order], firsts, axis=0)
        else:
            number = len(self._numbers)
            keys = group_of[part.combinations] * BUCKETS + part.buckets
            self._histograms += _sums(keys, part.counts, number * BUCKETS).reshape(number, BUCKETS)
        failed = part.failed_combinations()
        np.add.at(self._errors, group_of[failed], counts.events[failed])
        failed &= counts.events > 0
        np.maximum.at(self._last, group_of[failed], counts.last_failure[failed])

    def most_frequent(self, limit: int | None = None) -> list[Group]:
        """The groups with the most events; ties in order of their values."""
        events = self._histograms.sum(axis=1)
        found = sorted(
            ((values, number) for values, number in self._numbers.items() if events[number]),
            key=lambda each: (-events[each[1]], each[0]),
        )[:limit]
        numbers = [number for _, number in found]
        shares = percentiles(self._histograms[numbers], SHARES) if numbers else []
        return [
            Group(
                values,
                int(events[number]),
                int(self._errors[number]),
                int(self._last[number]),
                each,
            )
            for (values, number), each in zip(found, shares, strict=True)
        ]

    def _group_of(self, rollup: Rollup) -> Array:
        """For each combination of values, the number of its group."""
        key = np.zeros(len(rollup.values), dtype=np.int64)
        for column in self._columns:
            key = key << CODE_BITS | rollup.values[:, column]
        _, firsts, inverse = np.unique(key, return_index=True, return_inverse=True)
        names = [rollup.names[column] for column in self._columns]
        numbers = [
            self._number_of(tuple(known[code] for known, code in zip(names, row, strict=True)))
            for row in rollup.values[firsts][:, self._columns].tolist()
        ]
        return np.array(numbers, dtype=np.int64)[inverse.reshape(-1)]

    def _number_of(self, values: tuple[str, ...]) -> int:
        if values not in self._numbers and len(self._numbers) >= _MOST_GROUPS:
            values = (OTHER,) * len(values)
        return self._numbers.setdefault(values, len(self._numbers))

    def _grow(self) -> None:
        new = len(self._numbers) - len(self._errors)
        self._histograms = np.concatenate([self._histograms, np.zeros((new, BUCKETS), dtype=np.int64)])
        self._errors = np.append(self._errors, np.zeros(new, dtype=np.int64))
        self._last = np.append(self._last, np.zeros(new, dtype=np.int64))


class PartCounts:
    """What all groups have in common, counted once for each rollup: events by combination of values."""

    def __init__(self, part: Part) -> None:
        self.part = part
        number = len(part.rollup.values)
        self.histograms: Array | None = None
        """By combination and bucket; None if there are too many combinations."""
        if number <= _MOST_COMBINATIONS:
            # A row for each combination, and the events' buckets in it.
            keys = part.combinations.astype(np.intp)
            keys *= BUCKETS
            keys += part.buckets
            self.histograms = _sums(keys, part.counts, number * BUCKETS).reshape(number, BUCKETS)
            self.events: Array = self.histograms.sum(axis=1)
        else:
            self.events = _sums(part.combinations, part.counts, number)
        # Of several assignments to one place the last one stays, and rows are in order of time.
        rows = np.flatnonzero(part.failed_combinations()[part.combinations])
        last = np.zeros(number, dtype=np.int64)
        last[part.combinations[rows]] = rows
        self.last_failure: Array = part.minutes[np.searchsorted(part.starts, last, side="right") - 1]
        """For each combination with an error, the minute of its last event."""


def slowest_bucket(histogram: Array, limit: int) -> int:
    """The highest bucket with at least `limit` events in it and above it, or 0.

    Args:
        histogram: events by bucket.
        limit: a number of events.
    """
    from_above = np.cumsum(histogram[:NO_LATENCY][::-1])[::-1]
    enough = np.flatnonzero(from_above >= limit)
    return int(enough[-1]) if len(enough) else 0


def _sums(keys: Array, counts: Array | None, number: int) -> Array:
    sums: Array = np.bincount(keys, weights=counts, minlength=number)
    return sums if counts is None else sums.astype(np.int64)  # floats, and exact below 2 ** 53


def _number(chosen: Array, counts: Array | None) -> int:
    if counts is None:
        return int(np.count_nonzero(chosen))
    return int(counts[chosen].sum(dtype=np.int64))
