"""The client: close loses nothing, and never hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from adbc_telemetry import (
    ExportResult,
    InMemoryTelemetryExporter,
    TelemetryClient,
)
from adbc_telemetry.schema import TelemetryFrontendLog
from support.clients import GatedExporter, assert_account_closes, configuration
from support.logs import make_log, make_logs
from support.server import Reply, TelemetryServer, black_hole, raw_endpoint
from support.waiting import run_in_threads, wait_until

# Promise 5: nothing is lost at close.


def test_close_delivers_what_is_queued() -> None:
    exporter = InMemoryTelemetryExporter()
    client = TelemetryClient("host", configuration(), exporter=exporter)
    for log in make_logs(250):
        client.enqueue(log)
    assert client.close() is True
    assert len(exporter.logs) == 250
    assert exporter.closed


def test_close_waits_for_the_request_in_flight() -> None:
    release = threading.Event()
    with TelemetryServer() as server:
        server.replies.append(Reply(release=release))
        client = TelemetryClient(server.url, configuration(batch_size=1))
        client.enqueue(make_log("in flight"))
        wait_until(lambda: server.requests)
        closed: list[bool] = []
        closing = threading.Thread(target=lambda: closed.append(client.close()))
        closing.start()
        closing.join(0.1)
        assert closing.is_alive(), "close has not waited"
        release.set()
        closing.join(10)
        assert closed == [True]
        assert server.accepted == ["in flight"]
        assert client.stats().delivered == 1


def test_what_close_could_not_deliver_in_time_is_counted() -> None:
    exporter = GatedExporter()
    client = TelemetryClient("host", configuration(batch_size=10), exporter=exporter)
    for log in make_logs(35):
        client.enqueue(log)
    assert exporter.entered.wait(10)
    assert client.close(timeout=0.05) is False
    stats = assert_account_closes(client, 35)
    assert (stats.failed, stats.dropped_closed, stats.queued, stats.in_flight) == (10, 25, 0, 0)


def test_an_exporter_that_does_not_let_go_is_counted_once_even_when_it_ends_later() -> None:
    gate = threading.Event()

    class Stubborn(InMemoryTelemetryExporter):
        def export(
            self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None
        ) -> ExportResult:
            gate.wait(30)
            return super().export(logs, deadline=deadline)

    exporter = Stubborn()
    client = TelemetryClient("host", configuration(batch_size=1), exporter=exporter)
    client.enqueue(make_log())
    wait_until(lambda: client.stats().in_flight == 1)
    started = time.monotonic()
    assert client.close(timeout=0.05) is False
    assert time.monotonic() - started < 0.05 + 0.25
    assert client.stats().failed == 1
    gate.set()
    wait_until(lambda: len(exporter.logs) == 1)
    assert_account_closes(client, 1)


def test_close_is_idempotent_and_a_second_caller_waits_for_the_first() -> None:
    exporter = GatedExporter()
    client = TelemetryClient("host", configuration(batch_size=1), exporter=exporter)
    client.enqueue(make_log())
    assert exporter.entered.wait(10)
    ended: list[bool] = []
    closers = [threading.Thread(target=lambda: ended.append(client.close())) for _ in range(4)]
    for closer in closers:
        closer.start()
    closers[1].join(0.05)
    assert ended == []
    exporter.gate.set()
    for closer in closers:
        closer.join(10)
    assert ended == [True] * 4
    assert client.close() is True
    assert client.stats().delivered == 1


def test_enqueue_after_close_is_counted_and_does_nothing() -> None:
    exporter = InMemoryTelemetryExporter()
    client = TelemetryClient("host", configuration(), exporter=exporter)
    client.close()
    for log in make_logs(3):
        client.enqueue(log)
    assert client.flush(1)
    stats = assert_account_closes(client, 3)
    assert (stats.dropped_closed, stats.queued) == (3, 0)
    assert exporter.logs == []


def test_enqueue_racing_with_close_is_delivered_or_counted() -> None:
    for _ in range(30):
        exporter = InMemoryTelemetryExporter()
        client = TelemetryClient("host", configuration(batch_size=5), exporter=exporter)

        def work(index: int, client: TelemetryClient = client) -> None:
            if index == 0:
                client.close()
            else:
                for log in make_logs(50):
                    client.enqueue(log)

        run_in_threads(4, work)
        stats = assert_account_closes(client, 150)
        assert stats.delivered == len(exporter.logs)
        assert stats.delivered + stats.dropped_closed == 150


# Promise 6: close never hangs.


def test_close_against_a_black_hole_returns_within_its_timeout_and_250_ms() -> None:
    with raw_endpoint(black_hole) as url:
        client = TelemetryClient(url, configuration(batch_size=1, close_timeout_ms=300))
        client.enqueue(make_log())
        wait_until(lambda: client.stats().in_flight == 1)
        started = time.monotonic()
        assert client.close() is False
        assert 0.25 < time.monotonic() - started < 0.3 + 0.25
        assert_account_closes(client, 1)


def test_close_ends_a_retry_after_that_would_outlast_it_at_once() -> None:
    with TelemetryServer() as server:
        server.always = lambda _: Reply(429, {"Retry-After": "25"})
        client = TelemetryClient(server.url, configuration(batch_size=1, close_timeout_ms=5000))
        client.enqueue(make_log())
        wait_until(lambda: server.requests)
        started = time.monotonic()
        assert client.close() is True
        assert time.monotonic() - started < 2.5
        assert client.stats().failed == 1
        assert len(server.requests) == 1


def test_a_timeout_of_zero_closes_at_once() -> None:
    with raw_endpoint(black_hole) as url:
        client = TelemetryClient(url, configuration(batch_size=1))
        client.enqueue(make_log())
        started = time.monotonic()
        client.close(timeout=0)
        assert time.monotonic() - started < 0.25
        assert_account_closes(client, 1)
