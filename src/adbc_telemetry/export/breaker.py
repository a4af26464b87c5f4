"""CircuitBreaker: `pybreaker` with a clock that cannot jump, one probe at a time, and no lock during I/O."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import NoReturn

import pybreaker
from msgspec import Struct

from adbc_telemetry.config import TelemetryConfiguration, checked_config
from adbc_telemetry.core.diagnostics import Diagnostics
from adbc_telemetry.core.fork import renew_in_child
from adbc_telemetry.core.native import RLock

_SUCCESSES_TO_CLOSE = 2
_KEPT_TRANSITIONS = 100


class CircuitBreakerState(Enum):
    """Whether exports are let through.

    Since 0.1.
    """

    CLOSED = "closed"
    """All of them."""
    OPEN = "open"
    """None."""
    HALF_OPEN = "half-open"
    """One at a time, to see whether the endpoint has recovered."""


class CircuitTransition(Struct, frozen=True):
    """A change of state; `at` is a `time.monotonic()` value."""

    at: float
    old: CircuitBreakerState
    new: CircuitBreakerState


class Permit(Struct, frozen=True):
    """Permission to make one export, valid for the state in which it was given."""

    generation: int


class CircuitBreaker:
    """The breaker of one host.

    `pybreaker` keeps the states and counts. It would hold its lock during the call that it guards, so an export asks
    for a permit before and reports its outcome after. Each change of state begins a new generation, and a permit
    belongs to one: the outcome of an export that began before the last change says nothing about the new state.

    Since 0.1.

    Args:
        config: its threshold and timeout; None for the defaults.
        diagnostics: logs the changes of state; None for no log.

    Raises:
        TypeError, ValueError: `config` is no configuration, or makes no sense.
    """

    def __init__(
        self, config: TelemetryConfiguration | None = None, diagnostics: Diagnostics | None = None
    ) -> None:
        config = TelemetryConfiguration() if config is None else checked_config(config)
        self._diagnostics = diagnostics
        self._open_seconds = config.circuit_breaker_timeout_ms / 1000
        self._storage = _MonotonicStorage()
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=config.circuit_breaker_threshold,
            reset_timeout=self._open_seconds,
            success_threshold=_SUCCESSES_TO_CLOSE,
            state_storage=self._storage,
            listeners=[_Listener(self)],
            throw_new_error_on_trip=False,
        )
        self._generation = 0
        self._probing = False
        self._quiet_until = (
            0.0  # a `time.monotonic()` value: the endpoint has asked to be left alone until then
        )
        self._transitions: list[CircuitTransition] = []
        self._untold: deque[CircuitTransition] = deque(maxlen=_KEPT_TRANSITIONS)
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """Another thread of the parent may have held the locks, or a permit."""
        self._lock = RLock()  # guards everything here, pybreaker's state included
        self._breaker._lock = RLock()
        self._untold.clear()
        self._probing = False

    @property
    def state(self) -> CircuitBreakerState:
        """The state. An open circuit becomes half-open when an export asks after the timeout, not earlier."""
        return CircuitBreakerState(self._breaker.current_state)

    @property
    def transitions(self) -> list[CircuitTransition]:
        """The last changes of state, oldest first; at most a hundred."""
        with self._lock:
            return list(self._transitions)

    def ask(self) -> Permit | None:
        """The permit to make an export now, or None. Each permit must be given back to `report`."""
        with self._lock:
            if self.state is CircuitBreakerState.OPEN and self._is_over():
                self._breaker.half_open()
            if self.state is CircuitBreakerState.OPEN or self._probing:
                return None
            self._probing = self.state is CircuitBreakerState.HALF_OPEN
            permit = Permit(self._generation)
        self._tell()
        return permit

    def _is_over(self) -> bool:
        return self._storage.seconds_open() >= self._open_seconds and time.monotonic() >= self._quiet_until

    def report(self, permit: Permit, success: bool | None, retry_after: float | None = None) -> None:
        """Count how the export of `permit` went.

        Args:
            permit: of the export.
            success: None if that says nothing about the endpoint.
            retry_after: for how many seconds the endpoint has asked to be left alone: an open circuit stays open for
                that long at least.
        """
        with self._lock:
            if permit.generation == self._generation:
                self._count(success)
            if retry_after is not None and not success:
                self._quiet_until = max(self._quiet_until, time.monotonic() + retry_after)
        self._tell()

    def _count(self, success: bool | None) -> None:
        self._probing = False
        if success:
            self._breaker.call(_succeed)
        elif success is not None:
            with contextlib.suppress(_ExportFailed):  # pybreaker counts the exception and raises it again
                self._breaker.call(_fail)

    def _changed(self, old: str, new: str) -> None:
        self._generation += 1
        self._probing = False
        transition = CircuitTransition(time.monotonic(), CircuitBreakerState(old), CircuitBreakerState(new))
        self._transitions = [*self._transitions[1 - _KEPT_TRANSITIONS :], transition]
        self._untold.append(transition)

    def _tell(self) -> None:
        """Log the changes of state. Don't call it with the lock: handlers of the log belong to the program."""
        while self._untold:
            try:
                transition = self._untold.popleft()
            except IndexError:
                return  # another thread was faster
            if self._diagnostics is not None:
                old, new = transition.old.value, transition.new.value
                self._diagnostics.tell(f"circuit {new}", f"circuit {old} -> {new}")


class _ExportFailed(Exception):
    pass


def _succeed() -> None:
    pass


def _fail() -> NoReturn:
    raise _ExportFailed


class _Listener(pybreaker.CircuitBreakerListener):
    def __init__(self, owner: CircuitBreaker) -> None:
        self._owner = owner

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        self._owner._changed(old_state.name if old_state else pybreaker.STATE_CLOSED, new_state.name)


class _MonotonicStorage(pybreaker.CircuitMemoryStorage):
    """Remembers by the monotonic clock when the circuit opened.

    pybreaker uses the wall clock. A jump of the system's time would close the circuit at once, or keep it open for
    hours. So `opened_at` is the wall clock's time of now, less the time that has really passed.
    """

    def __init__(self) -> None:
        super().__init__(pybreaker.STATE_CLOSED)
        self._opened_monotonic: float | None = None

    def seconds_open(self) -> float:
        return float("inf") if self._opened_monotonic is None else time.monotonic() - self._opened_monotonic

    @property
    def opened_at(self) -> datetime | None:
        if self._opened_monotonic is None:
            return None
        return datetime.now(timezone.utc) - timedelta(seconds=self.seconds_open())

    @opened_at.setter
    def opened_at(self, datetime: datetime) -> None:
        self._opened_monotonic = time.monotonic()
