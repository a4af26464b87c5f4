"""The client: enqueue never blocks, everything is accounted for, flush is a barrier, close loses nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

import pytest

from adbc_telemetry import (
    ClientStats,
    ExportOutcome,
    ExportResult,
    InMemoryTelemetryExporter,
    NoopTelemetryClient,
    TelemetryClient,
    TelemetryClientProtocol,
    TelemetryConfiguration,
)
from adbc_telemetry.pipeline import batch_timing
from adbc_telemetry.pipeline.sender import SenderThreads
from adbc_telemetry.schema import TelemetryFrontendLog
from models.held import Call, HeldExporter
from support.logs import ids_of, make_log, make_logs
from support.server import Reply, TelemetryServer, black_hole, raw_endpoint, refused_url
from support.waiting import run_in_threads, wait_until


def configuration(**settings: object) -> TelemetryConfiguration:
    return TelemetryConfiguration(**{"enabled": True, "flush_interval_ms": 60_000, **settings})  # type: ignore[arg-type]


class GatedExporter(InMemoryTelemetryExporter):
    """Holds every export until `gate` is set, or the exporter is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.entered = threading.Event()

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        self.entered.set()
        self.gate.wait(30)
        if self.closed:
            return ExportResult(outcome=ExportOutcome.CANCELLED)
        return super().export(logs, deadline=deadline)

    def close(self) -> None:
        super().close()
        self.gate.set()


def assert_account_closes(client: TelemetryClient, enqueued: int) -> ClientStats:
    stats = client.stats()
    assert stats.closes, stats
    assert stats.enqueued == enqueued, stats
    return stats


# Promise 2: enqueue never blocks.


def test_enqueue_does_not_wait_for_a_sender_that_hangs_in_a_request() -> None:
    exporter = GatedExporter()
    client = TelemetryClient("host", configuration(batch_size=1, max_queue_size=100), exporter=exporter)
    client.enqueue(make_log())
    assert exporter.entered.wait(10)
    done = threading.Event()

    def enqueue() -> None:
        for log in make_logs(1000):
            client.enqueue(log)
        done.set()

    threading.Thread(target=enqueue).start()
    assert done.wait(10), "enqueue waits for the request"
    exporter.gate.set()
    assert client.close()
    assert_account_closes(client, 1001)


def test_enqueue_takes_no_lock_of_the_client_s() -> None:
    exporter = InMemoryTelemetryExporter()
    client = TelemetryClient("host", configuration(batch_size=10, max_queue_size=20), exporter=exporter)
    done = threading.Event()

    def enqueue() -> None:
        for log in make_logs(500):  # through every wake threshold: first event, full batch, full queue
            client.enqueue(log)
        done.set()

    with client._flow.lock:
        threading.Thread(target=enqueue).start()
        assert done.wait(10), "enqueue waits for a lock"
    assert client.close()
    assert_account_closes(client, 500)


def test_enqueue_encodes_nothing_on_the_caller_s_thread() -> None:
    threads: set[str] = set()

    class Watching(InMemoryTelemetryExporter):
        def export(
            self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None
        ) -> ExportResult:
            threads.add(threading.current_thread().name)
            return super().export(logs, deadline=deadline)

    with TelemetryClient("host", configuration(batch_size=1), exporter=Watching()) as client:
        for log in make_logs(50):
            client.enqueue(log)
        assert client.flush(10)
    assert threads
    assert all(name.startswith("adbc-telemetry-sender") for name in threads)


# Promise 3: every event is accounted for.


@pytest.mark.parametrize("capacity", [30_000, 250_000])
def test_sixteen_threads_enqueue_200_000_events_while_others_flush_and_close_comes_in_mid_request(
    capacity: int,
) -> None:
    release = threading.Event()
    with TelemetryServer() as server:
        client = TelemetryClient(
            server.url, configuration(batch_size=1000, max_queue_size=capacity, close_timeout_ms=30_000)
        )
        batches = [[make_log() for _ in range(12_500)] for _ in range(16)]
        all_ids = {log.frontend_log_event_id for batch in batches for log in batch}
        producing = threading.Event()
        producing.set()

        def flush_now_and_then() -> None:
            while producing.is_set():
                client.flush(0.05)

        flushers = [threading.Thread(target=flush_now_and_then) for _ in range(2)]
        for flusher in flushers:
            flusher.start()

        def enqueue(index: int) -> None:
            for position, log in enumerate(batches[index]):
                client.enqueue(log)
                if index == 0 and position == 12_000:
                    server.replies.append(Reply(release=release))

        run_in_threads(16, enqueue)
        producing.clear()
        client.enqueue(make_log("last"))
        client.flush(0)
        closing = threading.Thread(target=client.close)
        closing.start()
        release.set()
        closing.join(40)
        for flusher in flushers:
            flusher.join(10)
        assert not closing.is_alive()
        stats = assert_account_closes(client, 200_001)
        assert stats.queued == stats.in_flight == 0
        assert len(server.accepted) == len(set(server.accepted)), "an event arrived twice"
        assert set(server.accepted) <= all_ids | {"last"}
        assert stats.delivered == len(server.accepted)
        assert stats.delivered + stats.dropped_queue_full == 200_001
        assert capacity < 200_000 or stats.delivered == 200_001


def test_each_kind_of_outcome_has_its_place_in_the_account() -> None:
    outcomes = iter(
        [
            ExportResult(outcome=ExportOutcome.DELIVERED, delivered=7, rejected=3, reason="three were bad"),
            ExportResult(outcome=ExportOutcome.REJECTED, reason="HTTP 400"),
            ExportResult(outcome=ExportOutcome.FAILED, delivered=4, reason="HTTP 503"),
            ExportResult(outcome=ExportOutcome.DROPPED),
            ExportResult(outcome=ExportOutcome.CANCELLED),
            ExportResult(outcome=ExportOutcome.DELIVERED),
            ExportResult(outcome=ExportOutcome.DELIVERED, delivered=1000, rejected=-5),
        ]
    )

    class Scripted(InMemoryTelemetryExporter):
        def export(
            self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None
        ) -> ExportResult:
            return next(outcomes)

    config = configuration(batch_size=10, circuit_breaker_enabled=False)
    client = TelemetryClient("host", config, exporter=Scripted())
    for _ in range(7):
        for log in make_logs(10):
            client.enqueue(log)
        assert client.flush(10)
    stats = assert_account_closes(client, 70)
    assert (stats.delivered, stats.rejected, stats.failed, stats.dropped_circuit_open) == (31, 13, 16, 10)
    assert client.close()


def test_an_exporter_that_raises_or_answers_nonsense_costs_its_batch_alone() -> None:
    class Broken(InMemoryTelemetryExporter):
        calls = 0

        def export(
            self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None
        ) -> ExportResult:
            self.calls += 1
            if self.calls == 1:
                raise RuntimeError("broken")
            if self.calls == 2:
                return None  # type: ignore[return-value]
            if self.calls == 3:
                raise SystemExit(1)
            return super().export(logs, deadline=deadline)

    exporter = Broken()
    config = configuration(batch_size=1, circuit_breaker_enabled=False)
    with TelemetryClient("host", config, exporter=exporter) as client:
        for _ in range(4):
            client.enqueue(make_log())
            assert client.flush(10)
        stats = assert_account_closes(client, 4)
        assert (stats.failed, stats.delivered) == (3, 1)


# Promise 4: flush is a barrier.


def test_flush_sends_at_once_what_would_have_waited_for_a_batch() -> None:
    exporter = InMemoryTelemetryExporter()
    with TelemetryClient("host", configuration(), exporter=exporter) as client:
        logs = make_logs(3)
        for log in logs:
            client.enqueue(log)
        assert client.flush(10)
        assert ids_of(exporter.logs) == ids_of(logs)


def test_flush_waits_for_the_batch_in_flight() -> None:
    exporter = GatedExporter()
    client = TelemetryClient("host", configuration(batch_size=1), exporter=exporter)
    client.enqueue(make_log())
    assert exporter.entered.wait(10)
    assert client.stats().in_flight == 1
    assert client.flush(0.05) is False
    exporter.gate.set()
    assert client.flush(10) is True
    assert client.stats().delivered == 1
    assert client.close()


def test_a_flush_while_another_is_under_way_waits_for_its_own_events_too() -> None:
    exporter = GatedExporter()
    client = TelemetryClient("host", configuration(), exporter=exporter)
    client.enqueue(make_log())
    first = threading.Thread(target=client.flush)
    first.start()
    assert exporter.entered.wait(10)
    late = make_log()
    client.enqueue(late)
    results: list[tuple[bool, bool]] = []

    def flush() -> None:
        results.append((client.flush(10), late in exporter.logs))

    second = threading.Thread(target=flush)
    second.start()
    second.join(0.05)
    assert results == []
    exporter.gate.set()
    second.join(10)
    first.join(10)
    assert results == [(True, True)]
    assert client.close()


def test_flush_does_not_wait_for_events_that_come_after_it() -> None:
    exporter = InMemoryTelemetryExporter()
    # A small queue: the producer would fill any in no time, and the flush then waits for all of it.
    config = configuration(batch_size=10, max_queue_size=100)
    client = TelemetryClient("host", config, exporter=exporter)
    stop = threading.Event()

    def enqueue() -> None:
        while not stop.is_set():
            client.enqueue(make_log())

    producer = threading.Thread(target=enqueue)
    producer.start()
    try:
        for _ in range(20):
            assert client.flush(10)
    finally:
        stop.set()
        producer.join(10)
        client.close()


def test_flush_of_an_empty_queue_returns_at_once() -> None:
    with TelemetryClient("host", configuration(), exporter=GatedExporter()) as client:
        assert client.flush(0) is True


def test_flush_counts_lost_events_as_ended() -> None:
    config = configuration(max_retries=0)
    with TelemetryClient(refused_url(), config) as client:
        client.enqueue(make_log())
        assert client.flush(10) is True
        assert client.stats().failed == 1


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


# Promise 8: memory and threads are bounded.


def test_beyond_max_queue_size_the_new_event_is_dropped_and_counted() -> None:
    exporter = GatedExporter()
    client = TelemetryClient("host", configuration(batch_size=10, max_queue_size=50), exporter=exporter)
    for log in make_logs(10):
        client.enqueue(log)
    assert exporter.entered.wait(10)
    first = make_logs(50)
    for log in first:
        client.enqueue(log)
    for log in make_logs(100):
        client.enqueue(log)
    stats = client.stats()
    assert (stats.queued, stats.in_flight, stats.dropped_queue_full) == (50, 10, 100)
    exporter.gate.set()
    assert client.flush(10)
    assert ids_of(exporter.logs)[10:] == ids_of(first)
    assert client.close()
    assert_account_closes(client, 160)


def test_the_bound_holds_exactly_when_many_threads_run_into_it() -> None:
    exporter = GatedExporter()
    client = TelemetryClient("host", configuration(batch_size=1, max_queue_size=100), exporter=exporter)
    client.enqueue(make_log())
    assert exporter.entered.wait(10)
    logs = make_logs(2000)
    run_in_threads(8, lambda index: [client.enqueue(log) for log in logs[index::8]] and None)
    stats = assert_account_closes(client, 2001)
    assert (stats.queued, stats.dropped_queue_full) == (100, 1900)
    client.close(timeout=0)


def test_a_batch_size_beyond_the_queue_s_still_sends() -> None:
    exporter = InMemoryTelemetryExporter()
    config = configuration(batch_size=1000, max_queue_size=10)
    with TelemetryClient("host", config, exporter=exporter) as client:
        for log in make_logs(10):
            client.enqueue(log)
        wait_until(lambda: len(exporter.logs) == 10)


def test_forty_hosts_share_eight_threads_at_the_most() -> None:
    exporters = [InMemoryTelemetryExporter() for _ in range(40)]
    clients = [
        TelemetryClient(f"host-{index}", configuration(batch_size=2), exporter=exporter)
        for index, exporter in enumerate(exporters)
    ]
    for _ in range(10):
        for client in clients:
            client.enqueue(make_log())
    assert all(client.flush(10) for client in clients)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("adbc-telemetry")]
    assert len(threads) <= 8
    for client in clients:
        assert client.close()
    assert all(len(exporter.logs) == 10 for exporter in exporters)


def test_a_dead_host_does_not_hold_up_another() -> None:
    with raw_endpoint(black_hole) as dead, TelemetryServer() as server:
        ill = TelemetryClient(dead, configuration(batch_size=1))
        well = TelemetryClient(server.url, configuration(batch_size=1))
        ill.enqueue(make_log())
        wait_until(lambda: ill.stats().in_flight == 1)
        well.enqueue(make_log("well"))
        assert well.flush(5)
        assert server.accepted == ["well"]
        ill.close(timeout=0)
        well.close()


def test_a_flush_does_not_wait_for_events_that_take_the_place_of_dropped_ones() -> None:
    exporter = HeldExporter(stubborn=False)
    config = configuration(
        batch_size=2,
        max_queue_size=2,
        circuit_open="retain",
        circuit_breaker_enabled=False,
        flush_interval_ms=60_000,
    )
    client = TelemetryClient("host", config, exporter=exporter)
    for log in make_logs(2):
        client.enqueue(log)
    wait_until(lambda: len(exporter.exports) == 1)
    for log in make_logs(2):
        client.enqueue(log)
    flushing = Call(client.flush)
    exporter.exports[0].answer(ExportResult(outcome=ExportOutcome.DROPPED))
    wait_until(lambda: len(exporter.exports) == 2)
    assert client.stats().dropped_queue_full == 2
    client.enqueue(make_log())
    exporter.exports[1].answer(ExportResult(outcome=ExportOutcome.DELIVERED))
    wait_until(lambda: flushing.over, 5)
    assert client.stats().queued == 1
    exporter.let_go()
    client.close()


# asyncio.


def test_aflush_and_aclose_do_what_their_twins_do() -> None:
    exporter = InMemoryTelemetryExporter()

    async def main() -> None:
        async with TelemetryClient("host", configuration(), exporter=exporter) as client:
            client.enqueue(make_log())
            assert await client.aflush(10) is True
            assert len(exporter.logs) == 1
            client.enqueue(make_log())
        assert len(exporter.logs) == 2
        assert await client.aclose() is True

    asyncio.run(main())


def test_aflush_gives_up_after_its_timeout_and_leaves_the_loop_free() -> None:
    exporter = GatedExporter()

    async def main() -> None:
        client = TelemetryClient("host", configuration(batch_size=1), exporter=exporter)
        client.enqueue(make_log())
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        assert await client.aflush(0.1) is False
        assert ticks > 10
        ticking.cancel()
        exporter.gate.set()
        assert await client.aflush(10) is True
        assert await client.aclose() is True

    asyncio.run(main())


# Telemetry that is off.


@pytest.mark.parametrize("off", ["config", "DO_NOT_TRACK", "DATABRICKS_TELEMETRY_ENABLED"])
def test_a_client_that_is_off_does_nothing_and_counts_nothing(
    off: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if off != "config":
        monkeypatch.setenv(off, "1" if off == "DO_NOT_TRACK" else "false")
    exporter = InMemoryTelemetryExporter()
    client = TelemetryClient("host", configuration(enabled=off != "config"), exporter=exporter)
    for log in make_logs(300):
        client.enqueue(log)
    assert client.flush(1) is True
    assert client.stats() == ClientStats()
    assert client.close() is True
    client.enqueue(make_log())
    assert client.stats() == ClientStats()
    assert exporter.logs == []
    assert not [t for t in threading.enumerate() if t.name.startswith("adbc-telemetry")]


def test_a_noop_client_is_a_client() -> None:
    client = NoopTelemetryClient("host")
    assert isinstance(client, TelemetryClientProtocol)
    client.enqueue(make_log())
    assert client.flush()
    assert client.close()
    assert client.stats() == ClientStats()
    assert isinstance(TelemetryClient("h", TelemetryConfiguration()), TelemetryClientProtocol)


def test_wrong_arguments_are_told_at_once_and_clearly() -> None:
    with pytest.raises(ValueError, match="batch_size must be from 1"):
        TelemetryClient("host", configuration(batch_size=0))
    with pytest.raises(TypeError, match="config must be a TelemetryConfiguration"):
        TelemetryClient("host", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not a host"):
        TelemetryClient("", configuration())
    with pytest.raises(TypeError, match="host must be a string"):
        TelemetryClient(1, configuration())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="auth must be a callable"):
        TelemetryClient("host", configuration(), auth="token")  # type: ignore[arg-type]


# Promise 1: nothing reaches the host program.


@pytest.mark.parametrize("rubbish", [None, "text", 0, object(), {}, make_log])
def test_enqueue_takes_any_rubbish_without_a_word(rubbish: object) -> None:
    with TelemetryServer() as server:
        client = TelemetryClient(server.url, configuration(batch_size=10))
        client.enqueue(rubbish)  # type: ignore[arg-type]
        client.enqueue(make_log("good"))
        assert client.flush(10)
        assert server.accepted == ["good"]
        stats = assert_account_closes(client, 1 if rubbish is None else 2)
        assert (stats.delivered, stats.rejected) == (1, 0 if rubbish is None else 1)
        assert client.close()


def test_what_is_swallowed_is_counted_and_logged_at_debug_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    class Broken(InMemoryTelemetryExporter):
        def export(
            self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None
        ) -> ExportResult:
            raise RuntimeError("sentinel")

        def close(self) -> None:
            raise RuntimeError("sentinel")

    client = TelemetryClient("host", configuration(), exporter=Broken())
    client.enqueue(make_log())
    assert client.flush(10)
    assert client.close()
    assert client.stats().failed == 1
    assert {(record.name, record.levelno) for record in caplog.records} == {("adbc_telemetry", logging.DEBUG)}
    assert "RuntimeError" in caplog.text
    assert "sentinel" not in caplog.text


def test_a_closed_client_holds_on_to_nothing() -> None:
    client = TelemetryClient("host", configuration(), exporter=InMemoryTelemetryExporter())
    client.enqueue(make_log())
    client.close()
    log = make_log()
    references = sys.getrefcount(log)
    for _ in range(10):
        client.enqueue(log)
    assert sys.getrefcount(log) == references
    assert client.stats().dropped_closed == 10


@pytest.mark.parametrize("timeout", [float("nan"), float("inf"), -1, 1e300, 10**400, "soon"])
def test_an_odd_timeout_raises_nothing(timeout: Any) -> None:
    exporter = InMemoryTelemetryExporter()
    client = TelemetryClient("host", configuration(), exporter=exporter)
    client.enqueue(make_log())
    assert client.flush(timeout) in (True, False)
    assert asyncio.run(client.aflush(timeout)) in (True, False)
    assert client.close(timeout) in (True, False)
    assert_account_closes(client, 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
def test_not_even_a_base_exception_of_an_exporter_stops_the_sender(
    error: type[BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    class Broken(InMemoryTelemetryExporter):
        calls = 0

        def export(
            self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None
        ) -> ExportResult:
            self.calls += 1
            if self.calls == 1:
                raise error
            return super().export(logs, deadline=deadline)

    with TelemetryClient("host", configuration(), exporter=Broken()) as client:
        for _ in range(2):
            client.enqueue(make_log())
            assert client.flush(10)
        stats = assert_account_closes(client, 2)
        assert (stats.failed, stats.delivered) == (1, 1)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("counts", [{"delivered": None}, {"rejected": "x"}, {"delivered": 1.5}])
def test_counts_that_are_none_fail_the_export(counts: dict[str, Any]) -> None:
    class Sloppy(InMemoryTelemetryExporter):
        def export(
            self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None
        ) -> ExportResult:
            return ExportResult(outcome=ExportOutcome.DELIVERED, **counts)

    with TelemetryClient("host", configuration(), exporter=Sloppy()) as client:
        client.enqueue(make_log())
        assert client.flush(10)
        assert assert_account_closes(client, 1).failed == 1


def test_a_close_that_was_interrupted_is_finished_by_the_next() -> None:
    exporter = GatedExporter()
    client = TelemetryClient("host", configuration(batch_size=1), exporter=exporter)
    client.enqueue(make_log())
    assert exporter.entered.wait(10)
    client.begin_close(client.close_deadline(10))  # and then came a KeyboardInterrupt
    assert client.close(0.05) is False
    exporter.gate.set()
    assert client.close() is True
    assert client.stats().delivered == 1


def test_aclose_that_is_cancelled_still_closes() -> None:
    exporter = GatedExporter()
    client = TelemetryClient("host", configuration(batch_size=1), exporter=exporter)
    client.enqueue(make_log())

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.aclose(), 0.05)

    asyncio.run(main())
    exporter.gate.set()
    assert client.close(10)
    assert client.stats().delivered == 1


def test_an_exporter_that_is_none_is_told_at_once() -> None:
    bad: Any = "x"
    with pytest.raises(TypeError, match="exporter must have"):
        TelemetryClient("host", configuration(), exporter=bad)


def test_hosts_that_fail_leave_lanes_to_those_that_do_not() -> None:
    gate = threading.Event()
    hanging: list[str] = []

    class Dying(InMemoryTelemetryExporter):
        calls = 0

        def export(
            self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None
        ) -> ExportResult:
            self.calls += 1
            if self.calls > 1:
                hanging.append("one")
                gate.wait(30)
            return ExportResult(outcome=ExportOutcome.FAILED)

    dead = [TelemetryClient(f"dead-{n}", configuration(batch_size=1), exporter=Dying()) for n in range(10)]
    for client in dead:
        client.enqueue(make_log())
        assert client.flush(10)
    for client in dead:
        client.enqueue(make_log())
    wait_until(lambda: len(hanging) == 4)
    with TelemetryClient("well", configuration(), exporter=InMemoryTelemetryExporter()) as well:
        well.enqueue(make_log())
        assert well.flush(5)
    assert len(hanging) == 4
    gate.set()
    for client in dead:
        assert client.flush(10)
        assert client.stats().failed == 2
        assert client.close()


def test_without_a_thread_to_be_had_events_wait_or_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    exporter = InMemoryTelemetryExporter()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        waiting = TelemetryClient("one", configuration(), exporter=exporter)
        closing = TelemetryClient("two", configuration(), exporter=InMemoryTelemetryExporter())
        for client in (waiting, closing):
            client.enqueue(make_log())
            assert client.flush() is False
        assert closing.close() is False
        assert assert_account_closes(closing, 1).dropped_closed == 1
    assert waiting.flush(10) is True
    assert len(exporter.logs) == 1
    assert waiting.close() is True


def test_without_a_thread_for_a_lane_events_wait_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gated = GatedExporter()
    busy = TelemetryClient(
        "busy", configuration(), exporter=gated
    )  # has the worker that is there from the start
    busy.enqueue(make_log())
    busy.flush(0)
    assert gated.entered.wait(10)
    exporter = InMemoryTelemetryExporter()
    client = TelemetryClient("host", configuration(), exporter=exporter)
    tried = threading.Event()

    def no_thread(thread: threading.Thread) -> None:
        tried.set()
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        client.enqueue(make_log())
        assert client.flush(0.05) is False
        assert tried.is_set()
    assert client.flush(10) is True
    gated.gate.set()
    assert busy.close() is True
    assert client.close() is True
    assert len(exporter.logs) == 1
