"""The demo's scenario.

A collector in a process of its own; instrumented ADBC connections in four threads; an outage of the collector half-way.
At the end a look at what was collected, and the account: every event has arrived or is counted as lost.
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
from typing import Final

from rich.console import Console

from adbc_telemetry.cli.demo.tables import progress_bar, show_account, show_transitions
from adbc_telemetry.cli.demo.workload import (
    ROUNDS_A_THREAD,
    ROWS_A_THREAD,
    STATEMENTS_A_ROUND,
    connect,
    databases,
    work,
)
from adbc_telemetry.cli.errors import CommandError
from adbc_telemetry.collector.queries.report import build_report
from adbc_telemetry.collector.report import render_report
from adbc_telemetry.config import TelemetryConfiguration
from adbc_telemetry.export.breaker import CircuitBreakerState
from adbc_telemetry.export.circuit_breaker import CircuitBreakerManager
from adbc_telemetry.instrumentation.installation import instrument
from adbc_telemetry.manager import TelemetryClientManager

THREADS: Final = 4
_OUTAGE_SECONDS: Final = 0.8
_LONGEST_WAIT_SECONDS: Final = 60.0

CONFIG: Final = TelemetryConfiguration(
    enabled=True,
    batch_size=20,
    flush_interval_ms=100,
    max_retries=1,
    retry_delay_ms=20,
    circuit_breaker_threshold=3,
    circuit_breaker_timeout_ms=600,
)


def run(*, stays_open: bool) -> int:
    """Run the demo; `stays_open` leaves its page running until Ctrl+C. Returns 1 if the account does not close."""
    started = time.monotonic()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="adbc-telemetry-demo-") as temporary:
        folder = Path(temporary)
        store, maintenance = folder / "store", folder / "maintenance"
        with _collector(store, maintenance) as url:
            names = " and ".join(databases())
            console.print(f"collector at {url}, {THREADS} threads on {names} over ADBC", soft_wrap=True)
            # Held until the end, so that there is one account of all connections.
            lease = TelemetryClientManager.get_instance().acquire(url, CONFIG)
            breaker = CircuitBreakerManager.get_instance().get_circuit_breaker(url)
            _statements_and_an_outage(console, folder, url, maintenance, started)
            lease.release()
            report = build_report(store)
            console.print(f"\n{THREADS * ROWS_A_THREAD:,} rows loaded through Arrow\n")
            render_report(report, console)
            show_transitions(console, breaker, started)
            closes = show_account(console, lease.client.stats(), report.events)
            console.print(f"{time.monotonic() - started:.1f} s")
            _show_page(console, url, stays_open=stays_open)
    return 0 if closes else 1


@contextlib.contextmanager
def _collector(store: Path, maintenance: Path) -> Iterator[str]:
    """A collector on a free port; yields its URL, and ends it as an operator would."""
    command = [sys.executable, "-m", "adbc_telemetry", "collect", "--port", "0", "--store", str(store)]
    command += ["--unavailable-while", str(maintenance)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if "http://" not in line:
                raise CommandError("the demo's collector did not start; see what it says above.")
            yield next(word for word in line.split() if word.startswith("http://"))
        finally:
            process.terminate()
            process.wait(30)


def _statements_and_an_outage(
    console: Console, folder: Path, url: str, maintenance: Path, started: float
) -> None:
    """Four threads at work. Half-way the collector refuses service for a while, so that the circuit opens."""
    breaker = CircuitBreakerManager.get_instance().get_circuit_breaker(url)
    total = THREADS * ROUNDS_A_THREAD * STATEMENTS_A_ROUND
    with progress_bar(console) as progress:
        bar = progress.add_task("starting", total=total)

        def phase(description: str) -> None:
            progress.update(bar, description=description)
            progress.console.print(f"{time.monotonic() - started:6.2f} s  {description}")

        workers = [
            threading.Thread(target=work, args=(index, folder, url, CONFIG, lambda: progress.advance(bar)))
            for index in range(THREADS)
        ]
        for worker in workers:
            worker.start()
        phase("loading rows, then all is well")
        _wait_for(lambda: progress.tasks[0].completed >= total * 0.4, "the first statements")
        maintenance.touch()
        phase("[red]the collector refuses service")
        _wait_for(lambda: breaker.state is not CircuitBreakerState.CLOSED, "the circuit opens")
        phase("[red]the circuit is open")
        time.sleep(_OUTAGE_SECONDS)
        maintenance.unlink()
        phase("[yellow]the collector is back")
        with instrument(connect(0, folder), url, config=CONFIG) as extra:
            # The circuit is probed only when there is something to send.
            _wait_for(
                lambda: breaker.state is CircuitBreakerState.CLOSED,
                "the circuit closes",
                meanwhile=lambda: extra.execute("SELECT 1").fetchall(),
            )
        phase("[green]the circuit is closed")
        for worker in workers:
            worker.join()


def _wait_for(
    condition: Callable[[], bool], what: str, meanwhile: Callable[[], object] = lambda: None
) -> None:
    deadline = time.monotonic() + _LONGEST_WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise CommandError(
                f"this did not happen in {_LONGEST_WAIT_SECONDS:.0f} s: {what}; run the demo again."
            )
        meanwhile()
        time.sleep(0.02)


def _show_page(console: Console, url: str, *, stays_open: bool) -> None:
    """Tell where the page is, and leave it there if that is wanted."""
    if not stays_open:
        console.print(f"the page was at {url}; --open leaves it running", soft_wrap=True)
        return
    console.print(f"the page of these queries is at {url} until Ctrl+C", soft_wrap=True)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)
