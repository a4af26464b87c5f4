"""Signal handlers interrupt the library (promise 2): they run in the main thread, between any two of its steps."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from adbc_telemetry import (
    InMemoryTelemetryExporter,
    TelemetryClient,
    TelemetryClientLease,
)
from faults.reentrancy import MANAGER, Producer, collect, configuration, nothing_old_to_collect
from faults.scenario import Scenario
from support.interrupting import interrupted_at_line
from support.logs import make_log
from support.process import run_program
from support.waiting import wait_until


@contextmanager
def handler_of(number: int, handler: Callable[[], object]) -> Iterator[None]:
    before = signal.signal(number, lambda *_: handler() and None)
    try:
        yield
    finally:
        signal.signal(number, before)


def lease_of(host: str) -> TelemetryClientLease:
    return MANAGER.acquire(host, configuration(), exporter=InMemoryTelemetryExporter())


OPERATIONS: dict[str, Callable[[TelemetryClient], object]] = {
    "enqueue": lambda client: client.enqueue(make_log("by the operation")),
    "flush": lambda client: client.flush(2),
    "stats": lambda client: client.stats(),
    "close": lambda client: client.close(),
    "acquire and release": lambda client: lease_of("other").release(),
}


def interrupt_each_line_by_a_signal(
    fault: Scenario,
    operation: str,
    handle: Callable[[TelemetryClient], object],
) -> None:
    """Interrupt `operation` at each of its lines, with a new client per line; the account covers all clients."""
    sent = delivered = dropped = number = 0
    where = "somewhere"
    while where:
        number += 1
        exporter = InMemoryTelemetryExporter()
        client = TelemetryClient("host", configuration(), exporter=exporter)
        client.enqueue(make_log())
        results: list[object] = []

        def run(client: TelemetryClient = client, results: list[object] = results) -> None:
            results.append(OPERATIONS[operation](client))

        began = time.monotonic()
        try:
            with handler_of(signal.SIGUSR1, lambda client=client: handle(client)):  # type: ignore[misc]
                where = interrupted_at_line(number, run, lambda: signal.raise_signal(signal.SIGUSR1))
            assert time.monotonic() - began < 1, where  # no waiter missed its wake-up
        finally:
            closed = client.close()
        assert closed, where
        assert results[0] is not False, where
        stats = client.stats()
        expected = 1 + (operation == "enqueue") + bool(where)
        assert stats.closes, (where, stats)
        assert stats.enqueued == expected, (where, stats)
        assert stats.delivered == len(exporter.logs), (where, stats)
        sent, delivered, dropped = (
            sent + expected,
            delivered + stats.delivered,
            dropped + stats.dropped_closed,
        )
    assert number > 3
    fault.seen(sent=sent, delivered=delivered, lost={"dropped_closed": dropped})


@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_a_signal_handler_enqueues_at_each_line_of(fault: Scenario, operation: str) -> None:
    """A signal at each line of the call in brackets; its handler enqueues and reads the account."""

    def handle(client: TelemetryClient) -> None:
        client.enqueue(make_log("by the handler"))
        assert client.stats().enqueued >= 1

    interrupt_each_line_by_a_signal(fault, operation, handle)
    assert operation == "close" or fault.lost == {}


@pytest.mark.parametrize("operation", ["flush", "stats", "enqueue", "acquire and release"])
def test_a_signal_handler_flushes_at_each_line_of(
    fault: Scenario, operation: str, request: pytest.FixtureRequest
) -> None:
    """A signal at each line of the call in brackets; its handler enqueues and flushes."""

    def handle(client: TelemetryClient) -> None:
        client.enqueue(make_log("by the handler"))
        assert client.flush(20)

    interrupt_each_line_by_a_signal(fault, operation, handle)
    assert fault.lost == {}


@pytest.mark.parametrize(
    "operation",
    [
        "flush",
        "stats",
        "enqueue",
        "close",
    ],
)
def test_a_signal_handler_closes_at_each_line_of(fault: Scenario, operation: str) -> None:
    """A signal at each line of the call in brackets; its handler closes the client."""
    out = run_program(
        """
        import faulthandler
        faulthandler.dump_traceback_later(5, exit=True)
        sys.path.insert(0, sys.argv[2])
        from support.interrupting import interrupted_at_line
        from adbc_telemetry import InMemoryTelemetryExporter
        operation = sys.argv[1]
        where, number, delivered = "somewhere", 0, 0
        # A handler that interrupts code with the lock held leaves the close to the sender: it needs a short timeout.
        config = TelemetryConfiguration(enabled=True, flush_interval_ms=60_000, close_timeout_ms=50)
        while where:
            number += 1
            client = TelemetryClient("host", config, exporter=InMemoryTelemetryExporter())
            signal.signal(signal.SIGUSR1, lambda *_: client.close())
            enqueue(client, 3)
            run = (lambda: enqueue(client, 1)) if operation == "enqueue" else getattr(client, operation)
            where = interrupted_at_line(number, run, lambda: signal.raise_signal(signal.SIGUSR1))
            assert client.close() or operation == "close", where
            stats = client.stats()
            assert stats.closes and stats.enqueued == 3 + (operation == "enqueue"), (where, stats)
            assert stats.delivered + stats.dropped_closed == stats.enqueued, (where, stats)
            assert stats.dropped_closed == 0 or operation == "enqueue"
            print("account", stats.enqueued, stats.delivered, stats.dropped_closed)
        assert number > 3
        """,
        operation,
        sys.path[0],
    )
    assert out.code == 0, out.stderr
    accounts = [[int(word) for word in line.split()] for line in out.told("account")]
    sent, delivered, dropped = (sum(column) for column in zip(*accounts, strict=True))
    fault.seen(sent=sent, delivered=delivered, lost={"dropped_closed": dropped})


def test_a_signal_handler_closes_a_client_while_another_is_made_or_closed(fault: Scenario) -> None:
    """A signal at each line of making and closing a client; its handler closes another client."""
    out = run_program(
        """
        import faulthandler
        faulthandler.dump_traceback_later(15, exit=True)
        sys.path.insert(0, sys.argv[1])
        from support.interrupting import interrupted_at_line
        from adbc_telemetry import InMemoryTelemetryExporter
        config = TelemetryConfiguration(enabled=True, flush_interval_ms=60_000, circuit_breaker_enabled=False)
        where, number = "somewhere", 0
        while where:
            number += 1
            other = TelemetryClient("other", config, exporter=InMemoryTelemetryExporter())
            signal.signal(signal.SIGUSR1, lambda *_: other.close())

            def make_and_close():
                TelemetryClient("host", config, exporter=InMemoryTelemetryExporter()).close()

            where = interrupted_at_line(number, make_and_close, lambda: signal.raise_signal(signal.SIGUSR1))
            other.close()
        assert number > 3
        """,
        sys.path[0],
    )
    assert out.code == 0, out.stderr
    fault.seen(sent=0, delivered=0)


def test_a_timers_signal_handler_enqueues_all_the_time(fault: Scenario) -> None:
    """A thousand signals per second of CPU time, while the main thread is busy; each handler enqueues."""
    exporter = InMemoryTelemetryExporter()
    client = TelemetryClient("host", configuration(batch_size=10), exporter=exporter)
    produce = Producer(client)
    # Not SIGALRM, which pytest-timeout needs.
    with handler_of(signal.SIGPROF, produce):
        signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
        try:
            while len(produce.made) < 300:
                produce()
                client.flush(20)
                client.stats()
                with lease_of("other") as lease:
                    lease.client.enqueue(make_log())
            assert client.close()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    stats = client.stats()
    assert stats.dropped_closed + len(exporter.logs) == len(produce.made)
    fault.settled(stats, sent=len(produce.made), arrived=[log.frontend_log_event_id for log in exporter.logs])


@pytest.mark.parametrize("operation", ["acquire and release", "flush", "stats", "close", "enqueue"])
def test_a_destructor_releases_soon_at_each_line_of(fault: Scenario, operation: str) -> None:
    """A garbage collection at each line of the call in brackets; its destructor calls a lease's `release_soon`."""
    number = 0
    where = "somewhere"
    exporters: list[InMemoryTelemetryExporter] = []
    with nothing_old_to_collect():
        while where:
            number += 1
            exporters.append(InMemoryTelemetryExporter())
            client = TelemetryClient("host", configuration(), exporter=exporters[-1])
            client.enqueue(make_log())
            lease = MANAGER.acquire("third", configuration(), exporter=InMemoryTelemetryExporter())
            release = lease.release_soon

            def interrupt(release: Callable[[], object] = release) -> None:
                collect(release)

            where = interrupted_at_line(
                number,
                partial(OPERATIONS[operation], client),
                interrupt,
            )
            if where:
                wait_until(lambda: MANAGER.ref_count("third") == 0)
            assert lease.release()
            assert client.close()
    assert number > 3
    arrived = sum(len(exporter.logs) for exporter in exporters)
    fault.seen(sent=number * (2 if operation == "enqueue" else 1), delivered=arrived)
