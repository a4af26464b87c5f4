"""The garbage collector may take a cursor at any line, also at one of the SDK's that holds a lock."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import SpanProcessor

from support.process import run_python
from support.spans import Spans

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


class Locking(SpanProcessor):  # type: ignore[misc, unused-ignore]
    """Collects garbage while it holds a lock, as an allocation in a processor's code may."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.deadlocks = 0

    def on_end(self, span: object) -> None:
        if not self._lock.acquire(timeout=0.5):
            self.deadlocks += 1
            return
        try:
            gc.collect()
        finally:
            self._lock.release()


@pytest.fixture
def collected_by_hand() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def leave_in_a_cycle(connection: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    cursor.itself = cursor


@pytest.mark.usefixtures("collected_by_hand")
def test_a_cursor_that_is_collected_while_the_sdk_holds_a_lock_does_not_wait_for_it(raw: Any) -> None:
    spans, locking = Spans(), Locking()
    spans.tracer_provider.add_span_processor(locking)
    connection = spans.follow(raw)
    leave_in_a_cycle(connection)
    with spans.tracer().start_as_current_span("request"):
        pass
    assert locking.deadlocks == 0
    connection.commit()
    assert sorted(spans.names) == ["COMMIT main", "SELECT", "request"]


@pytest.mark.usefixtures("collected_by_hand")
def test_its_span_ends_at_the_time_of_the_last_thing_that_the_driver_did(
    connection: Any, spans: Spans
) -> None:
    leave_in_a_cycle(connection)
    gc.collect()
    assert spans.all == []
    connection.commit()
    select, commit = sorted(spans.all, key=lambda span: span.start_time)
    assert select.name == "SELECT"
    assert select.end_time < commit.start_time


def test_a_span_that_was_put_off_is_exported_at_exit() -> None:
    ended = run_python(
        """
        import gc
        import adbc_driver_sqlite.dbapi as sqlite
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
        from adbc_telemetry.otel import ADBCInstrumentor

        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(formatter=lambda span: span.name + "\\n")))
        connection = ADBCInstrumentor.instrument_connection(sqlite.connect(), tracer_provider=provider)
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        cursor.itself = cursor
        del cursor
        gc.collect()
        connection.close()
        """
    )
    assert (ended.code, ended.stdout) == (0, "SELECT\n"), ended.stderr
