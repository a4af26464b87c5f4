"""What questions are answered with. The collector's own process imports this, and leaves DuckDB to the other one."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

from msgspec import Struct

COUNTING: Final = ("summary", "timeline", "operations", "drivers", "hosts", "errors")
"""Panels that count events."""
SINGLE: Final = ("newest", "slowest")
"""Panels that show single events."""
PANELS: Final = (*COUNTING, *SINGLE)

FileFormat = Literal["parquet", "csv", "jsonl"]
"""What events are exported as."""
TOP_ERRORS: Final = 10
"""Classes of errors that a report names."""
By = Literal["driver", "version", "operation", "host", "error"]
"""What a report's groups are grouped by."""


class OperationRow(Struct, frozen=True, kw_only=True):
    """One kind of operation. Latencies are in milliseconds, None where no event carries one."""

    operation_type: str | None
    statement_type: str | None
    count: int
    errors: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class GroupRow(Struct, frozen=True, kw_only=True):
    """The events that share the values a report is grouped by. Latencies are in milliseconds."""

    values: list[str | None]
    """As many as the report's `by` has columns; None where events do not say."""
    count: int
    errors: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class ErrorRow(Struct, frozen=True, kw_only=True):
    """One class of errors and how many events ended in it."""

    error_name: str
    count: int


class Report(Struct, frozen=True, kw_only=True):
    """A range of events. Counts of sessions, statements and drivers are of distinct ones; times are UTC."""

    events: int
    errors: int
    sessions: int
    statements: int
    drivers: int
    first: datetime | None
    last: datetime | None
    operations: list[OperationRow]
    """Most frequent first."""
    top_errors: list[ErrorRow]
    """Most frequent first, at most `TOP_ERRORS`."""
    exact: bool = True
    """False where there are so many events that percentiles are within 1 %, and the numbers of sessions and statements
    within some 3 %. Counts are exact always."""
    columns: list[str] | None = None
    """What the groups are grouped by, if the report is grouped: names of the store's columns."""
    groups: list[GroupRow] | None = None
    """Most frequent first."""


class Panel(Struct, frozen=True, kw_only=True):
    """A table. Times are UTC in ISO 8601, latencies milliseconds; null is what events do not say."""

    columns: list[str]
    rows: list[list[Any]]
    step_seconds: int | None = None
    """The length of each interval, if the rows are intervals of time."""
