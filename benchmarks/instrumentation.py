"""The cost of an instrumented connection beside OpenTelemetry's: `SELECT 1` and its fetch over ADBC's SQLite.

Each round runs the same statements three times: on a bare connection, on an instrumented one, and on one that
`opentelemetry-instrumentation-dbapi` instruments with a batch span processor. Both exporters discard their events. The
program's waiting time is measured: the work of its thread, and that of the sender, which takes the interpreter's lock.
A round ends when all its events are exported, so that it does not burden the next. Instrumentation adds the difference
to the bare connection. Compare only the ratios of one run.

`make bench` runs it, in a virtual environment with the peer.

    python benchmarks/instrumentation.py [--rounds N] [--statements N] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Followed(NamedTuple):
    """A connection, a function that exports all its events, and one that closes it."""

    connection: Any
    flush: Callable[[], object]
    close: Callable[[], object]


def connect() -> Any:
    import adbc_driver_sqlite.dbapi

    return adbc_driver_sqlite.dbapi.connect(":memory:")


def ours() -> Followed:
    from adbc_telemetry import (
        ExportOutcome,
        ExportResult,
        TelemetryClientManager,
        TelemetryConfiguration,
        instrument,
    )

    class Nowhere:
        def export(self, logs: Sequence[object], *, deadline: float | None = None) -> ExportResult:
            return ExportResult(outcome=ExportOutcome.DELIVERED, delivered=len(logs))

        def close(self) -> None:
            pass

    config = TelemetryConfiguration(enabled=True)
    lease = TelemetryClientManager.get_instance().acquire("telemetry.example", config, exporter=Nowhere())
    connection = instrument(connect(), "telemetry.example", config=config)

    def close() -> None:
        connection.close()
        lease.release()

    return Followed(connection, lease.client.flush, close)


def opentelemetry() -> Followed:
    from opentelemetry.instrumentation.dbapi import instrument_connection
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans: Sequence[object]) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    connection = connect()
    followed = instrument_connection("bench", connection, "sqlite", tracer_provider=provider)

    def close() -> None:
        provider.shutdown()
        connection.close()

    return Followed(followed, provider.force_flush, close)


def bare() -> Followed:
    connection = connect()
    return Followed(connection, lambda: None, connection.close)


def microseconds_each(followed: Followed, statements: int) -> float:
    connection = followed.connection
    gc.collect()
    started = time.perf_counter_ns()
    for _ in range(statements):
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        cursor.fetchall()
        cursor.close()
    followed.flush()
    return (time.perf_counter_ns() - started) / statements / 1000


KINDS: dict[str, Callable[[], Followed]] = {
    "bare": bare,
    "adbc-telemetry": ours,
    "opentelemetry": opentelemetry,
}


def run(rounds: int, statements: int, kinds: Sequence[str] = tuple(KINDS)) -> dict[str, list[float]]:
    """Microseconds per statement, by round; each round measures all kinds, so that the machine's load affects all."""
    connections = {name: KINDS[name]() for name in kinds}
    for followed in connections.values():
        microseconds_each(followed, statements)  # warm up
    figures: dict[str, list[float]] = {name: [] for name in kinds}
    order = list(connections)
    for number in range(rounds):
        for name in order if number % 2 == 0 else reversed(order):
            figures[name].append(microseconds_each(connections[name], statements))
    for followed in connections.values():
        followed.close()
    return figures


def report(figures: dict[str, list[float]]) -> dict[str, Any]:
    plain = figures["bare"]
    added = {
        name: [each - base for each, base in zip(values, plain, strict=True)]
        for name, values in figures.items()
        if values is not plain
    }
    medians = {name: statistics.median(values) for name, values in added.items()}
    ratio = medians["adbc-telemetry"] / medians["opentelemetry"]
    print(f"{'us per statement':<28}{'median':>10}{'least':>10}{'most':>10}")
    rows = {"bare": plain, **{f"added by {name}": values for name, values in added.items()}}
    for name, values in rows.items():
        print(f"{name:<28}{statistics.median(values):>10.2f}{min(values):>10.2f}{max(values):>10.2f}")
    print(
        f"adbc-telemetry adds {ratio:.3f} of what opentelemetry-instrumentation-dbapi adds (1/{1 / ratio:.1f})"
    )
    return {"rounds": figures, "added": added, "medians": medians, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=51)
    parser.add_argument("--statements", type=int, default=2000)
    parser.add_argument("--json", help="write the figures of all rounds to this file")
    arguments = parser.parse_args()
    figures = report(run(arguments.rounds, arguments.statements))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
