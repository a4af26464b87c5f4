"""The client: when batches are sent, and in which order."""

from __future__ import annotations

import gc
import time
import weakref
from typing import Any

import pytest

from adbc_telemetry import (
    InMemoryTelemetryExporter,
    TelemetryClient,
)
from adbc_telemetry.pipeline import batch_timing
from adbc_telemetry.pipeline.sender import SenderThreads
from support.clients import configuration
from support.logs import ids_of, make_log, make_logs
from support.waiting import wait_until


def test_batches_hold_at_most_batch_size_events() -> None:
    exporter = InMemoryTelemetryExporter()
    with TelemetryClient("host", configuration(batch_size=7), exporter=exporter) as client:
        for log in make_logs(100):
            client.enqueue(log)
        assert client.flush(10)
    assert max(len(batch) for batch in exporter.batches) <= 7
    assert sum(len(batch) for batch in exporter.batches) == 100


def test_a_full_batch_is_sent_without_a_flush() -> None:
    exporter = InMemoryTelemetryExporter()
    with TelemetryClient("host", configuration(batch_size=5), exporter=exporter) as client:
        for log in make_logs(5):
            client.enqueue(log)
        wait_until(lambda: len(exporter.logs) == 5)


def test_a_part_of_a_batch_is_sent_after_the_flush_interval() -> None:
    exporter = InMemoryTelemetryExporter()
    config = configuration(batch_size=1000, flush_interval_ms=30)
    with TelemetryClient("host", config, exporter=exporter) as client:
        started = time.monotonic()
        for round_ in range(1, 4):
            client.enqueue(make_log())
            wait_until(lambda count=round_: len(exporter.logs) == count)  # type: ignore[misc]
            assert time.monotonic() - started >= 0.03 * round_


def send_full_batch(client: TelemetryClient, exporter: InMemoryTelemetryExporter, size: int) -> None:
    goal = len(exporter.logs) + size
    for log in make_logs(size):
        client.enqueue(log)
    wait_until(lambda: len(exporter.logs) == goal)
    wait_until(
        lambda: client._queue.wake_threshold <= client.stats().queued + 10 * size
    )  # the sender has gone back to sleep


def test_the_first_event_after_a_full_batch_does_not_wake_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[object] = []
    wake = SenderThreads.wake

    def spy(threads: SenderThreads, client: Any) -> None:
        woken.append(client)
        wake(threads, client)

    monkeypatch.setattr(SenderThreads, "wake", spy)
    monkeypatch.setattr(batch_timing, "_REST_SECONDS", 0.0)
    exporter = InMemoryTelemetryExporter()
    with TelemetryClient("host", configuration(batch_size=5), exporter=exporter) as client:
        for _ in range(3):
            woken.clear()
            send_full_batch(client, exporter, 5)
            assert client._queue.wake_threshold == 5
        assert len(woken) == 1, "by the batch, when it was full"


def test_after_a_part_of_a_batch_the_sender_waits_for_the_next_event() -> None:
    exporter = InMemoryTelemetryExporter()
    with TelemetryClient("host", configuration(batch_size=5), exporter=exporter) as client:
        client.enqueue(make_log())
        assert client.flush(10)
        wait_until(lambda: client._queue.wake_threshold == 1)  # no full batch, so no more is expected


def test_a_client_without_events_goes_idle_after_the_flush_interval() -> None:
    exporter = InMemoryTelemetryExporter()
    config = configuration(batch_size=5, flush_interval_ms=20)
    with TelemetryClient("host", config, exporter=exporter) as client:
        send_full_batch(client, exporter, 5)
        wait_until(lambda: client._queue.wake_threshold == 1)


def test_full_batches_that_follow_each_other_closely_are_sent_several_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_timing, "_REST_SECONDS", 30.0)
    exporter = InMemoryTelemetryExporter()
    with TelemetryClient("host", configuration(batch_size=5), exporter=exporter) as client:
        send_full_batch(client, exporter, 5)
        assert client._queue.wake_threshold == 5, "a full batch by itself is no crowd"
        send_full_batch(client, exporter, 5)
        assert client._queue.wake_threshold == 50
        for log in make_logs(49):
            client.enqueue(log)
        assert len(exporter.logs) == 10
        client.enqueue(make_log())
        wait_until(lambda: len(exporter.logs) == 60)
        wait_until(lambda: client._queue.wake_threshold == 50)
        client.enqueue(make_log())
        started = time.monotonic()
        assert client.flush(20), "a flush ends the rest"
        assert time.monotonic() - started < 10


def test_a_crowd_is_a_tenth_of_the_queue_at_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_timing, "_REST_SECONDS", 30.0)
    exporter = InMemoryTelemetryExporter()
    config = configuration(batch_size=5, max_queue_size=100)
    with TelemetryClient("host", config, exporter=exporter) as client:
        send_full_batch(client, exporter, 5)
        send_full_batch(client, exporter, 5)
        assert client._queue.wake_threshold == 10
        send_full_batch(client, exporter, 10)


def test_the_rest_between_full_batches_is_short_and_ends_by_itself() -> None:
    exporter = InMemoryTelemetryExporter()
    with TelemetryClient("host", configuration(batch_size=5), exporter=exporter) as client:
        for size in (5, 5, 15, 5):
            send_full_batch(client, exporter, size)


def test_events_that_are_sent_one_by_one_are_sent_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_timing, "_REST_SECONDS", 30.0)
    exporter = InMemoryTelemetryExporter()
    with TelemetryClient("host", configuration(batch_size=1), exporter=exporter) as client:
        for _ in range(5):
            send_full_batch(client, exporter, 1)


def test_the_rest_between_full_batches_is_no_longer_than_the_flush_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_timing, "_REST_SECONDS", 30.0)
    exporter = InMemoryTelemetryExporter()
    config = configuration(batch_size=5, flush_interval_ms=20)
    with TelemetryClient("host", config, exporter=exporter) as client:
        for count in (5, 10, 13, 18, 19):
            for log in make_logs(count - len(exporter.logs)):
                client.enqueue(log)
            wait_until(lambda: len(exporter.logs) == count)  # noqa: B023


def test_what_came_in_a_rest_is_no_older_than_the_flush_interval_when_it_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_timing, "_REST_SECONDS", 0.5)
    exporter = InMemoryTelemetryExporter()
    config = configuration(batch_size=5, flush_interval_ms=1000)
    with TelemetryClient("host", config, exporter=exporter) as client:
        send_full_batch(client, exporter, 5)
        send_full_batch(client, exporter, 5)
        started = time.monotonic()
        for log in make_logs(8):
            client.enqueue(log)
        wait_until(lambda: len(exporter.logs) == 18)
        assert time.monotonic() - started < 1.4, "and not half a second later, with the time in the rest"


def test_a_closed_client_is_forgotten_by_the_sender_at_once() -> None:
    config = configuration(batch_size=5)
    with TelemetryClient("other", config, exporter=InMemoryTelemetryExporter()) as other:
        exporter = InMemoryTelemetryExporter()
        client = TelemetryClient("host", config, exporter=exporter)
        send_full_batch(client, exporter, 5)
        assert client.close(5)
        closed = weakref.ref(client)
        del client

        def is_gone() -> bool:
            gc.collect()
            return closed() is None

        wait_until(is_gone)
        assert other.is_open


def test_events_arrive_in_the_order_of_their_coming() -> None:
    exporter = InMemoryTelemetryExporter()
    logs = make_logs(5000)
    with TelemetryClient("host", configuration(batch_size=64), exporter=exporter) as client:
        for log in logs:
            client.enqueue(log)
    assert ids_of(exporter.logs) == ids_of(logs)
