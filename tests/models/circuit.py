"""The model of the circuit breaker (promise 11), on a clock that the test moves."""

from __future__ import annotations

from dataclasses import dataclass

from adbc_telemetry import CircuitBreakerState

CLOSED, OPEN, HALF_OPEN = CircuitBreakerState.CLOSED, CircuitBreakerState.OPEN, CircuitBreakerState.HALF_OPEN


class FakeClock:
    """Replaces the module `time` in the breaker. It moves in eighths of a second, which floats hold exactly."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class Circuit:
    """The model. `phase` counts state changes; an export belongs to the phase in which it began."""

    threshold: int
    open_seconds: float
    state: CircuitBreakerState = CLOSED
    phase: int = 0
    failures: int = 0
    successes: int = 0
    opened: float = 0.0
    probing: bool = False

    def ask(self, now: float) -> int | None:
        """The phase of the export that may start now; None if no export may start."""
        if self.state is OPEN and now >= self.opened + self.open_seconds:
            self._become(HALF_OPEN)
        if self.state is OPEN or self.probing:
            return None
        self.probing = self.state is HALF_OPEN
        return self.phase

    def report(self, phase: int, success: bool | None, now: float) -> None:
        """Report an export's success; None says nothing about the endpoint."""
        if phase != self.phase:
            return
        self.probing = False
        if success:
            self.failures = 0
            self.successes += 1
            if self.state is HALF_OPEN and self.successes == 2:
                self._become(CLOSED)
        elif success is False:
            self.failures += 1
            if self.state is HALF_OPEN or self.failures >= self.threshold:
                self._become(OPEN)
                self.opened = now

    def _become(self, state: CircuitBreakerState) -> None:
        self.state = state
        self.phase += 1
        self.failures = self.successes = 0
        self.probing = False
