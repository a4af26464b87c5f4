"""The client: enqueue never blocks, every event is accounted for, flush is a barrier."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from adbc_telemetry import (
    ExportOutcome,
    ExportResult,
    InMemoryTelemetryExporter,
    TelemetryClient,
)
from adbc_telemetry.schema import TelemetryFrontendLog
from support.clients import GatedExporter, assert_account_closes, configuration
from support.logs import ids_of, make_log, make_logs
from support.server import Reply, TelemetryServer, refused_url
from support.waiting import run_in_threads

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


@pytest.mark.slow
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
