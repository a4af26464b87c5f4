"""How polite many clients are to an endpoint that asks to be left alone.

    python benchmarks/polite.py --clients 1000 --processes 4 --retry-after 5 --windows 4

Several processes with many clients each, every one with a circuit breaker of its own, send events to one server. It
answers 429 with `Retry-After` for some windows of that length, and is healthy after that. The script prints what it saw
and ends with 1 if the clients made more than 1.1 requests per client and window, if a circuit was open for less time
than asked, if a client did not come back, or if they all came back at once.

A few requests come before a client's `Retry-After` is over: the client gave up on a request because others of its
process waited for their turn, and never saw the answer.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import sys
import threading
import time
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any, Final

from adbc_telemetry import (
    CircuitBreakerManager,
    CircuitBreakerState,
    CircuitBreakerTelemetryExporter,
    DatabricksTelemetryExporter,
    TelemetryClient,
    TelemetryConfiguration,
)
from adbc_telemetry.pipeline.shutdown import close_together
from adbc_telemetry.schema import TelemetryFrontendLog

TOLERANCE_SECONDS: Final = 0.05  # between the clock of the server's answer and that of the next request
BINS: Final = 10  # of one Retry-After, to see how the recovery is spread


class Server(ThreadingHTTPServer):
    """Refuses requests until `healthy_at`, and notes who asks when."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, retry_after: int, windows: int) -> None:
        self.retry_after = retry_after
        self.refuses_for = retry_after * windows
        self.healthy_at = float("inf")
        self.refused: dict[str, list[float]] = defaultdict(list)
        self.accepted: dict[str, list[float]] = defaultdict(list)
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        now, client = time.monotonic(), self.headers["X-Client"]
        if self.server.healthy_at == float("inf"):  # the first request: processes take a while to start
            self.server.healthy_at = now + self.server.refuses_for
        healthy = now >= self.server.healthy_at
        (self.server.accepted if healthy else self.server.refused)[client].append(now)
        self.send_response(200 if healthy else 429)
        if not healthy:
            self.send_header("Retry-After", str(self.server.retry_after))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def run_clients(url: str, first: int, count: int, threshold: int, control: Connection) -> None:
    """One process: clients that each have an event to send all the time, until the parent says that it is over."""
    config = TelemetryConfiguration(
        enabled=True,
        flush_interval_ms=50,
        max_retries=0,  # a retry would wait in one of the few workers; this asks more of the circuits
        circuit_breaker_threshold=threshold,
        circuit_breaker_timeout_ms=100,
        circuit_open="retain",
        max_queue_size=10,
    )
    clients = []
    for number in range(first, first + count):
        name = f"client-{number}.example"
        service = DatabricksTelemetryExporter(url, config, auth=lambda name=name: {"X-Client": name})  # type: ignore[misc]
        exporter = CircuitBreakerTelemetryExporter(service, name, config)
        clients.append(TelemetryClient(name, config, exporter=exporter))
    while not control.poll(0.2):
        for client in clients:
            client.enqueue(TelemetryFrontendLog(frontend_log_event_id="event"))
    spans = []
    for client in clients:
        transitions = (
            CircuitBreakerManager.get_instance().get_circuit_breaker(client.host, config).transitions
        )
        for before, after in itertools.pairwise(transitions):
            if before.new is CircuitBreakerState.OPEN:
                spans.append(after.at - before.at)
    control.send(spans)
    close_together(clients, timeout=0)


def measure(clients: int, processes: int, retry_after: int, windows: int, threshold: int) -> dict[str, Any]:
    """Run it, and tell what was seen."""
    server = Server(retry_after, windows)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    context = multiprocessing.get_context("spawn")
    each = clients // processes
    children, controls = [], []
    for number in range(processes):
        ours, theirs = context.Pipe()
        child = context.Process(target=run_clients, args=(url, number * each, each, threshold, theirs))
        child.start()
        children.append(child)
        controls.append(ours)
    started = time.monotonic()
    deadline = started + (windows + 20) * retry_after + 60
    while len(server.accepted) < each * processes and time.monotonic() < deadline:
        time.sleep(0.05)
    spans: list[float] = []
    for control in controls:
        control.send("over")
        spans += control.recv()
    for child in children:
        child.join(30)
    server.shutdown()
    server.server_close()

    early = 0
    for client, times in server.refused.items():
        following = [*times, *server.accepted.get(client, [])[:1]]
        early += sum(b - a < retry_after - TOLERANCE_SECONDS for a, b in itertools.pairwise(following))
    refusals = sum(map(len, server.refused.values()))
    first_refusal = min(times[0] for times in server.refused.values())
    refusing = (server.healthy_at - first_refusal) / retry_after
    back = Counter(
        int((times[0] - server.healthy_at) / retry_after * BINS) for times in server.accepted.values()
    )
    return {
        "clients": each * processes,
        "processes": processes,
        "retry_after": retry_after,
        "windows": round(refusing, 2),
        "requests_refused": refusals,
        "requests_per_client_and_window": round(refusals / (each * processes) / refusing, 3),
        "requests_too_early": early,
        "clients_back": len(server.accepted),
        "recovery_seconds": round(max(t[0] for t in server.accepted.values()) - server.healthy_at, 2),
        "largest_share_back_in_a_tenth_of_retry_after": round(max(back.values()) / len(server.accepted), 3),
        "circuits_opened": len(spans),
        "shortest_open_seconds": round(min(spans), 3) if spans else None,
        "seconds": round(time.monotonic() - started, 1),
    }


def problems(seen: dict[str, Any]) -> list[str]:
    """What was not as polite as promised."""
    found = []
    if seen["requests_per_client_and_window"] > 1.1:
        found.append("more than 1.1 requests per client and window")
    if seen["clients_back"] < seen["clients"]:
        found.append(f"only {seen['clients_back']} clients came back")
    if seen["shortest_open_seconds"] is not None and seen["shortest_open_seconds"] < seen["retry_after"]:
        found.append("a circuit was open for less time than asked")
    if seen["largest_share_back_in_a_tenth_of_retry_after"] > 0.6:
        found.append("the clients came back at once")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--retry-after", type=int, default=5)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--threshold", type=int, default=1)
    arguments = parser.parse_args()
    seen = measure(
        arguments.clients,
        arguments.processes,
        arguments.retry_after,
        arguments.windows,
        arguments.threshold,
    )
    print(json.dumps(seen))
    found = problems(seen)
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
