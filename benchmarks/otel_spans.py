"""The cost of a span per statement: `SELECT 1` and its fetch over ADBC's SQLite, beside OpenTelemetry's own `dbapi`.

Each round runs the same statements on each kind of connection: a bare one, those that OpenTelemetry's `dbapi`
instruments and those that `ADBCInstrumentor` does, each with a sampler that says yes and with one that says no, and one
with our own event alone. Spans go to a batch span processor whose exporter discards them. Measured is the CPU time of
the program's thread: the machine's load and the exporting threads do not count. Compare only figures of one run.

    python benchmarks/otel_spans.py [--rounds N] [--statements N] [--json FILE]

Exit code 1: ours adds more than `dbapi` does, or more than a quarter of it where the sampler says no.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
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


def bare() -> Followed:
    connection = connect()
    return Followed(connection, lambda: None, connection.close)


def provider(sampled: bool) -> Any:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

    class Nowhere(SpanExporter):  # type: ignore[misc, unused-ignore]
        def export(self, spans: Sequence[object]) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    made = TracerProvider(sampler=ALWAYS_ON if sampled else ALWAYS_OFF)
    made.add_span_processor(BatchSpanProcessor(Nowhere()))
    return made


def dbapi(sampled: bool) -> Followed:
    from opentelemetry.instrumentation.dbapi import instrument_connection

    spans, connection = provider(sampled), connect()
    followed = instrument_connection("bench", connection, "sqlite", tracer_provider=spans)
    return Followed(followed, spans.force_flush, lambda: (spans.shutdown(), connection.close()))


def ours(sampled: bool) -> Followed:
    from adbc_telemetry.otel import ADBCInstrumentor

    spans, connection = provider(sampled), connect()
    ADBCInstrumentor.instrument_connection(connection, tracer_provider=spans)
    return Followed(connection, spans.force_flush, lambda: (spans.shutdown(), connection.close()))


def event() -> Followed:
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
    return Followed(connection, lease.client.flush, lambda: (connection.close(), lease.release()))


KINDS: dict[str, Callable[[], Followed]] = {
    "bare": bare,
    "dbapi": lambda: dbapi(True),
    "dbapi, not sampled": lambda: dbapi(False),
    "our span": lambda: ours(True),
    "our span, not sampled": lambda: ours(False),
    "our event": event,
}


def microseconds_each(followed: Followed, statements: int) -> float:
    """CPU time of a statement on this thread."""
    connection = followed.connection
    gc.collect()
    started = time.thread_time_ns()
    for _ in range(statements):
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        cursor.fetchall()
        cursor.close()
    took = time.thread_time_ns() - started
    followed.flush()
    return took / statements / 1000


def run(rounds: int, statements: int) -> dict[str, list[float]]:
    """Microseconds per statement, by round; each round measures all kinds, so that the machine's load affects all."""
    connections = {name: make() for name, make in KINDS.items()}
    for followed in connections.values():
        microseconds_each(followed, statements)  # warm up
    figures: dict[str, list[float]] = {name: [] for name in connections}
    order = list(connections)
    for number in range(rounds):
        for name in order if number % 2 == 0 else reversed(order):
            figures[name].append(microseconds_each(connections[name], statements))
    for followed in connections.values():
        followed.close()
    return figures


class Report(NamedTuple):
    """What was added to a bare connection.

    Attributes:
        added: the median of each kind, in microseconds per statement.
        ratio: what our span adds, of what dbapi's does.
        ratio_not_sampled: the same where the sampler says no.
    """

    added: dict[str, float]
    ratio: float
    ratio_not_sampled: float


def report(figures: dict[str, list[float]]) -> Report:
    added = {
        name: statistics.median(each - base for each, base in zip(values, figures["bare"], strict=True))
        for name, values in figures.items()
        if name != "bare"
    }
    return Report(
        added,
        added["our span"] / added["dbapi"],
        added["our span, not sampled"] / added["dbapi, not sampled"],
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--statements", type=int, default=2000)
    parser.add_argument("--json", help="write the figures of all rounds to this file")
    arguments = parser.parse_args()
    figures = run(arguments.rounds, arguments.statements)
    found = report(figures)
    print(f"{'us of CPU per statement':<32}{'median':>8}")
    print(f"{'bare':<32}{statistics.median(figures['bare']):>8.2f}")
    for name, median in found.added.items():
        print(f"{'added by ' + name:<32}{median:>8.2f}")
    print(f"our span adds {found.ratio:.2f} of what dbapi adds (at most 1)")
    print(f"not sampled, it adds {found.ratio_not_sampled:.2f} of what dbapi then adds (at most 0.25)")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"rounds": figures, **found._asdict()}, indent=1))
    return 0 if found.ratio <= 1 and found.ratio_not_sampled <= 0.25 else 1


if __name__ == "__main__":
    sys.exit(main())
