"""InMemoryTelemetryExporter: keeps what it gets, for tests and to see what would be sent."""

from __future__ import annotations

from collections.abc import Sequence

from adbc_telemetry.core.fork import renew_in_child
from adbc_telemetry.core.native import Lock
from adbc_telemetry.export.base import NOTHING_EXPORTED, AbleExporter, ExportOutcome, ExportResult
from adbc_telemetry.schema import TelemetryFrontendLog


class InMemoryTelemetryExporter(AbleExporter):
    """Keeps every log in `logs`, without a bound, and every batch in `batches`.

    Since 0.1.
    """

    def __init__(self) -> None:
        self._batches: list[tuple[TelemetryFrontendLog, ...]] = []
        self.closed = False
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """Another thread of the parent may have held the lock."""
        self._lock = Lock()  # guards _batches

    @property
    def logs(self) -> list[TelemetryFrontendLog]:
        """All logs so far, in the order in which they came."""
        with self._lock:
            return [log for batch in self._batches for log in batch]

    @property
    def batches(self) -> list[tuple[TelemetryFrontendLog, ...]]:
        """All batches so far."""
        with self._lock:
            return list(self._batches)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._batches.clear()

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        """Keep `logs`; always delivered."""
        if not logs:
            return NOTHING_EXPORTED
        with self._lock:
            self._batches.append(tuple(logs))
        return ExportResult(outcome=ExportOutcome.DELIVERED, delivered=len(logs))

    def hold_nothing_open(self) -> bool:
        """True: nothing is ever open."""
        return True

    def close(self) -> None:
        """Set `closed`; the logs stay readable."""
        self.closed = True
