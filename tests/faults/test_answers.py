"""Unexpected answers, broken answers and error statuses."""

from __future__ import annotations

import gzip
import socket
import threading
import time

import pytest

from adbc_telemetry import (
    CircuitBreakerState,
    TelemetryClient,
)
from faults.network import GRACE, circuit_of, config, faulty_at_first, send, with_token
from faults.scenario import Scenario
from support.endpoints import (
    RawService,
    Serve,
    chunks_cut_short,
    chunks_of_garbage,
    endless_body,
    endless_header_line,
    endless_headers,
    garbage,
    no_answer,
    reset_in_mid_upload,
    two_lengths,
)
from support.logs import ids_of, make_logs
from support.server import (
    Reply,
    Request,
    TelemetryServer,
    close_in_mid_response,
    raw_endpoint,
)

# Unexpected and broken answers.

PORTAL = b"<html><body>Welcome to the hotel's network</body></html>"
ODD: dict[str, tuple[Reply, dict[str, int]]] = {
    "a captive portal's page": (Reply(200, {"Content-Type": "text/html"}, PORTAL), {"rejected": 8}),
    "an empty 200": (Reply(200, {}, b""), {}),
    "a 204": (Reply(204), {}),
    "a 202 without a count": (Reply(202, {}, b"{}"), {}),
    "a list": (Reply(200, {}, b"[]"), {"rejected": 8}),
    "a count that is a string": (Reply(200, {}, b'{"numProtoSuccess": "8"}'), {"rejected": 8}),
    "fewer than were sent": (Reply(200, {}, b'{"numProtoSuccess": 5}'), {"rejected": 3}),
    "more than were sent": (Reply(200, {}, b'{"numProtoSuccess": 5000}'), {}),
    "a count below zero": (Reply(200, {}, b'{"numProtoSuccess": -5}'), {"rejected": 8}),
    "bytes that are not UTF-8": (Reply(200, {}, b"\xff\xfe\x00{"), {"rejected": 8}),
    "a hundred thousand open brackets": (Reply(200, {}, b'{"errors":' + b"[" * 100_000), {"rejected": 8}),
    "unrequested gzip": (
        Reply(200, {"Content-Encoding": "gzip"}, gzip.compress(b'{"numProtoSuccess": 8}')),
        {"rejected": 8},
    ),
    "an unknown encoding": (Reply(200, {"Content-Encoding": "rot13"}, b"{}"), {}),
}


@pytest.mark.parametrize(("reply", "lost"), ODD.values(), ids=ODD)
def test_an_unexpected_answer(
    fault: Scenario, server: TelemetryServer, reply: Reply, lost: dict[str, int]
) -> None:
    """The first answer, in brackets, is not what the service sends; the second one is."""
    server.replies.append(reply)
    with TelemetryClient(server.url, config()) as client:
        send(client, 8)
        healthy = send(client, 2)
    fault.settled(client.stats(), sent=10)
    assert fault.lost == lost
    assert server.accepted == healthy
    assert len(server.requests) == 2  # A 2xx means that the server has the events: do not send them again.


BROKEN: dict[str, Serve] = {
    "garbage instead of HTTP": garbage,
    "no answer at all": no_answer,
    "a body cut short": close_in_mid_response,
    "chunks cut short": chunks_cut_short,
    "chunks of garbage": chunks_of_garbage,
    "two lengths that differ": two_lengths,
    "endless headers": endless_headers,
    "an endless header line": endless_header_line,
    "a reset in the middle of the upload": reset_in_mid_upload,
}


@pytest.mark.parametrize("faulty", BROKEN.values(), ids=BROKEN)
def test_a_broken_answer(fault: Scenario, faulty: Serve) -> None:
    """The server breaks HTTP or the connection twelve times; then it is healthy."""
    service = RawService()
    # More attempts than the pool has connections, so that a leaked connection would show.
    serve, connections = faulty_at_first(12, faulty, service)
    with raw_endpoint(serve) as url:
        settings = config(max_request_bytes=8_000_000, max_retries=2)
        with TelemetryClient(url, settings, auth=with_token) as client:
            for _ in range(4):
                send(client, 5, session_id="x" * 400_000)
            healthy = send(client, 5)
        assert client.stats().errors == 0
    fault.settled(client.stats(), sent=25, arrived=service.accepted)
    assert fault.lost == {"failed": 20}
    assert service.accepted == healthy
    assert len(connections) == 13  # one connection per attempt


def test_an_endless_body(fault: Scenario) -> None:
    """Twelve times the server answers 200 and sends body bytes without end; then it is healthy."""
    service = RawService()
    serve, connections = faulty_at_first(12, endless_body, service)
    settings = config(request_timeout_ms=500, max_retries=0)
    with raw_endpoint(serve) as url, TelemetryClient(url, settings) as client:
        for _ in range(12):
            send(client, 5)
        healthy = send(client, 5)
    fault.settled(client.stats(), sent=65, arrived=service.accepted)
    assert fault.lost == {"rejected": 60}
    assert service.accepted == healthy
    assert len(connections) == 13


def test_more_answers_than_requests(fault: Scenario) -> None:
    """The server sends a second answer after each one: an error that did not happen."""
    service = RawService()

    def serve(connection: socket.socket) -> None:
        while True:
            request = service.read(connection)
            service.accepted.extend(request.ids)
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
            connection.sendall(answer + answer.replace(b"200 OK", b"400 Bad Request"))

    with raw_endpoint(serve) as url, TelemetryClient(url, config()) as client:
        for _ in range(3):
            send(client, 5)
    fault.settled(client.stats(), sent=15, arrived=service.accepted)
    assert fault.delivered == 15


# Error statuses.


def test_an_interim_answer_before_the_answer(fault: Scenario) -> None:
    """The server sends a 103 Early Hints before each answer."""
    service = RawService()

    def serve(connection: socket.socket) -> None:
        while True:
            request = service.read(connection)
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
            service.accept(connection, request)

    with raw_endpoint(serve) as url, TelemetryClient(url, config(max_retries=0)) as client:
        send(client, 5)
        send(client, 5)
    fault.settled(client.stats(), sent=10)
    assert fault.delivered == 10


def test_too_many_requests(fault: Scenario, server: TelemetryServer) -> None:
    """The server answers 429 with a Retry-After of one second."""
    server.replies.append(Reply(429, {"Retry-After": "1"}))
    with TelemetryClient(server.url, config()) as client:
        send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=server.accepted)
    assert fault.delivered == 10
    first, second = server.requests
    assert 1.0 <= second.at - first.at < 1.0 + GRACE


def test_a_retry_after_of_a_day(
    fault: Scenario, server: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server answers 503 with a Retry-After of one day; the program closes the client."""
    server.always = lambda _: Reply(503, {"Retry-After": "86400"})
    backing_off = threading.Event()

    def uniform(low: float, high: float) -> float:
        backing_off.set()
        return low

    monkeypatch.setattr("adbc_telemetry.transport.retry._uniform", uniform)
    client = TelemetryClient(server.url, config())
    for log in make_logs(100):
        client.enqueue(log)
    assert backing_off.wait(10)
    started = time.monotonic()
    client.close(10)
    assert time.monotonic() - started < GRACE  # close does not wait for the Retry-After
    fault.settled(client.stats(), sent=100, arrived=server.accepted)
    assert fault.lost == {"failed": 100}
    assert len(server.requests) == 1


def test_a_storm_of_503(fault: Scenario, server: TelemetryServer) -> None:
    """The server answers 503 to every request; each batch is tried twice, and after three batches the circuit opens."""
    server.always = lambda _: Reply(503)
    with TelemetryClient(server.url, config(max_retries=1, circuit_breaker_threshold=3)) as client:
        for _ in range(10):
            send(client, 5)
        assert circuit_of(client) is CircuitBreakerState.OPEN
    fault.settled(client.stats(), sent=50, arrived=server.accepted)
    assert fault.lost == {"failed": 15, "dropped_circuit_open": 35}
    assert len(server.requests) == 6


def test_a_storm_of_503_that_passes(fault: Scenario, server: TelemetryServer) -> None:
    """The server answers 503 until the circuit opens; at the next attempt it is healthy."""
    server.replies.extend([Reply(503)] * 3)
    settings = config(
        max_retries=0, circuit_breaker_threshold=3, circuit_breaker_timeout_ms=50, circuit_open="retain"
    )
    with TelemetryClient(server.url, settings) as client:
        for _ in range(6):
            send(client, 5)
        assert circuit_of(client) is CircuitBreakerState.CLOSED
    fault.settled(client.stats(), sent=30, arrived=server.accepted)
    assert fault.lost == {"failed": 15}


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_an_error_that_passes(fault: Scenario, server: TelemetryServer, status: int) -> None:
    """The server answers twice with the status in brackets, then it is healthy."""
    server.replies.extend([Reply(status), Reply(status)])
    with TelemetryClient(server.url, config(max_retries=2)) as client:
        sent = send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=server.accepted)
    assert server.accepted == sent
    assert len(server.requests) == 3


def test_a_server_that_takes_single_events_only(fault: Scenario, server: TelemetryServer) -> None:
    """The server answers 413 to every request with more than one event, and to one particular event alone."""

    def too_large(request: Request) -> Reply:
        return Reply(413) if len(request.ids) > 1 or request.ids == [poison] else Reply()

    server.always = too_large
    logs = make_logs(16)
    poison = ids_of(logs)[5]
    with TelemetryClient(server.url, config(max_retries=0)) as client:
        for log in logs:
            client.enqueue(log)
    fault.settled(client.stats(), sent=16, arrived=server.accepted)
    assert fault.lost == {"rejected": 1}
    assert server.accepted == [event for event in ids_of(logs) if event != poison]


def test_a_split_that_is_cut_short(fault: Scenario, server: TelemetryServer) -> None:
    """A 413 splits the batch; the second half meets an outage."""
    server.replies.extend([Reply(413), Reply(), Reply(500)])
    with TelemetryClient(server.url, config(max_retries=0)) as client:
        send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=server.accepted)
    assert fault.lost == {"failed": 5}
