"""The library interrupted by itself (promise 2): destructors, signal handlers, log handlers, hooks."""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import pytest

from adbc_telemetry import (
    ExportOutcome,
    ExportResult,
    InMemoryTelemetryExporter,
    TelemetryClient,
    TelemetryClientLease,
    TelemetryClientManager,
    TelemetryConfiguration,
)
from adbc_telemetry.schema import TelemetryFrontendLog
from faults.scenario import Scenario
from support.interrupting import at_every_line, interrupted_at_line
from support.logs import make_log, make_logs
from support.process import run_program
from support.server import TelemetryServer
from support.waiting import wait_until

MANAGER = TelemetryClientManager.get_instance()


def configuration(**settings: object) -> TelemetryConfiguration:
    return TelemetryConfiguration(**{"enabled": True, "flush_interval_ms": 60_000, **settings})  # type: ignore[arg-type]


class Producer:
    """Enqueues from wherever it is called, and counts its calls without a lock."""

    def __init__(self, client: TelemetryClient) -> None:
        self.client = client
        self.made: list[str | None] = []

    def __call__(self, *_: object) -> None:
        log = make_log()
        self.made.append(log.frontend_log_event_id)  # one step, like all that a destructor may do
        self.client.enqueue(log)


class Garbage:
    """A cycle, of which only a collection disposes; its destructor calls `hook`."""

    def __init__(self, hook: Callable[[], object]) -> None:
        self.cycle = self
        self.hook = hook

    def __del__(self) -> None:
        self.hook()


def collect(hook: Callable[[], object]) -> None:
    """Have `hook` called by a destructor, in a collection here and now."""
    Garbage(hook)
    gc.collect(0)


@contextmanager
def nothing_old_to_collect() -> Iterator[None]:
    """A collection goes through what was made in here, not through all that the test run has loaded."""
    gc.collect()
    gc.freeze()
    threshold = gc.get_threshold()
    try:
        yield
    finally:
        gc.set_threshold(*threshold)
        gc.unfreeze()


# Destructors.


def test_collections_at_every_line_of_the_library(fault: Scenario, server: TelemetryServer) -> None:
    """At each of the first 2,000 lines that any thread runs in the library, a collection whose destructor enqueues."""
    with nothing_old_to_collect():
        client: TelemetryClient | None = None
        produce: Producer | None = None

        def interrupt() -> None:
            if produce is not None:
                collect(produce)

        with at_every_line(interrupt, 2_000):
            client = TelemetryClient(server.url, configuration(batch_size=50))
            produce = Producer(client)
            while len(produce.made) < 1_500:
                produce()
                client.stats()
                assert client.flush(20)
        gc.collect()
        assert client.close()
    fault.settled(client.stats(), sent=len(produce.made), arrived=server.accepted)
    assert len(server.accepted) == len(set(server.accepted))
    assert fault.lost == {}


def test_collections_at_every_allocation(fault: Scenario) -> None:
    """The collector's threshold is 1, and each of 3,000 destructors enqueues and leaves the next cycle behind."""
    exporter = InMemoryTelemetryExporter()
    with (
        nothing_old_to_collect(),
        TelemetryClient("host", configuration(batch_size=20), exporter=exporter) as client,
    ):
        produce = Producer(client)

        def enqueue_and_go_on() -> None:
            if len(produce.made) < 3_000:
                produce()
                Garbage(enqueue_and_go_on)

        gc.set_threshold(1)
        Garbage(enqueue_and_go_on)
        while len(produce.made) < 3_000:
            client.flush(20)
            client.stats()
        assert client.flush(20)
    fault.settled(
        client.stats(), sent=len(produce.made), arrived=[log.frontend_log_event_id for log in exporter.logs]
    )
    assert fault.lost == {}


@pytest.mark.parametrize(
    "moment", ["_take_batch", "_settle", "_open_barriers", "_send_now", "_is_settled", "_sweep"]
)
def test_a_collection_inside_the_clients_critical_section(
    fault: Scenario, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the client's lock held, in the method in brackets, a collection whose destructor enqueues; and in another
    thread a destructor enqueues at the same time, which must not wait for that lock."""
    exporter = InMemoryTelemetryExporter()
    with nothing_old_to_collect():
        client = TelemetryClient("host", configuration(batch_size=10), exporter=exporter)
        produce = Producer(client)
        original = getattr(client, moment)
        left = iter(range(5))

        def collecting(*arguments: object) -> object:
            if next(left, None) is not None:
                with client._lock:
                    collect(produce)
                    other = threading.Thread(target=collect, args=(produce,))
                    other.start()
                    other.join(10)
                    assert not other.is_alive(), "a destructor waits for the lock"
            return original(*arguments)

        monkeypatch.setattr(client, moment, collecting)
        for _ in range(5):
            produce()
            assert client.flush(20)
        client.close()
        client.enqueue(make_log())
        stats = client.stats()
    fault.settled(
        stats, sent=len(produce.made) + 1, arrived=[log.frontend_log_event_id for log in exporter.logs]
    )
    assert stats.delivered + stats.dropped_closed == stats.enqueued


def test_weak_references_call_back(fault: Scenario) -> None:
    """`weakref.ref` callbacks and `weakref.finalize` enqueue, called by a collection at each line of a flush."""
    exporter = InMemoryTelemetryExporter()
    with nothing_old_to_collect(), TelemetryClient("host", configuration(), exporter=exporter) as client:
        produce = Producer(client)
        references: list[object] = []

        def interrupt() -> None:
            thing = Garbage(lambda: None)
            references.append(weakref.ref(thing, produce))
            weakref.finalize(thing, produce)
            del thing
            gc.collect(0)

        number = 0
        where = "somewhere"
        while where:
            number += 1
            produce()
            where = interrupted_at_line(number, lambda: client.flush(20), interrupt)
        gc.collect()
    assert number > 10
    fault.settled(
        client.stats(), sent=len(produce.made), arrived=[log.frontend_log_event_id for log in exporter.logs]
    )
    assert len(produce.made) == number + 2 * (number - 1)
    assert fault.lost == {}


# Signal handlers, which run in the main thread between any two of its steps.


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
    """For each line of `operation`, a client of its own, interrupted there; all of them make one account."""
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
            assert time.monotonic() - began < 1, where  # nobody has slept through what he waited for
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
    """A signal at each line in turn of what is in brackets; its handler enqueues, and asks for the account."""

    def handle(client: TelemetryClient) -> None:
        client.enqueue(make_log("by the handler"))
        assert client.stats().enqueued >= 1

    interrupt_each_line_by_a_signal(fault, operation, handle)
    assert operation == "close" or fault.lost == {}


@pytest.mark.parametrize("operation", ["flush", "stats", "enqueue", "acquire and release"])
def test_a_signal_handler_flushes_at_each_line_of(
    fault: Scenario, operation: str, request: pytest.FixtureRequest
) -> None:
    """A signal at each line in turn of what is in brackets; its handler enqueues and flushes."""

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
    """A signal at each line in turn of what is in brackets; its handler closes the client."""
    out = run_program(
        """
        import faulthandler
        faulthandler.dump_traceback_later(5, exit=True)
        sys.path.insert(0, sys.argv[2])
        from support.interrupting import interrupted_at_line
        from adbc_telemetry import InMemoryTelemetryExporter
        operation = sys.argv[1]
        where, number, delivered = "somewhere", 0, 0
        # Where the handler has come between the client and its lock, the sender's threads end after it.
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
    """A signal at each line in turn of making, and of closing, a client; its handler closes another one."""
    out = run_program(
        """
        import faulthandler
        faulthandler.dump_traceback_later(5, exit=True)
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


def test_a_timer_s_signal_handler_enqueues_all_the_time(fault: Scenario) -> None:
    """A thousand signals a second of CPU time, each handler enqueueing, while the main thread uses all there is."""
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
    """A collection at each line in turn of what is in brackets; its destructor gives a lease back by `release_soon`."""
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


# The library's own log, exporters, credentials, profilers.


@contextmanager
def log_handler(emit: Callable[[], object], name: str = "adbc_telemetry") -> Iterator[None]:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            emit()

    logger, handler = logging.getLogger(name), Handler(logging.DEBUG)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class Raising(InMemoryTelemetryExporter):
    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        raise RuntimeError("of the test")


def test_a_log_handler_uses_the_client(fault: Scenario) -> None:
    """Each export fails and is logged at DEBUG; the log's handler enqueues, flushes and asks for the account."""
    config = configuration(batch_size=1, circuit_breaker_enabled=False)
    client = TelemetryClient("host", config, exporter=Raising())
    produce = Producer(client)

    def emit() -> None:
        if len(produce.made) < 200:
            produce()
        client.flush(0)
        assert client.stats().closes

    with log_handler(emit):
        produce()
        wait_until(lambda: client.stats().failed == 200)
        assert client.close()
    fault.settled(client.stats(), sent=200, arrived=[])
    assert fault.lost == {"failed": 200}


@pytest.mark.parametrize("what", ["enqueue", "stats"])
def test_a_log_handler_at_work_holds_up_no_other_thread(fault: Scenario, what: str) -> None:
    """The log's handler is at work in one thread, and calls what is in brackets, when the sender has something to log:
    the event loop that waited for a flush has gone."""
    out = run_program(
        """
        import asyncio, faulthandler, logging
        from adbc_telemetry import InMemoryTelemetryExporter
        faulthandler.dump_traceback_later(5, exit=True)
        gate, entered, sender_logs = threading.Event(), threading.Event(), threading.Event()

        class Gated(InMemoryTelemetryExporter):
            def export(self, logs, *, deadline=None):
                entered.set()
                gate.wait(20)
                return super().export(logs, deadline=deadline)

        class Lock:
            def __init__(self):
                self.lock = threading.RLock()

            def acquire(self):
                if threading.current_thread().name.startswith("adbc-telemetry"):
                    sender_logs.set()  # it stands before the lock that the main thread holds
                self.lock.acquire()

            def release(self):
                self.lock.release()

            __enter__ = acquire

            def __exit__(self, *error):
                self.release()

        class Handler(logging.Handler):
            def createLock(self):
                self.lock = Lock()

            def emit(self, record):
                if threading.current_thread() is threading.main_thread():
                    gate.set()
                    assert sender_logs.wait(10)
                    if sys.argv[1] == "enqueue":
                        enqueue(client, 1)
                    else:
                        assert client.stats().closes

        config = TelemetryConfiguration(enabled=True, flush_interval_ms=60_000)
        client = TelemetryClient("host", config, exporter=Gated())
        clients.append(client)
        enqueue(client, 1)
        loop = asyncio.new_event_loop()
        task = loop.create_task(client.aflush())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        assert entered.wait(10)
        logger = logging.getLogger("adbc_telemetry")
        logger.addHandler(Handler())
        logger.setLevel(logging.DEBUG)
        logger.debug("of the program")
        logger.handlers.clear()
        assert client.close(10)
        tell_accounts()
        sys.stdout.flush()
        os._exit(0)  # before asyncio complains of the task
        """,
        what,
    )
    assert out.code == 0, out.stderr
    (stats,) = out.accounts
    fault.settled(stats, sent=2 if what == "enqueue" else 1)
    assert fault.lost == {}


def test_an_exporter_enqueues_events_about_its_exports(fault: Scenario) -> None:
    """Each export enqueues an event about itself, flushes without waiting and asks for the account, 100 times."""
    exporter = InMemoryTelemetryExporter()

    class AboutItself(InMemoryTelemetryExporter):
        def export(
            self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None
        ) -> ExportResult:
            if len(produce.made) < 100:
                produce()
            assert client.flush(0) is False  # this export is under way
            assert client.stats().in_flight == len(logs)
            return exporter.export(logs, deadline=deadline)

    client = TelemetryClient("host", configuration(batch_size=1), exporter=AboutItself())
    produce = Producer(client)
    produce()
    wait_until(lambda: len(exporter.logs) == 100)
    assert client.close()
    fault.settled(client.stats(), sent=100, arrived=[log.frontend_log_event_id for log in exporter.logs])
    assert fault.delivered == 100


def test_an_exporter_closes_its_own_client(fault: Scenario) -> None:
    """An export closes the client that it belongs to, and so waits for itself, until the close's timeout."""

    class Closing(InMemoryTelemetryExporter):
        def export(
            self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None
        ) -> ExportResult:
            closed.append(client.close(0.1))
            return ExportResult(outcome=ExportOutcome.CANCELLED)

    closed: list[bool] = []
    client = TelemetryClient("host", configuration(), exporter=Closing())
    for log in make_logs(10):
        client.enqueue(log)
    began = time.monotonic()
    client.flush(10)
    wait_until(lambda: closed)
    assert time.monotonic() - began < 1
    assert closed == [False]
    fault.settled(client.stats(), sent=10, arrived=[])
    assert fault.lost == {"failed": 10}


def test_auth_enqueues(fault: Scenario, server: TelemetryServer) -> None:
    """`auth` enqueues an event about each renewal of the token, 50 times."""

    def auth() -> dict[str, str]:
        if len(produce.made) < 50:
            produce()
        client.flush(0)
        return {"Authorization": "Bearer token"}

    with TelemetryClient(server.url, configuration(batch_size=1), auth=auth) as client:
        produce = Producer(client)
        produce()
        wait_until(lambda: len(server.accepted) == 50)
    assert sorted(server.accepted) == sorted(str(made) for made in produce.made)
    fault.settled(client.stats(), sent=50, arrived=server.accepted)


def test_a_profiler_enqueues(fault: Scenario) -> None:
    """A profile function, in the main thread and in the sender's, enqueues at each of 2,000 calls and returns."""
    exporter = InMemoryTelemetryExporter()
    left = iter(range(2_000))
    produce: Producer | None = None

    def profile(*_: object) -> None:
        if produce is not None and next(left, None) is not None:
            produce()

    before = sys.getprofile()
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        client = TelemetryClient("host", configuration(batch_size=100), exporter=exporter)
        produce = Producer(client)
        while len(produce.made) < 2_000:
            assert client.flush(20)
    finally:
        sys.setprofile(before)
        threading.setprofile(before)
    assert client.close()
    fault.settled(client.stats(), sent=2_000, arrived=[log.frontend_log_event_id for log in exporter.logs])
    assert fault.lost == {}
