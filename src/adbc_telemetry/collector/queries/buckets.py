"""Latencies in buckets: each whole millisecond up to 100 ms, then buckets of 2 %, so that a middle is within 1 %."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

EXACT_MS: Final = 100
"""Latencies up to this one have a bucket each."""
_RATIO: Final = 1.02
_LARGEST_MS: Final = 7 * 86_400_000
"""A week. What took longer counts as that."""

NO_LATENCY: Final = EXACT_MS + 2 + math.ceil(math.log(_LARGEST_MS / EXACT_MS) / math.log(_RATIO))
"""The bucket of events without a latency; the last one."""
BUCKETS: Final = NO_LATENCY + 1


def bucket_sql(column: str) -> str:
    """The bucket of a latency in milliseconds, in SQL."""
    large = f"{EXACT_MS} + ceil(ln(least({column}, {_LARGEST_MS}) / {EXACT_MS}.0) / {math.log(_RATIO)!r})"
    return (
        f"CAST(CASE WHEN {column} IS NULL THEN {NO_LATENCY} WHEN {column} <= 0 THEN 0 "
        f"WHEN {column} <= {EXACT_MS} THEN {column} ELSE {large} END AS USMALLINT)"
    )


def _middles() -> np.ndarray[Any, np.dtype[np.float64]]:
    above = np.arange(NO_LATENCY - EXACT_MS - 1)
    return np.concatenate([np.arange(EXACT_MS + 1.0), EXACT_MS * _RATIO ** (above + 0.5)])


MIDDLES: Final = _middles()
"""What each bucket stands for, in milliseconds."""


def lower_bound(bucket: int) -> int:
    """A latency in milliseconds that no event in a bucket, or in one above it, falls short of."""
    return bucket if bucket <= EXACT_MS else math.floor(EXACT_MS * _RATIO ** (bucket - EXACT_MS - 1))


def percentiles(histograms: np.ndarray[Any, Any], shares: tuple[float, ...]) -> list[list[float | None]]:
    """Percentiles of each histogram in milliseconds, between two events as `quantile_cont` has it.

    Args:
        histograms: counts by bucket, a row for each histogram.
        shares: such as 0.95.

    Returns:
        A list for each histogram; None in it where no event has a latency.
    """
    cumulated = np.cumsum(histograms[:, :NO_LATENCY], axis=1)
    totals = cumulated[:, -1]
    found: list[list[float | None]] = [[] for _ in totals]
    for share in shares:
        place = np.maximum(totals - 1, 0) * share
        below, above = np.floor(place), np.ceil(place)
        lower, upper = _latency_at(cumulated, below), _latency_at(cumulated, above)
        values = lower + (upper - lower) * (place - below)
        for each, value, total in zip(found, values, totals, strict=True):
            each.append(round(float(value), 1) if total else None)
    return found


def _latency_at(cumulated: np.ndarray[Any, Any], places: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The latency of the event at a place in each row, the fastest being at 0."""
    buckets = (cumulated <= places[:, None]).sum(axis=1)
    latencies: np.ndarray[Any, Any] = MIDDLES[np.minimum(buckets, NO_LATENCY - 1)]
    return latencies
