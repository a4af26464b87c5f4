"""For tests of a driver's own telemetry: a client that keeps what it gets, ill-behaved exporters, a clock to turn.

::

    client = CapturedClient()
    session = TelemetrySessionContext(session_id="a session", client=client)
    with FakeClock() as clock, StatementTelemetryContext(session) as statement:
        clock.advance_ms(250)
        statement.record_execute_complete()
    [event] = client.wait_for(1)
    assert event.operation_latency_ms == 250

No test framework is needed. See `docs/testing.md`.
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import ModuleType, TracebackType
from typing import Any, Final, NamedTuple

from adbc_telemetry.config import TelemetryConfiguration
from adbc_telemetry.export.base import NOTHING_EXPORTED, ExportOutcome, ExportResult
from adbc_telemetry.export.memory import InMemoryTelemetryExporter
from adbc_telemetry.protocols import ClientStats
from adbc_telemetry.schema import OssSqlDriverTelemetryLog, TelemetryFrontendLog

__all__ = [
    "BrokenExporter",
    "CapturedClient",
    "CapturingExporter",
    "Event",
    "FakeClock",
    "GatedExporter",
    "configuration",
    "driver_log",
    "event_of",
]

TIMEOUT: Final = 10.0
"""How many seconds anything here waits at most, unless it is told otherwise."""


class Event(NamedTuple):
    """An event in brief: what most tests are about.

    Since 0.1.

    Attributes:
        operation_type: the name of an `OperationType`.
        statement_type: the name of a `StatementType`; None where there is no statement.
        error_name: the class of the error that it ended with, if any.
    """

    operation_type: str | None
    statement_type: str | None = None
    error_name: str | None = None


def driver_log(log: TelemetryFrontendLog) -> OssSqlDriverTelemetryLog:
    """What the driver has recorded, of an event as it travels.

    Since 0.1.

    Args:
        log: the event, of `logs` for instance.

    Returns:
        The part of it that is the driver's.

    Raises:
        ValueError: there is nothing of a driver's in it.
    """
    if log.entry is None or log.entry.sql_driver_log is None:
        raise ValueError("an event without a driver's log")
    return log.entry.sql_driver_log


def event_of(log: OssSqlDriverTelemetryLog) -> Event:
    """The event in brief.

    Since 0.1.

    Args:
        log: what a driver has recorded, of `driver_logs` for instance.

    Returns:
        The names of its types, and of its error's class.
    """
    operation = log.sql_operation
    detail = None if operation is None else operation.operation_detail
    kind = None if operation is None else operation.statement_type
    return Event(
        None if detail is None or detail.operation_type is None else detail.operation_type.name,
        None if kind is None else kind.name,
        None if log.error_info is None else log.error_info.error_name,
    )


class _Captured:
    """What a capturing client and a capturing exporter have in common: events, in order, and waiting for them."""

    def __init__(self) -> None:
        # Guards _events. It is re-entrant, because an event may come from a destructor, in the midst of anything.
        self._changed = threading.Condition(threading.RLock())
        self._events: list[TelemetryFrontendLog] = []

    def _keep(self, logs: Sequence[TelemetryFrontendLog]) -> None:
        with self._changed:
            self._events.extend(logs)
            self._changed.notify_all()

    @property
    def logs(self) -> list[TelemetryFrontendLog]:
        """All events so far, as they travel."""
        with self._changed:
            return list(self._events)

    @property
    def driver_logs(self) -> list[OssSqlDriverTelemetryLog]:
        """All events so far, as the driver has recorded them."""
        return [driver_log(log) for log in self.logs]

    @property
    def events(self) -> list[Event]:
        """All events so far, in brief."""
        return [event_of(log) for log in self.driver_logs]

    def wait_for(self, count: int, timeout: float = TIMEOUT) -> list[OssSqlDriverTelemetryLog]:
        """Wait until there are `count` events, and return all that there are; at once where there are enough.

        Args:
            count: of events, counted from the beginning or the last `clear`.
            timeout: in seconds.

        Returns:
            All events so far, as the driver has recorded them.

        Raises:
            AssertionError: they have not come within `timeout`; its message lists those that have.
        """
        return self._wait(lambda: len(self._events) >= count, f"{count} events", timeout)

    def wait_until(
        self, condition: Callable[[list[Event]], object], timeout: float = TIMEOUT
    ) -> list[OssSqlDriverTelemetryLog]:
        """Wait until `condition` holds of the events in brief, and return all that there are.

        Returns:
            All events so far, as the driver has recorded them.

        Raises:
            AssertionError: it did not hold within `timeout` seconds.
        """
        return self._wait(lambda: condition(self.events), "what was waited for", timeout)

    def _wait(
        self, enough: Callable[[], object], what: str, timeout: float
    ) -> list[OssSqlDriverTelemetryLog]:
        with self._changed:
            if not self._changed.wait_for(enough, timeout):
                raise AssertionError(f"{what} not within {timeout} s, but {self.events}")
            return self.driver_logs

    def clear(self) -> None:
        """Forget all events so far."""
        with self._changed:
            self._events.clear()


class CapturedClient(_Captured):
    """A `TelemetryClientProtocol` that keeps each event the moment it is enqueued: no threads, nothing to wait for.

    Events that come after `close` are counted and not kept, as a real client would.

    Since 0.1.

    Args:
        host: what `host` tells.
    """

    def __init__(self, host: str = "captured") -> None:
        super().__init__()
        self._host = host
        self._late = 0
        self._kept = 0
        self.closed = False

    @property
    def host(self) -> str:
        """The host that it was made for."""
        return self._host

    def enqueue(self, log: TelemetryFrontendLog) -> None:
        """Keep the event."""
        with self._changed:
            if self.closed:
                self._late += 1
            else:
                self._kept += 1
                self._keep([log])

    def flush(self, timeout: float | None = None) -> bool:
        """There is nothing to wait for; True."""
        return True

    async def aflush(self, timeout: float | None = None) -> bool:
        """There is nothing to wait for; True."""
        return True

    def close(self, timeout: float | None = None) -> bool:
        """Take no more events; True."""
        self.closed = True
        return True

    async def aclose(self, timeout: float | None = None) -> bool:
        """`close` for asyncio."""
        return self.close()

    def stats(self) -> ClientStats:
        """The account: what was kept counts as delivered, what came too late as dropped."""
        with self._changed:
            return ClientStats(
                enqueued=self._kept + self._late, delivered=self._kept, dropped_closed=self._late
            )

    def __enter__(self) -> CapturedClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class CapturingExporter(_Captured):
    """A `TelemetryExporter` that keeps what a real client delivers; for `instrument`, `install` and `acquire`.

    Since 0.1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        """Keep `logs`; always delivered."""
        if not logs:
            return NOTHING_EXPORTED
        self._keep(logs)
        return ExportResult(outcome=ExportOutcome.DELIVERED, delivered=len(logs))

    def close(self) -> None:
        """Take note of it; the events stay readable."""
        self.closed = True


class BrokenExporter:
    """A `TelemetryExporter` that raises: what a driver must not notice.

    Since 0.1.

    Args:
        error: makes the exception to raise.

    Attributes:
        calls: how often it has been asked to export.
    """

    def __init__(self, error: Callable[[], Exception] = lambda: RuntimeError("a broken exporter")) -> None:
        self._error = error
        self.calls = 0

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        """Raise, unless there is nothing to export."""
        if not logs:
            return NOTHING_EXPORTED
        self.calls += 1
        raise self._error()

    def close(self) -> None:
        """Raise."""
        raise self._error()


class GatedExporter(InMemoryTelemetryExporter):
    """A `TelemetryExporter` that holds every export until `gate` is set, or it is closed: an endpoint that hangs.

    Since 0.1.

    Attributes:
        gate: set it to let exports through.
        entered: set once an export has come to the gate.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.entered = threading.Event()

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        """Wait at the gate, then keep `logs`; cancelled where it was closed meanwhile."""
        if not logs:
            return NOTHING_EXPORTED
        self.entered.set()
        self.gate.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if self.closed or not self.gate.is_set():
            return ExportResult(outcome=ExportOutcome.CANCELLED)
        return super().export(logs, deadline=deadline)

    def close(self) -> None:
        """Let all calls go on that wait."""
        super().close()
        self.gate.set()


def configuration(**settings: Any) -> TelemetryConfiguration:
    """Settings under which each event is sent at once, by itself; `settings` beat them.

    Since 0.1.

    Returns:
        A configuration with telemetry enabled.
    """
    return TelemetryConfiguration(**{"enabled": True, "batch_size": 1, "flush_interval_ms": 1, **settings})


class FakeClock:
    """The time that statements are measured by, which stands still but for `advance_ms`. A context manager.

    It is the time of session and statement contexts and of instrumented connections, for the whole process; batches
    are sent, and deadlines end, by the real one. Fake clocks do not nest.

    Since 0.1.

    Args:
        unix_time: where the wall clock starts, in seconds.

    Attributes:
        monotonic_ns: what the monotonic clock says, in nanoseconds.
        time_ns: what the wall clock says: Unix time in nanoseconds.
    """

    def __init__(self, *, unix_time: float = 1_764_000_000.0) -> None:
        self.monotonic_ns = 1_000_000_000
        self.time_ns = int(unix_time * 1_000_000_000)
        self._patched: list[tuple[ModuleType, str, Any]] = []

    def advance_ms(self, milliseconds: float) -> None:
        """Let so many `milliseconds` pass.

        Raises:
            ValueError: it would pass backwards.
        """
        if milliseconds < 0:
            raise ValueError(f"time does not pass backwards: {milliseconds}")
        passed = int(milliseconds * 1_000_000)
        self.monotonic_ns += passed
        self.time_ns += passed

    def __enter__(self) -> FakeClock:
        for name in (
            "connection",
            "context",
            "instrumentation.installation",
        ):  # whatever takes the time of a statement
            importlib.import_module(f"adbc_telemetry.{name}")

        real = {"monotonic_ns": time.monotonic_ns, "time_ns": time.time_ns}
        fake = {"monotonic_ns": lambda: self.monotonic_ns, "time_ns": lambda: self.time_ns}
        for module_name, module in list(sys.modules.items()):
            if module_name.startswith("adbc_telemetry."):
                for name, clock in real.items():
                    if vars(module).get(name) is clock:
                        self._patched.append((module, name, clock))
                        setattr(module, name, fake[name])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._patched:
            setattr(*self._patched.pop())
