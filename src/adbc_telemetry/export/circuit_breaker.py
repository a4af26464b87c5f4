"""CircuitBreakerTelemetryExporter, and the breakers, one per host.

While the circuit of a host is open, `CircuitBreakerTelemetryExporter.export` does not call the endpoint and answers
`DROPPED`. What becomes of the events then is the client's decision: it drops and counts them, keeps them in the queue
(`circuit_open="retain"`), or writes them to the spool (`spool_dir`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adbc_telemetry.config import TelemetryConfiguration, checked_config
from adbc_telemetry.core.diagnostics import Diagnostics
from adbc_telemetry.core.fork import renew_in_child
from adbc_telemetry.core.native import RLock
from adbc_telemetry.core.reentrant import AtomicCounter
from adbc_telemetry.export.base import (
    NOTHING_EXPORTED,
    AbleExporter,
    ExportOutcome,
    ExportResult,
    TelemetryExporter,
    checked_exporter,
    expire,
    hold_nothing_open,
    preempt,
    safe_close,
    safe_export,
    takes_statements,
    with_abilities,
)
from adbc_telemetry.export.endpoints import normalize_endpoint
from adbc_telemetry.schema import TelemetryFrontendLog

if TYPE_CHECKING:
    from adbc_telemetry.export.breaker import CircuitBreaker, CircuitBreakerState


class CircuitBreakerManager:
    """The breakers of this process, one per host.

    Since 0.1.
    """

    def __init__(self) -> None:
        self._breakers: dict[str, CircuitBreaker] = {}
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """Another thread of the parent may have held the lock."""
        self._lock = RLock()  # guards _breakers

    @staticmethod
    def get_instance() -> CircuitBreakerManager:
        """The manager of this process."""
        return _instance

    def get_circuit_breaker(self, host: str, config: TelemetryConfiguration | None = None) -> CircuitBreaker:
        """The breaker of `host`; made with `config`, or the defaults, if there is none yet.

        Returns:
            The same breaker to every caller, in any spelling of the host.

        Raises:
            ValueError, TypeError: `host` names no host, or `config` is no configuration or makes no sense.
        """
        # pybreaker is slow to import, and not needed before there is a host.
        from adbc_telemetry.export.breaker import CircuitBreaker

        name = normalize_endpoint(host)
        if config is not None:
            checked_config(config)
        with self._lock:
            breaker = self._breakers.get(name)
            if breaker is None:
                # Not a plain assignment: a signal handler may have made one since `get`.
                breaker = self._breakers.setdefault(name, CircuitBreaker(config, Diagnostics(name)))
            return breaker

    def remove_circuit_breaker(self, host: str) -> None:
        """Forget the breaker of `host`; the next one starts closed. Does nothing if there is none."""
        name = normalize_endpoint(host)
        with self._lock:
            self._breakers.pop(name, None)

    def hosts(self) -> list[str]:
        """The hosts that have a breaker."""
        with self._lock:
            return sorted(self._breakers)


_instance = CircuitBreakerManager()


class CircuitBreakerTelemetryExporter(AbleExporter):
    """Wraps another exporter in the breaker of `host`.

    Every export that fails counts, whatever the error; one that its deadline cut short does not. While the
    circuit is open, `inner` is not called and the outcome is `DROPPED`. An empty batch counts as no export.

    Since 0.1.

    Raises:
        ValueError, TypeError: `inner` is no exporter, `host` names no host, or `config` is no configuration or
            makes no sense.
    """

    def __init__(
        self, inner: TelemetryExporter, host: str, config: TelemetryConfiguration | None = None
    ) -> None:
        self._inner = with_abilities(checked_exporter(inner))
        self._host = normalize_endpoint(host)
        self._breaker = CircuitBreakerManager.get_instance().get_circuit_breaker(self._host, config)
        self._errors = AtomicCounter()

    @property
    def host(self) -> str:
        """The host, normalised."""
        return self._host

    @property
    def state(self) -> CircuitBreakerState:
        """The breaker's state."""
        return self._breaker.state

    @property
    def breaker(self) -> CircuitBreaker:
        """The breaker of the host."""
        return self._breaker

    @property
    def wrapped(self) -> AbleExporter:
        """See `AbleExporter.wrapped`."""
        return self._inner

    @property
    def error_counter(self) -> AtomicCounter:
        """Counts the exceptions of `inner` that were swallowed here."""
        return self._errors

    @property
    def errors(self) -> int:
        """How many exceptions of `inner` were swallowed here."""
        return self._errors.value()

    @property
    def takes_statements(self) -> bool:
        """Whether `inner` does."""
        return takes_statements(self._inner)

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        """Export through `inner` unless the circuit is open. Never raises."""
        if not logs:
            return NOTHING_EXPORTED
        permit = self._breaker.ask()
        if permit is None:
            return ExportResult(ExportOutcome.DROPPED, reason="the circuit is open")
        success: bool | None = False
        retry_after: float | None = None
        try:
            result = safe_export(self._inner, logs, deadline, self._errors)
            # Logs that were refused one by one say something about the logs, nothing about the endpoint.
            refused = result.outcome is ExportOutcome.REJECTED and result.rejected >= len(logs)
            cancelled = result.outcome is ExportOutcome.CANCELLED
            success = None if refused or cancelled else bool(result)
            if isinstance(result.retry_after, (int, float)):  # a foreign exporter may say anything
                retry_after = result.retry_after
        finally:
            self._breaker.report(permit, success, retry_after)
        return result

    def expire(self, deadline: float) -> None:
        """See `ExporterAbilities.expire`."""
        expire(self._inner, deadline, self._errors)

    def preempt(self, long_waits_only: bool = False) -> None:
        """See `ExporterAbilities.preempt`."""
        preempt(self._inner, long_waits_only, self._errors)

    def hold_nothing_open(self) -> bool:
        """See `ExporterAbilities.hold_nothing_open`."""
        return hold_nothing_open(self._inner)

    def close(self) -> None:
        """Close `inner`. The breaker stays for as long as the host has leases."""
        safe_close(self._inner, self._errors)
