"""What it costs, as ratios: run by `make bench`.

Times are of this machine at this moment; only the ratios of one run say something. Each figure is the median of
several rounds, with the spread of the rounds.

    python benchmarks/run.py [--rounds N] [--events N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing.connection import Connection
from typing import Any

from adbc_telemetry import (
    InMemoryTelemetryExporter,
    StatementTelemetryContext,
    TelemetryClient,
    TelemetryConfiguration,
    TelemetrySessionContext,
)
from adbc_telemetry.ids import new_id
from adbc_telemetry.schema import OperationType, StatementType, TelemetryFrontendLog
from adbc_telemetry.system import detect_system_configuration


class _NullHandler(BaseHTTPRequestHandler):
    """Accepts everything and looks at nothing."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


def _serve(told: Connection) -> None:
    server = HTTPServer(("127.0.0.1", 0), _NullHandler)
    told.send(server.server_address[1])
    server.serve_forever()


def make_session(client: Any) -> TelemetrySessionContext:
    return TelemetrySessionContext(
        session_id=new_id(),
        system_configuration=detect_system_configuration(),
        client=client,
        user_agent="bench",
    )


def whole_statement(session: TelemetrySessionContext) -> None:
    """Context made, six facts recorded, log built, enqueued."""
    statement = StatementTelemetryContext(
        session, statement_type=StatementType.QUERY, operation_type=OperationType.EXECUTE_STATEMENT
    )
    statement.record_poll(3)
    statement.record_execute_complete()
    statement.record_first_batch_ready()
    statement.record_chunk(2)
    statement.retry_count = 0
    statement.record_results_consumed()
    statement.emit()


def make_log() -> TelemetryFrontendLog:
    exporter = InMemoryTelemetryExporter()
    with TelemetryClient("host", TelemetryConfiguration(enabled=True), exporter=exporter) as client:
        whole_statement(make_session(client))
    return exporter.logs[0]


def nanoseconds_each(call: Callable[[], None], count: int) -> float:
    started = time.perf_counter_ns()
    for _ in range(count):
        call()
    return (time.perf_counter_ns() - started) / count


def caller_side(count: int) -> dict[str, float]:
    """Nanoseconds that the program's own thread spends, by itself: the sender idles until the flush."""
    log = make_log()
    bare: deque[TelemetryFrontendLog] = deque()
    config = TelemetryConfiguration(
        enabled=True, batch_size=2 * count, max_queue_size=4 * count, flush_interval_ms=600_000
    )
    with TelemetryClient("host", config, exporter=InMemoryTelemetryExporter()) as client:
        session = make_session(client)
        append = nanoseconds_each(lambda: bare.append(log), count)
        enqueue = nanoseconds_each(lambda: client.enqueue(log), count)
        statement = nanoseconds_each(lambda: whole_statement(session), count // 4)
    return {"deque.append": append, "enqueue": enqueue, "whole statement": statement}


def delivery(port: int, events: int) -> dict[str, float]:
    """From the first enqueue to the last response, over HTTP to another process."""
    log = make_log()
    config = TelemetryConfiguration(
        enabled=True,
        batch_size=2000,
        max_queue_size=events,
        max_request_bytes=8_000_000,
        close_timeout_ms=60_000,
    )
    with TelemetryClient(f"http://127.0.0.1:{port}", config) as client:
        cpu, started = time.process_time(), time.perf_counter()
        for _ in range(events):
            client.enqueue(log)
        client.flush()
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        if client.stats().delivered != events:
            raise SystemExit(f"not all was delivered: {client.stats()}")
    return {"events/s": events / seconds, "CPU us/event": cpu / events * 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--json", help="write the figures of all rounds to this file")
    arguments = parser.parse_args()

    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    server = spawn.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    port = ours.recv()
    rounds: dict[str, list[float]] = {}
    try:
        for _ in range(arguments.rounds):
            figures = {**caller_side(arguments.events), **delivery(port, arguments.events)}
            figures["enqueue / deque.append"] = figures["enqueue"] / figures["deque.append"]
            for name, value in figures.items():
                rounds.setdefault(name, []).append(value)
    finally:
        server.terminate()
        server.join()

    units = {"deque.append": "ns", "enqueue": "ns", "whole statement": "ns"}
    print(f"{'':<26}{'median':>12}{'least':>12}{'most':>12}")
    for name, values in rounds.items():
        median = statistics.median(values)
        print(f"{name:<26}{median:>12,.1f}{min(values):>12,.1f}{max(values):>12,.1f} {units.get(name, '')}")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(rounds, file, indent=1)


if __name__ == "__main__":
    main()
