"""The circuit breaker works as configured, on a clock that cannot jump, one a host."""

from __future__ import annotations

import datetime as datetime_module
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from adbc_telemetry import (
    CircuitBreakerManager,
    CircuitBreakerState,
    CircuitBreakerTelemetryExporter,
    DatabricksTelemetryExporter,
    ExportOutcome,
    ExportResult,
    TelemetryClient,
    TelemetryConfiguration,
)
from adbc_telemetry.export import breaker as breaker_module
from adbc_telemetry.schema import TelemetryFrontendLog
from support.clock import Clock
from support.logs import make_log, make_logs
from support.server import Reply, TelemetryServer, refused_url
from support.waiting import run_in_threads, wait_until

CLOSED, OPEN, HALF_OPEN = CircuitBreakerState.CLOSED, CircuitBreakerState.OPEN, CircuitBreakerState.HALF_OPEN


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(breaker_module, "time", clock)
    return clock


class Endpoint:
    """An exporter that is healthy or faulty as told."""

    def __init__(self) -> None:
        self.outcome = ExportOutcome.DELIVERED
        self.calls = 0
        self.error: Exception | None = None
        self.retry_after: Any = None

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return ExportResult(outcome=self.outcome, retry_after=self.retry_after)

    def close(self) -> None:
        pass


def guarded(endpoint: Any, host: str = "host", **settings: Any) -> CircuitBreakerTelemetryExporter:
    settings = {"circuit_breaker_threshold": 3, "circuit_breaker_timeout_ms": 10_000, **settings}
    return CircuitBreakerTelemetryExporter(endpoint, host, TelemetryConfiguration(**settings))


def export(exporter: CircuitBreakerTelemetryExporter, times: int = 1) -> list[ExportOutcome]:
    return [exporter.export([make_log()]).outcome for _ in range(times)]


def fail(exporter: CircuitBreakerTelemetryExporter, endpoint: Endpoint, times: int) -> None:
    before, endpoint.outcome = endpoint.outcome, ExportOutcome.FAILED
    export(exporter, times)
    endpoint.outcome = before


@pytest.mark.parametrize("threshold", [1, 3, 7])
def test_as_many_consecutive_failures_as_configured_open_it(clock: Clock, threshold: int) -> None:
    endpoint = Endpoint()
    exporter = guarded(endpoint, circuit_breaker_threshold=threshold)
    fail(exporter, endpoint, threshold - 1)
    assert exporter.state is CLOSED
    fail(exporter, endpoint, 1)
    assert exporter.state is OPEN


def test_a_success_in_between_starts_the_count_anew(clock: Clock) -> None:
    endpoint = Endpoint()
    exporter = guarded(endpoint)
    for _ in range(5):
        fail(exporter, endpoint, 2)
        export(exporter)
    assert exporter.state is CLOSED


def test_while_open_nothing_is_asked_of_the_endpoint(clock: Clock) -> None:
    endpoint = Endpoint()
    exporter = guarded(endpoint)
    fail(exporter, endpoint, 3)
    clock.now += 9.99
    assert export(exporter, 10) == [ExportOutcome.DROPPED] * 10
    assert endpoint.calls == 3


def test_after_the_timeout_two_successes_close_it(clock: Clock) -> None:
    endpoint = Endpoint()
    exporter = guarded(endpoint)
    fail(exporter, endpoint, 3)
    clock.now += 10
    assert export(exporter) == [ExportOutcome.DELIVERED]
    assert exporter.state is HALF_OPEN
    assert export(exporter) == [ExportOutcome.DELIVERED]
    assert exporter.state is CLOSED


def test_an_open_circuit_stays_open_for_as_long_as_the_endpoint_has_asked(clock: Clock) -> None:
    endpoint = Endpoint()
    exporter = guarded(endpoint)
    endpoint.retry_after = 60.0
    fail(exporter, endpoint, 3)
    assert exporter.state is OPEN
    clock.now += 59
    assert export(exporter) == [ExportOutcome.DROPPED]
    assert endpoint.calls == 3
    clock.now += 2
    endpoint.retry_after = None
    assert export(exporter, 2) == 2 * [ExportOutcome.DELIVERED]
    assert exporter.state is CLOSED
    endpoint.retry_after = "soon"
    fail(exporter, endpoint, 3)
    clock.now += 11
    assert export(exporter) == [ExportOutcome.DELIVERED]


@pytest.mark.parametrize("successes", [0, 1])
def test_a_failure_of_a_probe_opens_it_again_for_the_whole_timeout(clock: Clock, successes: int) -> None:
    endpoint = Endpoint()
    exporter = guarded(endpoint)
    fail(exporter, endpoint, 3)
    clock.now += 10
    export(exporter, successes)
    fail(exporter, endpoint, 1)
    assert exporter.state is OPEN
    clock.now += 9.99
    assert export(exporter) == [ExportOutcome.DROPPED]
    clock.now += 0.02
    assert export(exporter) == [ExportOutcome.DELIVERED]


def test_one_export_at_a_time_is_let_through_while_half_open(clock: Clock) -> None:
    entered, gate = threading.Event(), threading.Event()

    class Slow(Endpoint):
        def export(
            self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None
        ) -> ExportResult:
            result = super().export(logs, deadline=deadline)
            if self.calls > 3:
                entered.set()
                gate.wait(10)
            return result

    endpoint = Slow()
    exporter = guarded(endpoint)
    fail(exporter, endpoint, 3)
    clock.now += 10
    probe = threading.Thread(target=export, args=(exporter,))
    probe.start()
    assert entered.wait(10)
    assert export(exporter, 5) == [ExportOutcome.DROPPED] * 5
    gate.set()
    probe.join(10)
    assert endpoint.calls == 4
    assert export(exporter) == [ExportOutcome.DELIVERED]


def test_what_began_before_the_circuit_opened_says_nothing_about_the_probe(clock: Clock) -> None:
    breaker = CircuitBreakerManager.get_instance().get_circuit_breaker(
        "host", TelemetryConfiguration(circuit_breaker_threshold=1, circuit_breaker_timeout_ms=10_000)
    )
    late, first = breaker.ask(), breaker.ask()
    assert late is not None
    assert first is not None
    breaker.report(first, False)
    clock.now += 10
    probe = breaker.ask()
    assert probe is not None
    breaker.report(late, False)
    assert breaker.state is HALF_OPEN
    breaker.report(probe, True)
    assert breaker.state is HALF_OPEN


def test_concurrent_failures_are_all_counted(clock: Clock) -> None:
    endpoint = Endpoint()
    endpoint.outcome = ExportOutcome.FAILED
    exporter = guarded(endpoint, circuit_breaker_threshold=800)
    run_in_threads(8, lambda _: export(exporter, 100) and None)
    assert exporter.state is OPEN


def test_every_kind_of_failure_counts_and_the_exception_goes_no_further(clock: Clock) -> None:
    endpoint = Endpoint()
    exporter = guarded(endpoint)
    endpoint.outcome = ExportOutcome.FAILED
    export(exporter)
    endpoint.outcome = ExportOutcome.REJECTED
    export(exporter)
    endpoint.error = RuntimeError("boom")
    assert export(exporter) == [ExportOutcome.FAILED]
    assert exporter.state is OPEN


def test_an_export_that_its_deadline_cut_short_is_no_failure(clock: Clock) -> None:
    endpoint = Endpoint()
    endpoint.outcome = ExportOutcome.CANCELLED
    exporter = guarded(endpoint)
    export(exporter, 20)
    assert exporter.state is CLOSED


@pytest.mark.parametrize("empty", [[], (), None])
def test_an_empty_batch_touches_neither_the_circuit_nor_the_endpoint(clock: Clock, empty: Any) -> None:
    endpoint = Endpoint()
    exporter = guarded(endpoint)
    fail(exporter, endpoint, 2)
    assert exporter.export(empty).outcome is ExportOutcome.DELIVERED
    fail(exporter, endpoint, 1)
    assert exporter.state is OPEN, "an empty batch has started the count anew"
    clock.now += 10
    for _ in range(2):
        assert exporter.export(empty).outcome is ExportOutcome.DELIVERED
    assert exporter.state is OPEN, "an empty batch was a probe"
    assert endpoint.calls == 3


@pytest.mark.parametrize(
    "jump", [datetime_module.timedelta(days=-3650), datetime_module.timedelta(days=3650)]
)
def test_a_jump_of_the_system_s_clock_neither_opens_nor_keeps_open_a_circuit(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, jump: datetime_module.timedelta
) -> None:
    import pybreaker

    offset = datetime_module.timedelta(0)

    class Jumping(datetime_module.datetime):
        @classmethod
        def now(cls, tz: datetime_module.tzinfo | None = None) -> Any:
            return datetime_module.datetime.now(tz) + offset

    monkeypatch.setattr(pybreaker, "datetime", Jumping)
    monkeypatch.setattr(breaker_module, "datetime", Jumping)
    endpoint = Endpoint()
    exporter = guarded(endpoint)
    fail(exporter, endpoint, 3)
    storage = exporter._breaker._storage
    offset = jump
    # What pybreaker itself would compute from it, and what the exports see.
    age = Jumping.now(datetime_module.timezone.utc) - storage.opened_at
    assert abs(age.total_seconds()) < 1
    assert export(exporter) == [ExportOutcome.DROPPED]
    clock.now += 10
    assert export(exporter, 2) == [ExportOutcome.DELIVERED] * 2
    assert exporter.state is CLOSED


def test_a_host_in_any_spelling_has_one_breaker_and_hosts_do_not_affect_one_another(clock: Clock) -> None:
    endpoint = Endpoint()
    exporter = guarded(endpoint, "https://Host.example:443/")
    fail(exporter, endpoint, 3)
    manager = CircuitBreakerManager.get_instance()
    assert manager.get_circuit_breaker("HOST.example").state is OPEN
    assert manager.get_circuit_breaker("other.example").state is CLOSED
    assert exporter.host == "host.example"
    manager.remove_circuit_breaker("host.example")
    assert manager.get_circuit_breaker("host.example").state is CLOSED


def test_the_transitions_are_told_with_their_times(clock: Clock) -> None:
    endpoint = Endpoint()
    exporter = guarded(endpoint)
    fail(exporter, endpoint, 3)
    clock.now += 10
    export(exporter, 2)
    transitions = CircuitBreakerManager.get_instance().get_circuit_breaker("host").transitions
    assert [(t.at, t.old, t.new) for t in transitions] == [
        (1000.0, CLOSED, OPEN),
        (1010.0, OPEN, HALF_OPEN),
        (1010.0, HALF_OPEN, CLOSED),
    ]


# On real sockets, through the client.


@pytest.mark.parametrize("status", [429, 503])
def test_429_and_503_count_and_while_open_no_request_is_made(server: TelemetryServer, status: int) -> None:
    server.always = lambda _: Reply(status)
    config = TelemetryConfiguration(
        enabled=True, batch_size=1, max_retries=0, circuit_breaker_threshold=3, flush_interval_ms=60_000
    )
    with TelemetryClient(server.url, config) as client:
        for log in make_logs(10):
            client.enqueue(log)
            assert client.flush(10)
        stats = client.stats()
        assert (stats.failed, stats.dropped_circuit_open) == (3, 7)
        assert len(server.requests) == 3


def test_refused_connections_open_the_circuit_too() -> None:
    config = TelemetryConfiguration(max_retries=0, circuit_breaker_threshold=2)
    url = refused_url()
    exporter = CircuitBreakerTelemetryExporter(DatabricksTelemetryExporter(url, config), url, config)
    assert export(exporter, 3) == [ExportOutcome.FAILED, ExportOutcome.FAILED, ExportOutcome.DROPPED]
    exporter.close()


def test_503_for_a_while_opens_probes_and_closes(server: TelemetryServer) -> None:
    faulty = threading.Event()
    faulty.set()
    server.always = lambda _: Reply(503) if faulty.is_set() else Reply()
    config = TelemetryConfiguration(
        enabled=True,
        batch_size=1,
        max_retries=0,
        circuit_breaker_threshold=2,
        circuit_breaker_timeout_ms=100,
        flush_interval_ms=60_000,
    )
    with TelemetryClient(server.url, config) as client:
        breaker = CircuitBreakerManager.get_instance().get_circuit_breaker(server.url)

        def send() -> bool:
            client.enqueue(make_log())
            return client.flush(10)

        while breaker.state is not OPEN:
            assert send()
        faulty.clear()
        wait_until(lambda: send() and breaker.state is CLOSED)
        stats = client.stats()
        assert stats.closes
        assert stats.failed == 2
        assert stats.delivered == len(server.accepted) >= 2
    opened, probed, closed = breaker.transitions
    assert (opened.new, probed.new, closed.new) == (OPEN, HALF_OPEN, CLOSED)
    assert probed.at - opened.at >= 0.1


def test_with_circuit_open_retain_events_wait_and_go_out_when_it_closes(server: TelemetryServer) -> None:
    faulty = threading.Event()
    faulty.set()
    server.always = lambda _: Reply(503) if faulty.is_set() else Reply()
    config = TelemetryConfiguration(
        enabled=True,
        batch_size=5,
        max_retries=0,
        circuit_breaker_threshold=1,
        circuit_breaker_timeout_ms=50,
        flush_interval_ms=20,
        circuit_open="retain",
        max_queue_size=50,
    )
    with TelemetryClient(server.url, config) as client:
        client.enqueue(make_log("lost"))
        wait_until(lambda: client.stats().failed == 1)
        kept = make_logs(60)
        for log in kept:
            client.enqueue(log)
        wait_until(lambda: client.stats().exports >= 4)
        stats = client.stats()
        assert stats.closes
        assert stats.dropped_circuit_open == 0
        assert stats.queued + stats.in_flight <= 55
        faulty.clear()
        wait_until(lambda: client.stats().queued == 0 and client.stats().in_flight == 0)
        stats = client.stats()
        assert stats.delivered == len(server.accepted)
        assert stats.delivered + stats.dropped_queue_full + stats.failed == 61
        order = [log.frontend_log_event_id for log in kept]
        assert server.accepted == [id_ for id_ in order if id_ in set(server.accepted)]


def test_without_the_breaker_every_batch_is_tried(server: TelemetryServer) -> None:
    server.always = lambda _: Reply(503)
    config = TelemetryConfiguration(
        enabled=True, batch_size=1, max_retries=0, circuit_breaker_threshold=1, circuit_breaker_enabled=False
    )
    with TelemetryClient(server.url, config) as client:
        for log in make_logs(8):
            client.enqueue(log)
        assert client.flush(10)
    assert len(server.requests) == 8


def test_the_breaker_holds_no_lock_while_an_export_is_under_way() -> None:
    entered, gate = threading.Event(), threading.Event()

    class Hanging(Endpoint):
        def export(
            self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None
        ) -> ExportResult:
            entered.set()
            gate.wait(10)
            return ExportResult(outcome=ExportOutcome.DELIVERED)

    exporter = guarded(Hanging())
    thread = threading.Thread(target=export, args=(exporter,))
    thread.start()
    assert entered.wait(10)
    started = time.monotonic()
    assert exporter.state is CLOSED
    assert CircuitBreakerManager.get_instance().get_circuit_breaker("host").transitions == []
    assert time.monotonic() - started < 5
    gate.set()
    thread.join(10)


def test_a_close_does_not_wait_for_a_circuit_that_is_open(server: TelemetryServer) -> None:
    server.always = lambda _: Reply(503)
    config = TelemetryConfiguration(
        enabled=True,
        batch_size=1,
        max_retries=0,
        circuit_breaker_threshold=1,
        circuit_open="retain",
        close_timeout_ms=10_000,
    )
    client = TelemetryClient(server.url, config)
    for log in make_logs(10):
        client.enqueue(log)
    wait_until(lambda: client.stats().exports >= 2)
    started = time.monotonic()
    client.close()
    assert time.monotonic() - started < 5
    stats = client.stats()
    assert stats.closes
    assert (stats.failed, stats.dropped_circuit_open) == (1, 9)


def test_events_that_are_bad_themselves_say_nothing_about_the_endpoint(server: TelemetryServer) -> None:
    config = TelemetryConfiguration(circuit_breaker_threshold=1)
    inner = DatabricksTelemetryExporter(server.url, config)
    exporter = CircuitBreakerTelemetryExporter(inner, server.url, config)
    bad: Any = "no log"
    for _ in range(5):
        assert exporter.export([bad]).outcome is ExportOutcome.REJECTED
    assert exporter.state is CLOSED
    server.replies.append(Reply(400))
    assert export(exporter) == [ExportOutcome.REJECTED]
    assert exporter.state is OPEN
    exporter.close()


def test_a_retained_part_of_a_batch_is_kept_alone() -> None:
    class Partial(Endpoint):
        def export(
            self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None
        ) -> ExportResult:
            self.calls += 1
            if self.calls == 1:
                return ExportResult(outcome=ExportOutcome.DROPPED, delivered=1, rejected=1)
            return ExportResult(outcome=ExportOutcome.DELIVERED)

    config = TelemetryConfiguration(
        enabled=True, circuit_open="retain", circuit_breaker_enabled=False, flush_interval_ms=20
    )
    with TelemetryClient("host", config, exporter=Partial()) as client:
        for log in make_logs(5):
            client.enqueue(log)
        assert client.flush(10)
        stats = client.stats()
        assert stats.closes
        assert (stats.enqueued, stats.delivered, stats.rejected) == (5, 4, 1)


def test_a_flush_notices_soon_that_a_circuit_has_closed_whatever_the_flush_interval(
    server: TelemetryServer,
) -> None:
    server.replies.append(Reply(503))
    config = TelemetryConfiguration(
        enabled=True,
        batch_size=1,
        max_retries=0,
        circuit_breaker_threshold=1,
        circuit_breaker_timeout_ms=100,
        flush_interval_ms=600_000,
        circuit_open="retain",
    )
    with TelemetryClient(server.url, config) as client:
        for log in make_logs(3):
            client.enqueue(log)
        assert client.flush(10)
        assert client.stats().delivered == 2
