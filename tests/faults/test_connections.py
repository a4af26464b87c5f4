"""Connections that do not last, and servers that do not read."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable

import pytest

from adbc_telemetry import (
    TelemetryClient,
)
from faults.network import config, send, with_token
from faults.scenario import Scenario
from support.endpoints import (
    RawService,
    read_head,
    reset,
    write_answer,
)
from support.server import (
    raw_endpoint,
)
from support.waiting import wait_until

# Servers that answer before they read the body.


def test_a_server_that_refuses_the_size_before_it_reads_the_body(fault: Scenario) -> None:
    """The server reads only the head, answers 413 and resets the connection, until the request is small enough."""
    service = RawService()
    refused: list[int] = []

    def serve(connection: socket.socket) -> None:
        # MSG_PEEK leaves the bytes in the socket for the healthy server.
        while True:
            head = b""
            while b"\r\n\r\n" not in head:
                head = connection.recv(65536, socket.MSG_PEEK)
                if not head:
                    return
            length = int(re.search(rb"Content-Length: (\d+)", head).group(1))  # type: ignore[union-attr]
            if length > 350_000:
                refused.append(length)
                write_answer(connection, "413 Content Too Large", b"", "Connection: close")
                connection.close()  # unread data makes this a reset
                return
            service.accept(connection, service.read(connection))

    with raw_endpoint(serve) as url:
        settings = config(max_request_bytes=16_000_000, max_retries=0)
        with TelemetryClient(url, settings, auth=with_token) as client:
            sent = send(client, 40, session_id="x" * 100_000)
    fault.settled(client.stats(), sent=40, arrived=service.accepted)
    assert service.accepted == sent
    assert refused[0] > 4_000_000
    assert max(len(request.raw) for request in service.requests) <= 350_000


def test_a_server_that_answers_before_it_reads_the_body(fault: Scenario) -> None:
    """The server reads only the head, answers 200 and resets the connection, with several MB of the body unread."""
    asked: list[str] = []

    def serve(connection: socket.socket) -> None:
        asked.append(read_head(connection)[0])
        write_answer(connection, "200 OK", b'{"numProtoSuccess": 40}')
        connection.close()

    settings = config(max_request_bytes=16_000_000)
    with raw_endpoint(serve) as url, TelemetryClient(url, settings) as client:
        send(client, 40, session_id="x" * 100_000)
    fault.settled(client.stats(), sent=40)
    assert fault.delivered == 40  # the server said 200: do not send the batch again
    assert len(asked) == 1


def test_a_server_that_reads_slowly(fault: Scenario) -> None:
    """The server has a small receive window and reads a request of several MB in steps of one KB."""
    service = RawService()

    def serve(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
        while True:
            service.accept(connection, service.read(connection, 1024))

    with raw_endpoint(serve) as url:
        settings = config(max_request_bytes=16_000_000, max_retries=0)
        with TelemetryClient(url, settings) as client:
            send(client, 30, session_id="x" * 100_000)
    fault.settled(client.stats(), sent=30, arrived=service.accepted)
    assert fault.delivered == 30
    assert len(service.requests) == 1


# Connections that do not last.


@pytest.mark.parametrize("end", [socket.socket.close, reset], ids=["closed", "reset"])
def test_a_connection_that_dies_idle(fault: Scenario, end: Callable[[socket.socket], None]) -> None:
    """The server ends the kept-alive connection between two batches."""
    service = RawService()
    ended: list[int] = []
    end_now = threading.Semaphore(0)

    def serve(connection: socket.socket) -> None:
        service.accept(connection, service.read(connection))
        end_now.acquire()
        end(connection)
        ended.append(1)

    with raw_endpoint(serve) as url, TelemetryClient(url, config(max_retries=0)) as client:
        for count in range(1, 4):
            send(client, 5)
            end_now.release()
            wait_until(lambda count=count: len(ended) == count)  # type: ignore[misc]
    fault.settled(client.stats(), sent=15, arrived=service.accepted)
    assert fault.delivered == 15


def test_a_connection_that_dies_when_the_next_request_arrives(fault: Scenario) -> None:
    """The server resets each connection when its second request arrives."""
    service = RawService()

    def serve(connection: socket.socket) -> None:
        service.accept(connection, service.read(connection))
        read_head(connection)
        reset(connection)

    with raw_endpoint(serve) as url, TelemetryClient(url, config(max_retries=1)) as client:
        for _ in range(4):
            send(client, 5)
    fault.settled(client.stats(), sent=20, arrived=service.accepted)
    assert fault.delivered == 20


@pytest.mark.parametrize("headers", [(), ("Connection: close",)], ids=["unannounced", "announced"])
def test_a_server_that_closes_after_every_answer(fault: Scenario, headers: tuple[str, ...]) -> None:
    """Each connection serves one request."""
    service = RawService()
    closed: list[int] = []

    def serve(connection: socket.socket) -> None:
        service.accept(connection, service.read(connection), *headers)
        connection.close()
        closed.append(1)

    with raw_endpoint(serve) as url, TelemetryClient(url, config(max_retries=0)) as client:
        for count in range(1, 6):
            send(client, 5)
            wait_until(lambda count=count: len(closed) == count)  # type: ignore[misc]
    fault.settled(client.stats(), sent=25, arrived=service.accepted)
    assert fault.delivered == 25


@pytest.mark.parametrize(("down", "lost"), [(2, {}), (3, {"failed": 25})], ids=["short", "long"])
def test_a_server_that_flaps(fault: Scenario, down: int, lost: dict[str, int]) -> None:
    """The server answers three requests, resets the next few, and so on; each batch is tried three times."""
    service = RawService()
    healthy = RawService()
    cycle = 3 + down

    def serve(connection: socket.socket) -> None:
        while True:
            request = service.read(connection)
            if (len(service.requests) - 1) % cycle >= 3:
                reset(connection)
                return
            healthy.accept(connection, request)

    with raw_endpoint(serve) as url, TelemetryClient(url, config(max_retries=2)) as client:
        for _ in range(20):
            send(client, 5)
    fault.settled(client.stats(), sent=100, arrived=healthy.accepted)
    assert fault.lost == lost
