"""Helpers of the network scenarios."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from adbc_telemetry import (
    CircuitBreakerManager,
    CircuitBreakerState,
    TelemetryClient,
    TelemetryConfiguration,
)
from support.endpoints import (
    RawService,
    Serve,
    full_backlog,
)
from support.logs import ids_of, make_log
from support.server import (
    raw_endpoint,
)
from support.waiting import wait_until

NAME = "telemetry.example"
TOKEN = "Bearer sentinel-token"
# Seconds that a close or an export may take beyond its timeout or deadline.
GRACE = 0.25


def with_token() -> dict[str, str]:
    return {"Authorization": TOKEN}


def config(**settings: Any) -> TelemetryConfiguration:
    return TelemetryConfiguration(
        **{"enabled": True, "max_retries": 2, "retry_delay_ms": 1, "request_timeout_ms": 5000, **settings}
    )


def send(client: TelemetryClient, count: int = 1, **fields: Any) -> list[str]:
    """Enqueue `count` events, flush, and return their ids once each has an outcome."""
    logs = [make_log(**fields) for _ in range(count)]
    for log in logs:
        client.enqueue(log)
    assert client.flush(20)
    return ids_of(logs)


def circuit_of(client: TelemetryClient) -> CircuitBreakerState:
    return CircuitBreakerManager.get_instance().get_circuit_breaker(client.host).state


def senders() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("adbc-telemetry")]


def faulty_at_first(count: int, faulty: Serve, service: RawService) -> tuple[Serve, list[socket.socket]]:
    """Serve the first `count` connections with `faulty` and the rest as a healthy service.

    Returns that function and the list of connections.
    """
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        connections.append(connection)
        (faulty if len(connections) <= count else service.serve)(connection)

    return serve, connections


@contextmanager
def faulty_endpoint(faulty: Serve | None) -> Iterator[tuple[str, threading.Event]]:
    """The URL of an endpoint that `faulty` serves, and an event that is set once a client connects.

    With `faulty` None, the backlog is full and no connection succeeds.
    """
    reached = threading.Event()

    def serve(connection: socket.socket) -> None:
        reached.set()
        faulty(connection)  # type: ignore[misc]

    if faulty is None:
        reached.set()
    with raw_endpoint(serve) if faulty else full_backlog() as url:
        yield url, reached


def close_in_the_middle(client: TelemetryClient, reached: threading.Event) -> None:
    """Close while one batch hangs in flight and one event waits behind it."""
    for _ in range(100):
        client.enqueue(make_log(session_id="x" * 100_000))
    assert reached.wait(10)
    wait_until(lambda: client.stats().in_flight == 100)
    client.enqueue(make_log())
    started = time.monotonic()
    client.close(0.3)
    assert 0.3 <= time.monotonic() - started < 0.3 + GRACE
    # The request must not keep running after the close.
    wait_until(lambda: senders() == [], timeout=1, what=lambda: f"still running: {senders()}")
