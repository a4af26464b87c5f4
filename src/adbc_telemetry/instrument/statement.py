"""Statements as instrumented connections see them: some are abandoned, and then idle time must not count."""

from __future__ import annotations

from time import monotonic_ns

from msgspec import structs

from adbc_telemetry.context import StatementTelemetryContext
from adbc_telemetry.schema import OssSqlDriverTelemetryLog

_MILLISECOND_NS = 1_000_000


class RecordedStatement(StatementTelemetryContext):
    """A statement on an instrumented cursor.

    Attributes:
        active_ns: the monotonic time of the last thing that the driver did for it; unset until it has answered.
    """

    __slots__ = ("active_ns",)

    active_ns: int

    def abandon(self) -> None:
        """Nobody is going to read the rest: the time since the driver was last asked for something is not its."""
        # The one case that has to be built in another way; all others are spared the detour.
        self.__class__ = _AbandonedStatement


class _AbandonedStatement(RecordedStatement):
    __slots__ = ()

    def build_telemetry_log(self) -> OssSqlDriverTelemetryLog:
        log = super().build_telemetry_log()
        latency, active_ns = log.operation_latency_ms, getattr(self, "active_ns", None)
        if latency is None or active_ns is None:  # the latter: closed by another thread while it executes
            return log
        idle_ms = (monotonic_ns() - active_ns) // _MILLISECOND_NS
        return structs.replace(log, operation_latency_ms=max(0, latency - idle_ms))
