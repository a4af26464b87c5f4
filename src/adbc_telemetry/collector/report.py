"""Shows a report on a terminal."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from adbc_telemetry.collector.queries.answers import GroupRow, OperationRow, Report

_NARROW: Final = 72
"""On fewer columns the percentiles between the middle and the end are left out."""


def render_report(report: Report, console: Console) -> None:
    """Print a report as tables."""
    console.print(_totals(report))
    narrow = console.width < _NARROW
    if report.groups is not None:
        console.print(_groups(report.columns or [], report.groups, narrow))
    elif report.operations:
        console.print(_operations(report.operations, narrow))
    if report.top_errors:
        console.print(_errors(report))


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


def _operations(rows: list[OperationRow], narrow: bool) -> Table:
    table = Table(title="Operations", title_justify="left")
    table.add_column("operation", overflow="fold")
    table.add_column("statement", overflow="fold")
    _add_figures(table, narrow)
    for row in rows:
        table.add_row(_text(row.operation_type), _text(row.statement_type), *_figures(row, narrow))
    return table


def _groups(columns: list[str], rows: list[GroupRow], narrow: bool) -> Table:
    table = Table(title="By " + " and ".join(columns).replace("_", " "), title_justify="left")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    _add_figures(table, narrow)
    for row in rows:
        table.add_row(*map(_text, row.values), *_figures(row, narrow))
    return table


def _add_figures(table: Table, narrow: bool) -> None:
    for heading in ("count", "errors", "p50 ms", "p95 ms", "p99 ms"):
        if not (narrow and heading == "p95 ms"):
            table.add_column(heading, justify="right")


def _figures(row: OperationRow | GroupRow, narrow: bool) -> list[str | Text]:
    latencies = [row.p50_ms, row.p99_ms] if narrow else [row.p50_ms, row.p95_ms, row.p99_ms]
    errors = Text(f"{row.errors:,}", style="red" if row.errors else "")
    return [f"{row.count:,}", errors, *map(_latency, latencies)]


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
