"""The whole way of an event, on real parts, in half a minute: what `make demo` runs.

A collector in a process of its own, with its page; instrumented ADBC connections to SQLite and DuckDB in
four threads; an outage of the collector half-way. At the end a look at what was collected, and the account:
every event that was enqueued has arrived or is counted as lost. Exits with 1 if it does not close, and with 2 where the
user has turned telemetry off.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import adbc_driver_duckdb.dbapi
import adbc_driver_manager.dbapi
import adbc_driver_sqlite.dbapi
import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from adbc_telemetry import (
    CircuitBreakerManager,
    CircuitBreakerState,
    ClientStats,
    TelemetryClientManager,
    TelemetryConfiguration,
    instrument,
)
from adbc_telemetry.collector.queries.report import build_report
from adbc_telemetry.collector.report import render_report
from adbc_telemetry.config import opted_out

THREADS = 4
ROWS_A_THREAD = 30_000
ROUNDS_A_THREAD = 25  # of ten statements each
THINK_SECONDS = 0.02
OUTAGE_SECONDS = 0.8

CONFIG = TelemetryConfiguration(
    enabled=True,
    batch_size=20,
    flush_interval_ms=100,
    max_retries=1,
    retry_delay_ms=20,
    circuit_breaker_threshold=3,
    circuit_breaker_timeout_ms=600,
)

console = Console()


@contextlib.contextmanager
def collector(store: Path, maintenance: Path) -> Iterator[str]:
    """A collector on a free port; yields its URL, and ends it as an operator would."""
    command = [sys.executable, "-m", "adbc_telemetry", "collect", "--port", "0", "--store", str(store)]
    command += ["--unavailable-while", str(maintenance)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if "http://" not in line:
                sys.exit("the collector did not start")
            yield next(word for word in line.split() if word.startswith("http://"))
        finally:
            process.terminate()
            process.wait(30)


def connect(index: int, folder: Path) -> Any:
    if index % 2:
        return adbc_driver_duckdb.dbapi.connect(str(folder / f"{index}.duckdb"), autocommit=True)
    return adbc_driver_sqlite.dbapi.connect(str(folder / f"{index}.sqlite"), autocommit=True)


def load(connection: Any) -> None:
    rows = pa.table(
        {
            "id": pa.array(range(ROWS_A_THREAD), pa.int64()),
            "amount": pa.array([i * 37 % 1000 / 10 for i in range(ROWS_A_THREAD)], pa.float64()),
            "name": pa.array([f"customer {i % 997}" for i in range(ROWS_A_THREAD)], pa.string()),
        }
    )
    with connection.cursor() as cursor:
        cursor.adbc_ingest("orders", rows, mode="create")
        cursor.execute("CREATE UNIQUE INDEX orders_id ON orders (id)")


def statements(connection: Any, round_: int) -> Iterator[Callable[[], object]]:
    """Ten statements of all kinds; two of them fail, as they do in life."""

    def run(sql: str, parameters: Any = None, fetch: str = "fetchall") -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            if cursor.description:
                getattr(cursor, fetch)()

    def append() -> None:
        ids = range(ROWS_A_THREAD + round_ * 100, ROWS_A_THREAD + round_ * 100 + 20)
        rows = pa.table({"id": ids, "amount": [1.5] * 20, "name": ["new"] * 20})
        with connection.cursor() as cursor:
            cursor.adbc_ingest("orders", rows, mode="append")

    yield lambda: run("SELECT count(*) FROM orders WHERE amount > ?", [round_])
    yield lambda: run("SELECT * FROM orders", fetch="fetch_arrow_table")
    yield lambda: run(
        "SELECT name, sum(amount) AS total FROM orders GROUP BY name ORDER BY total DESC LIMIT 5"
    )
    yield append
    yield lambda: run("UPDATE orders SET amount = amount + 1 WHERE id = ?", [round_])
    yield lambda: run(f"CREATE TABLE scratch_{round_} (id INTEGER)")
    yield lambda: connection.adbc_get_objects(depth="tables").read_all()
    yield lambda: connection.adbc_get_table_schema("orders")
    yield lambda: run("SELEKT 1")
    yield lambda: run("INSERT INTO orders VALUES (1, 0.0, 'there already')")


def work(index: int, folder: Path, url: str, advance: Callable[[], None]) -> None:
    with instrument(connect(index, folder), url, config=CONFIG) as connection:
        load(connection)
        for round_ in range(ROUNDS_A_THREAD):
            for statement in statements(connection, round_):
                with contextlib.suppress(adbc_driver_manager.dbapi.Error):
                    statement()
                advance()
                time.sleep(THINK_SECONDS)


def wait_for(
    condition: Callable[[], bool], what: str, meanwhile: Callable[[], object] = lambda: None
) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"this did not happen: {what}")
        meanwhile()
        time.sleep(0.02)


def show_transitions(breaker: Any, started: float) -> None:
    table = Table(title="Circuit breaker", title_justify="left")
    for column in ("at", "from", "to"):
        table.add_column(column, justify="right" if column == "at" else "left")
    for transition in breaker.transitions:
        table.add_row(f"{transition.at - started:.2f} s", transition.old.value, transition.new.value)
    console.print(table)


def account_closes(stats: ClientStats, rows: int) -> bool:
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


def show_page(url: str, *, stay_open: bool) -> None:
    """Tell where the page is, and leave it there if that is wanted."""
    if not stay_open:
        console.print(f"the page was at {url}; make demo OPEN=1 leaves it running", soft_wrap=True)
        return
    console.print(f"the page of these statements is at {url} until Ctrl+C", soft_wrap=True)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


def main(*, stay_open: bool) -> int:
    if opted_out():
        print(
            "demo: telemetry is turned off in the environment, so there is nothing to show; "
            "run it without DO_NOT_TRACK and DATABRICKS_TELEMETRY_ENABLED.",
            file=sys.stderr,
        )
        return 2
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="adbc-telemetry-demo-") as temporary:
        folder = Path(temporary)
        store, maintenance = folder / "store", folder / "maintenance"
        with collector(store, maintenance) as url:
            console.print(f"collector at {url}, {THREADS} threads on SQLite and DuckDB over ADBC")
            lease = TelemetryClientManager.get_instance().acquire(url, CONFIG)
            client = lease.client
            breaker = CircuitBreakerManager.get_instance().get_circuit_breaker(url)
            total = THREADS * ROUNDS_A_THREAD * 10
            progress = Progress(
                TextColumn("{task.description:<34}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("statements"),
                TimeElapsedColumn(),
                console=console,
            )
            with progress:

                def phase(description: str) -> None:
                    progress.update(bar, description=description)
                    progress.console.print(f"{time.monotonic() - started:6.2f} s  {description}")

                bar = progress.add_task("starting", total=total)
                workers = [
                    threading.Thread(target=work, args=(index, folder, url, lambda: progress.advance(bar)))
                    for index in range(THREADS)
                ]
                for worker in workers:
                    worker.start()
                phase("loading rows, then all is well")
                wait_for(lambda: progress.tasks[0].completed >= total * 0.4, "the first statements")
                maintenance.touch()
                phase("[red]the collector refuses service")
                wait_for(lambda: breaker.state is not CircuitBreakerState.CLOSED, "the circuit opens")
                phase("[red]the circuit is open")
                time.sleep(OUTAGE_SECONDS)
                maintenance.unlink()
                phase("[yellow]the collector is back")
                with instrument(connect(0, folder), url, config=CONFIG) as extra:
                    # The circuit is probed only when there is something to send.
                    wait_for(
                        lambda: breaker.state is CircuitBreakerState.CLOSED,
                        "the circuit closes",
                        meanwhile=lambda: extra.execute("SELECT 1").fetchall(),
                    )
                phase("[green]the circuit is closed")
                for worker in workers:
                    worker.join()
            lease.release()
            stats = client.stats()
            report = build_report(store)
            console.print(f"\n{THREADS * ROWS_A_THREAD:,} rows loaded through Arrow\n")
            render_report(report, console)
            show_transitions(breaker, started)
            closes = account_closes(stats, report.events)
            console.print(f"{time.monotonic() - started:.1f} s")
            show_page(url, stay_open=stay_open)
    return 0 if closes else 1


if __name__ == "__main__":
    sys.exit(main(stay_open="--open" in sys.argv[1:]))
