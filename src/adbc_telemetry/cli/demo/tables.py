"""What the demo shows on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from adbc_telemetry.export.breaker import CircuitBreaker
from adbc_telemetry.protocols import ClientStats


def progress_bar(console: Console) -> Progress:
    """The bar of the statements that were run."""
    return Progress(
        TextColumn("{task.description:<34}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("statements"),
        TimeElapsedColumn(),
        console=console,
    )


def show_transitions(console: Console, breaker: CircuitBreaker, started: float) -> None:
    """When the circuit has opened and closed; `started` is a `time.monotonic()` value."""
    table = Table(title="Circuit breaker", title_justify="left")
    for column in ("at", "from", "to"):
        table.add_column(column, justify="right" if column == "at" else "left")
    for transition in breaker.transitions:
        table.add_row(f"{transition.at - started:.2f} s", transition.old.value, transition.new.value)
    console.print(table)


def show_account(console: Console, stats: ClientStats, rows: int) -> bool:
    """The account; returns whether it closes: every event has arrived in the store, or is counted as lost."""
    table = Table(title="Account", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("enqueued", f"{stats.enqueued:,}", style="bold")
    for name in (
        "delivered",
        "rejected",
        "failed",
        "dropped_circuit_open",
        "dropped_queue_full",
        "dropped_closed",
    ):
        table.add_row(f"  {name.replace('_', ' ')}", f"{getattr(stats, name):,}")
    table.add_row("rows in the store", f"{rows:,}", style="bold")
    closes = stats.closes and stats.queued == stats.in_flight == 0 and stats.delivered == rows > 0
    table.add_row("the account", "[green]closes[/]" if closes else "[red]does not close[/]")
    console.print(table)
    return closes
