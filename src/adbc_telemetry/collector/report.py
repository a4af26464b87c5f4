"""The report: what the collected events say about operations, their latencies and their errors."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Final

import duckdb
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

TOP_ERRORS: Final = 10
"""Classes of errors that a report names."""


class OperationRow(Struct, frozen=True, kw_only=True):
    """One kind of operation. Latencies are in milliseconds, None where no event carries one."""

    operation_type: str | None
    statement_type: str | None
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
    """Everything at one moment. Counts of sessions, statements and drivers are of distinct ones; times are UTC."""

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


_TOTALS: Final = """
    SELECT count(*), count(error_name), count(DISTINCT session_id), count(DISTINCT sql_statement_id),
        count(DISTINCT (driver_name, driver_version)) FILTER (driver_name IS NOT NULL),
        min(coalesce("timestamp", received_at)), max(coalesce("timestamp", received_at))
    FROM logs
"""
_OPERATIONS: Final = """
    SELECT operation_type, statement_type, count(*), count(error_name),
        quantile_cont(operation_latency_ms, 0.5),
        quantile_cont(operation_latency_ms, 0.95),
        quantile_cont(operation_latency_ms, 0.99)
    FROM logs GROUP BY ALL ORDER BY count(*) DESC, operation_type, statement_type
"""
_ERRORS: Final = f"""
    SELECT error_name, count(*) FROM logs WHERE error_name IS NOT NULL
    GROUP BY error_name ORDER BY count(*) DESC, error_name LIMIT {TOP_ERRORS}
"""


def build_report(connection: duckdb.DuckDBPyConnection) -> Report:
    """Query a collector's database, on a connection that no other thread uses meanwhile.

    Raises:
        duckdb.Error: when the database has no table of logs, or cannot be read.
    """
    connection.begin()  # one snapshot for all queries: a collector may be writing
    try:
        ((events, errors, sessions, statements, drivers, first, last),) = _rows(connection, _TOTALS)
        operations = _rows(connection, _OPERATIONS)
        top_errors = _rows(connection, _ERRORS)
    finally:
        connection.rollback()
    return Report(
        events=events,
        errors=errors,
        sessions=sessions,
        statements=statements,
        drivers=drivers,
        first=first and first.replace(tzinfo=timezone.utc),
        last=last and last.replace(tzinfo=timezone.utc),
        operations=[
            OperationRow(
                operation_type=operation_type,
                statement_type=statement_type,
                count=count,
                errors=failed,
                p50_ms=p50,
                p95_ms=p95,
                p99_ms=p99,
            )
            for operation_type, statement_type, count, failed, p50, p95, p99 in operations
        ],
        top_errors=[ErrorRow(error_name=name, count=count) for name, count in top_errors],
    )


def render_report(report: Report, console: Console) -> None:
    """Print a report as tables."""
    console.print(_totals(report))
    if report.operations:
        console.print(_operations(report))
    if report.top_errors:
        console.print(_errors(report))


def _rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = connection.execute(query).fetchall()
    return rows


def _totals(report: Report) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    for name in ("events", "errors", "sessions", "statements", "drivers"):
        grid.add_row(name, f"{getattr(report, name):,}")
    if report.first and report.last:
        grid.add_row("from", f"{report.first:%Y-%m-%d %H:%M:%S} UTC")
        grid.add_row("to", f"{report.last:%Y-%m-%d %H:%M:%S} UTC")
    return grid


def _operations(report: Report) -> Table:
    table = Table(title="Operations", title_justify="left")
    table.add_column("operation")
    table.add_column("statement")
    for heading in ("count", "errors", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for row in report.operations:
        table.add_row(
            _text(row.operation_type),
            _text(row.statement_type),
            f"{row.count:,}",
            Text(f"{row.errors:,}", style="red" if row.errors else ""),
            *(_latency(value) for value in (row.p50_ms, row.p95_ms, row.p99_ms)),
        )
    return table


def _errors(report: Report) -> Table:
    table = Table(title="Errors", title_justify="left")
    table.add_column("class")
    table.add_column("count", justify="right")
    for row in report.top_errors:
        table.add_row(_text(row.error_name), f"{row.count:,}")
    return table


def _text(value: str | None) -> Text:
    """A sender's word as text: neither markup nor a terminal's control sequence."""
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value or "-"))


def _latency(value: float | None) -> str:
    if value is None:
        return "-"
    return "<1" if value < 1 else f"{value:,.1f}"  # the wire carries whole milliseconds
