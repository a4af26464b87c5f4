"""Log handlers, exporters, `auth` and profilers call the library (promise 2)."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from adbc_telemetry import (
    ExportOutcome,
    ExportResult,
    InMemoryTelemetryExporter,
    TelemetryClient,
)
from adbc_telemetry.schema import TelemetryFrontendLog
from faults.reentrancy import Producer, configuration
from faults.scenario import Scenario
from support.logs import make_logs
from support.process import run_program
from support.server import TelemetryServer
from support.waiting import wait_until


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
    """Each export fails and is logged at DEBUG; the log handler enqueues, flushes and reads the account."""
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
def test_a_busy_log_handler_blocks_no_other_thread(fault: Scenario, what: str) -> None:
    """A log handler makes the call in brackets in one thread, while the sender wants to log that a waiting event loop
    was closed."""
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
                    sender_logs.set()  # it waits for the lock that the main thread holds
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
        os._exit(0)  # before asyncio warns about the task
        """,
        what,
    )
    assert out.code == 0, out.stderr
    (stats,) = out.accounts
    fault.settled(stats, sent=2 if what == "enqueue" else 1)
    assert fault.lost == {}


def test_an_exporter_enqueues_events_about_its_exports(fault: Scenario) -> None:
    """100 exports each enqueue an event about themselves, flush with timeout 0 and read the account."""
    exporter = InMemoryTelemetryExporter()

    class AboutItself(InMemoryTelemetryExporter):
        def export(
            self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None
        ) -> ExportResult:
            if len(produce.made) < 100:
                produce()
            assert client.flush(0) is False  # this export is still running
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
    """An export closes its own client and so waits for itself, until the close times out."""

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
    """`auth` renews the token 50 times and enqueues an event each time."""

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
    """A profile function enqueues at each of 2,000 calls and returns, in the main thread and in the sender's."""
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
