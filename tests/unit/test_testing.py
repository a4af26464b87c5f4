"""What `adbc_telemetry.testing` offers keeps its word."""

from __future__ import annotations

import asyncio
import gc
import inspect
import subprocess
import sys
import threading
import time

import pytest

from adbc_telemetry import (
    ExportOutcome,
    StatementTelemetryContext,
    TelemetryClient,
    TelemetryClientProtocol,
    TelemetryExporter,
    TelemetrySessionContext,
    testing,
)
from adbc_telemetry.schema import OperationType, StatementType, TelemetryFrontendLog
from adbc_telemetry.testing import (
    BrokenExporter,
    CapturedClient,
    CapturingExporter,
    Event,
    FakeClock,
    GatedExporter,
    configuration,
    driver_log,
    event_of,
)
from support.logs import ids_of, make_log, make_logs
from support.process import running_python


def test_a_captured_client_is_a_client_and_keeps_what_it_gets() -> None:
    client = CapturedClient("a host")
    assert isinstance(client, TelemetryClientProtocol)
    assert client.host == "a host"
    logs = make_logs(3)
    for log in logs:
        client.enqueue(log)
    assert client.logs == logs
    assert client.driver_logs == [driver_log(log) for log in logs]
    assert client.flush(0)
    assert asyncio.run(client.aflush())
    assert client.stats().delivered == 3
    client.clear()
    assert client.logs == []


def test_a_captured_client_counts_what_comes_too_late() -> None:
    with CapturedClient() as client:
        client.enqueue(make_log())
    client.enqueue(make_log())
    assert asyncio.run(client.aclose())
    stats = client.stats()
    assert stats.closes
    assert (stats.enqueued, stats.delivered, stats.dropped_closed) == (2, 1, 1)
    assert len(client.logs) == 1


def test_an_event_in_brief_says_what_happened() -> None:
    client = CapturedClient()
    session = TelemetrySessionContext(client=client)
    with (
        pytest.raises(ZeroDivisionError),
        StatementTelemetryContext(
            session, statement_type=StatementType.QUERY, operation_type=OperationType.EXECUTE_STATEMENT
        ),
    ):
        raise ZeroDivisionError
    StatementTelemetryContext(session).emit()
    assert client.events == [Event("EXECUTE_STATEMENT", "QUERY", "ZeroDivisionError"), Event(None)]
    assert event_of(driver_log(make_log())) == Event(None)
    with pytest.raises(ValueError, match="without a driver's log"):
        driver_log(TelemetryFrontendLog())


def test_waiting_ends_with_the_last_event_that_was_waited_for() -> None:
    exporter = CapturingExporter()
    assert isinstance(exporter, TelemetryExporter)
    with TelemetryClient("host", configuration(), exporter=exporter) as client:
        logs = make_logs(5)

        def enqueue() -> None:
            for log in logs:
                client.enqueue(log)

        thread = threading.Thread(target=enqueue)
        thread.start()
        assert len(exporter.wait_for(5)) == 5
        thread.join()
        assert ids_of(exporter.logs) == ids_of(logs)
        assert exporter.wait_until(lambda events: len(events) == 5)
    assert exporter.closed


def test_a_waiting_test_is_woken_by_the_event() -> None:
    client = CapturedClient()
    waiting = threading.Event()

    def enough(events: list[Event]) -> bool:
        waiting.set()
        return len(events) == 1

    def enqueue() -> None:
        assert waiting.wait(10)
        client.enqueue(make_log())

    thread = threading.Thread(target=enqueue)
    thread.start()
    assert len(client.wait_until(enough)) == 1
    thread.join()


def test_waiting_in_vain_ends_with_an_error_that_lists_the_events() -> None:
    client = CapturedClient()
    client.enqueue(make_log())
    started = time.monotonic()
    with pytest.raises(AssertionError, match=r"2 events not within 0\.05 s, but \[Event"):
        client.wait_for(2, timeout=0.05)
    with pytest.raises(AssertionError):
        client.wait_until(lambda events: False, timeout=0.05)
    assert time.monotonic() - started < 5


def test_an_event_may_come_from_a_destructor_in_the_midst_of_anything() -> None:
    client = CapturedClient()

    class Emitting:
        def __del__(self) -> None:
            client.enqueue(make_log())

    with client._changed:
        Emitting()
        gc.collect()
    assert len(client.wait_for(1)) == 1


def test_a_broken_exporter_raises_and_counts() -> None:
    exporter = BrokenExporter(lambda: OSError("broken"))
    with TelemetryClient("host", configuration(max_retries=0), exporter=exporter) as client:
        client.enqueue(make_log())
        client.flush(10)
        assert client.stats().failed == 1
    assert exporter.calls == 1
    with pytest.raises(RuntimeError, match="a broken exporter"):
        BrokenExporter().close()


def test_a_gated_exporter_holds_exports_until_its_gate_is_set() -> None:
    exporter = GatedExporter()
    with TelemetryClient("host", configuration(), exporter=exporter) as client:
        client.enqueue(make_log())
        assert exporter.entered.wait(10)
        assert not client.flush(0.01)
        assert exporter.logs == []
        exporter.gate.set()
        assert client.flush(10)
        assert len(exporter.logs) == 1


def test_a_gated_exporter_that_is_closed_or_out_of_time_cancels() -> None:
    exporter = GatedExporter()
    late = exporter.export(make_logs(1), deadline=time.monotonic())
    assert late.outcome is ExportOutcome.CANCELLED
    exporter.close()
    assert exporter.export(make_logs(1)).outcome is ExportOutcome.CANCELLED
    assert exporter.logs == []


def test_a_fake_clock_is_the_time_of_statements_alone() -> None:
    client = CapturedClient()
    session = TelemetrySessionContext(client=client)
    real = time.monotonic_ns
    with FakeClock(unix_time=1000) as clock:
        statement = StatementTelemetryContext(session)
        clock.advance_ms(1500.5)
        statement.emit()
        assert time.monotonic_ns is real
        with pytest.raises(ValueError, match="backwards"):
            clock.advance_ms(-1)
    [log] = client.logs
    assert driver_log(log).operation_latency_ms == 1500
    assert log.context is not None
    assert log.context.client_context is not None
    assert log.context.client_context.timestamp_millis == 1_001_500
    after = StatementTelemetryContext(session)
    after.emit()
    assert abs((client.logs[1].context.client_context.timestamp_millis or 0) / 1000 - time.time()) < 60  # type: ignore[union-attr]


def test_what_is_public_is_documented() -> None:
    for name in testing.__all__:
        thing = getattr(testing, name)
        assert inspect.getdoc(thing), name
        for method, member in vars(thing).items() if isinstance(thing, type) else ():
            if inspect.isfunction(member) and not method.startswith("_"):
                assert inspect.getdoc(member), f"{name}.{method}"


def test_importing_it_loads_no_extra_and_nothing_of_http() -> None:
    program = (
        "import sys, adbc_telemetry.testing;"
        "print(sorted({'adbc_driver_manager', 'pyarrow', 'urllib3', 'pytest', 'duckdb'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_a_fake_clock_is_that_of_a_connections_telemetry_even_if_it_is_imported_later() -> None:
    program = """
import adbc_telemetry
from adbc_telemetry.testing import CapturingExporter, FakeClock
captured = CapturingExporter()
with FakeClock() as clock:
    telemetry = adbc_telemetry.ConnectionTelemetry.create(
        {"adbc.databricks.telemetry.enabled": "true"},
        driver_name="tiny", driver_version="1", host="host.example", exporter=captured, opened_in_ms=7,
    )
    with telemetry.statement():
        clock.advance_ms(250)
    telemetry.close()
print([log.operation_latency_ms for log in captured.driver_logs])
"""
    with running_python(program) as running:
        ended = running.end(60)
    assert (ended.stdout, ended.stderr) == ("[7, 250, 0]\n", "")
