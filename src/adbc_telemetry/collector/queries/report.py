"""The report: what the events of a range say about operations, their latencies and their errors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Final

import duckdb

from adbc_telemetry.collector.queries.answers import TOP_ERRORS, By, ErrorRow, GroupRow, OperationRow, Report
from adbc_telemetry.collector.queries.counting import Groups, Part, PartCounts, select
from adbc_telemetry.collector.queries.events import where
from adbc_telemetry.collector.queries.filters import COLUMN_OF, Filter
from adbc_telemetry.collector.queries.rollups import Rollups
from adbc_telemetry.collector.queries.sources import open_source
from adbc_telemetry.collector.store.columns import quoted
from adbc_telemetry.collector.store.compaction import connect
from adbc_telemetry.collector.store.layout import Segment
from adbc_telemetry.collector.store.snapshot import FileState, Snapshot

MEMORY_LIMIT: Final = "120MB"
"""What DuckDB may take for a question."""

EXACT_EVENTS: Final = 2_000_000
"""Up to so many events, percentiles and distinct values are exact."""
_TIME: Final = 'coalesce("timestamp", received_at)'
_GROUPED_BY: Final[dict[str, tuple[str, ...]]] = {
    "driver": ("driver",),
    "version": ("driver", "version"),
    "operation": ("operation", "statement_type"),
    "host": ("host",),
    "error": ("error",),
}


def build_report(
    path: str | os.PathLike[str],
    filter: Filter | None = None,
    by: By | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> Report:
    """The report of a store, made in this process.

    Args:
        path: the folder of a store, or a Delta table.
        filter: which events; None for all.
        by: what its groups are grouped by.
        storage_options: for a table in an object store, as `deltalake` takes them.

    Raises:
        DestinationError: there is neither.
        duckdb.Error: a file cannot be read.
    """
    source = open_source(path, storage_options)
    with connect(MEMORY_LIMIT, threads=1) as connection:
        rollups = Rollups(source.rollups, connection)
        return source.read(
            connection,
            lambda snapshot: report_over(snapshot, rollups, connection, filter or Filter(), by),
        )


def report_over(
    snapshot: Snapshot,
    rollups: Rollups,
    connection: duckdb.DuckDBPyConnection,
    filter: Filter,
    by: By | None,
) -> Report:
    """The report of a snapshot.

    Raises:
        duckdb.Error: a file cannot be read.
    """
    chosen, counted = _count(snapshot, rollups, filter.in_whole_minutes(), by)
    if counted.all()[0] <= EXACT_EVENTS:
        with contextlib.suppress(duckdb.OutOfMemoryException):
            return _exact(chosen, connection, filter, by)
    return _from_rollups(chosen, connection, filter.in_whole_minutes(), by, counted)


class _Counted:
    def __init__(self, by: By | None) -> None:
        self.totals = Groups()
        self.operations = Groups(*_GROUPED_BY["operation"])
        self.drivers = Groups(*_GROUPED_BY["version"])
        self.errors = Groups("error")
        self.groups = Groups(*_GROUPED_BY[by]) if by is not None else None

    def add(self, part: Part) -> None:
        counts = PartCounts(part)
        for each in (self.totals, self.operations, self.drivers, self.errors, self.groups):
            if each is not None:
                each.add(counts)

    def all(self) -> tuple[int, int]:
        """Events and errors."""
        return next(((group.events, group.errors) for group in self.totals.most_frequent()), (0, 0))


def _count(snapshot: Snapshot, rollups: Rollups, filter: Filter, by: By | None) -> tuple[Snapshot, _Counted]:
    """The part of a snapshot that holds events of a filter, and what its rollups say."""
    counted = _Counted(by)
    states: list[FileState] = []
    segments: list[Segment] = []
    for segment, rollup in rollups.of_journal(snapshot):
        if (part := select(rollup, filter)) is not None:
            counted.add(part)
            segments.append(segment)
    for state, rollup in rollups.of_files(snapshot, filter.since, filter.until):
        if (part := select(rollup, filter)) is not None:
            counted.add(part)
            states.append(state)
    return Snapshot(tuple(reversed(states)), tuple(reversed(segments))), counted


def _exact(
    snapshot: Snapshot, connection: duckdb.DuckDBPyConnection, filter: Filter, by: By | None
) -> Report:
    condition, parameters = where(filter)
    events = f"SELECT * FROM ({snapshot.events_sql()}) WHERE {condition}"

    def rows(columns: str, rest: str = "") -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = connection.execute(
            f"SELECT {columns} FROM ({events}) {rest}", parameters
        ).fetchall()
        return found

    def groups(by: str) -> list[GroupRow]:
        columns = [COLUMN_OF[name] for name in _GROUPED_BY[by]]
        order = ", ".join(f"{place + 1} NULLS FIRST" for place in range(len(columns)))
        return [
            GroupRow(
                values=list(row[: len(columns)]),
                count=row[-5],
                errors=row[-4],
                p50_ms=row[-3],
                p95_ms=row[-2],
                p99_ms=row[-1],
            )
            for row in rows(
                f"{', '.join(f'nullif({name}, {quoted(str())})' for name in columns)}, count(*), "
                f"count(nullif(error_name, '')), quantile_cont(operation_latency_ms, 0.5), "
                f"quantile_cont(operation_latency_ms, 0.95), quantile_cont(operation_latency_ms, 0.99)",
                f"GROUP BY ALL ORDER BY count(*) DESC, {order}",
            )
        ]

    # Hashes of the ids: the ids themselves take more memory than the process may have.
    ((total, errors, sessions, statements, drivers, first, last),) = rows(
        "count(*), count(nullif(error_name, '')), count(DISTINCT hash(session_id)) FILTER (session_id IS NOT NULL), "
        "count(DISTINCT hash(sql_statement_id)) FILTER (sql_statement_id IS NOT NULL), "
        "count(DISTINCT (driver_name, driver_version)) FILTER (driver_name IS NOT NULL), "
        f"epoch_us(min({_TIME})), epoch_us(max({_TIME}))"
    )
    return Report(
        events=total,
        errors=errors,
        sessions=sessions,
        statements=statements,
        drivers=drivers,
        first=_moment(first),
        last=_moment(last),
        operations=_operations(groups("operation")),
        top_errors=_top_errors(groups("error")),
        columns=_columns(by),
        groups=groups(by) if by is not None else None,
    )


def _from_rollups(
    snapshot: Snapshot,
    connection: duckdb.DuckDBPyConnection,
    filter: Filter,
    by: By | None,
    counted: _Counted,
) -> Report:
    condition, parameters = where(filter)
    row = connection.execute(
        "SELECT approx_count_distinct(session_id), approx_count_distinct(sql_statement_id), "
        f"epoch_us(min({_TIME})), epoch_us(max({_TIME})) FROM ({snapshot.events_sql()}) WHERE {condition}",
        parameters,
    ).fetchone()
    assert row is not None
    sessions, statements, first, last = row
    return Report(
        events=counted.all()[0],
        errors=counted.all()[1],
        sessions=sessions,
        statements=statements,
        drivers=sum(bool(group.values[0]) for group in counted.drivers.most_frequent()),
        first=_moment(first),
        last=_moment(last),
        operations=_operations(_rows(counted.operations)),
        top_errors=_top_errors(_rows(counted.errors)),
        exact=False,
        columns=_columns(by),
        groups=_rows(counted.groups) if counted.groups is not None else None,
    )


def _rows(groups: Groups) -> list[GroupRow]:
    return [
        GroupRow(
            values=[value or None for value in group.values],
            count=group.events,
            errors=group.errors,
            p50_ms=group.percentiles[0],
            p95_ms=group.percentiles[1],
            p99_ms=group.percentiles[2],
        )
        for group in groups.most_frequent()
    ]


def _operations(groups: list[GroupRow]) -> list[OperationRow]:
    return [
        OperationRow(
            operation_type=row.values[0],
            statement_type=row.values[1],
            count=row.count,
            errors=row.errors,
            p50_ms=row.p50_ms,
            p95_ms=row.p95_ms,
            p99_ms=row.p99_ms,
        )
        for row in groups
    ]


def _top_errors(groups: list[GroupRow]) -> list[ErrorRow]:
    named = [(row.values[0], row.count) for row in groups]
    return [ErrorRow(error_name=name, count=count) for name, count in named if name is not None][:TOP_ERRORS]


def _columns(by: By | None) -> list[str] | None:
    return None if by is None else [COLUMN_OF[name] for name in _GROUPED_BY[by]]


def _moment(microseconds: int | None) -> datetime | None:
    if microseconds is None:
        return None
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=microseconds)
