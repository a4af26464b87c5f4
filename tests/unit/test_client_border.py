"""The client: bounds, asyncio, telemetry that is off, and the border to the host program."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
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
from adbc_telemetry.schema import TelemetryFrontendLog
from models.held import Call, HeldExporter
from support.clients import GatedExporter, assert_account_closes, configuration
from support.logs import ids_of, make_log, make_logs
from support.server import TelemetryServer, black_hole, raw_endpoint
from support.waiting import run_in_threads, wait_until

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

    def produce(index: int) -> None:
        for log in logs[index::8]:
            client.enqueue(log)

    run_in_threads(8, produce)
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
        faulty = TelemetryClient(dead, configuration(batch_size=1))
        healthy = TelemetryClient(server.url, configuration(batch_size=1))
        faulty.enqueue(make_log())
        wait_until(lambda: faulty.stats().in_flight == 1)
        healthy.enqueue(make_log("well"))
        assert healthy.flush(5)
        assert server.accepted == ["well"]
        faulty.close(timeout=0)
        healthy.close()


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


def test_hosts_that_fail_leave_workers_to_healthy_hosts() -> None:
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
    with TelemetryClient("well", configuration(), exporter=InMemoryTelemetryExporter()) as healthy:
        healthy.enqueue(make_log())
        assert healthy.flush(5)
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


def test_without_a_thread_for_a_worker_events_wait_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
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
