"""The account of a client: how many events ended in which way."""

from __future__ import annotations

import re
from typing import Final

from adbc_telemetry.core.diagnostics import Failure
from adbc_telemetry.core.reentrant import AtomicCounter
from adbc_telemetry.export.base import BatchOutcome, ExportOutcome, ExportResult
from adbc_telemetry.protocols import ClientStats

# Names of the semantic conventions for `error.type`.
TIMEOUT: Final = "timeout"
_REJECTED: Final = "rejected"
_OTHER: Final = "_OTHER"
# An exporter of the program's own may have a reason of its own for each failure.
_MOST_ERROR_TYPES: Final = 50
_OUTCOMES: Final = {ExportOutcome.CANCELLED: "cancelled", ExportOutcome.REJECTED: _REJECTED}


def error_type_of(result: ExportResult) -> str:
    """Why an export has not delivered all, as `error.type` has it: of low cardinality, and private.

    The status of an answer (`503`), the class of an exception (`ConnectTimeoutError`), `cancelled`, `rejected`, or
    `_OTHER`.
    """
    reason = result.reason if isinstance(result.reason, str) else ""
    status = re.fullmatch(r"HTTP ([1-5][0-9][0-9])", reason)
    if status is not None:
        return status[1]
    if reason.isidentifier() and len(reason) <= 100:
        return reason
    return _REJECTED if result else _OUTCOMES.get(result.outcome, _OTHER)


class Account:
    """Counts the ends of events. The client's lock guards it, apart from the atomic counters.

    Attributes:
        dropped_full, dropped_closed, errors: see `ClientStats`.
        undelivered: events that were rejected or have failed, by `error.type`.
    """

    def __init__(self) -> None:
        self.dropped_full = AtomicCounter()
        self.dropped_closed = AtomicCounter()
        self.errors = AtomicCounter()
        self._left_at_close = 0
        self._delivered = 0
        self._rejected = 0
        self._failed = 0
        self._dropped_open = 0
        self._spooled = 0
        self._exports = 0
        self.undelivered: dict[str, int] = {}

    def exported(self, batch: BatchOutcome, result: ExportResult, *, spooled: int, requeued: bool) -> None:
        """An export is over.

        Args:
            batch: how the events of its batch ended.
            result: its outcome says how those ended that were neither delivered nor rejected.
            spooled: so many of those are in the spool now.
            requeued: they are in the queue again, so they are not counted yet.
        """
        self._exports += 1
        self._delivered += batch.delivered
        self._rejected += batch.rejected
        self._spooled += spooled
        lost = 0 if requeued else len(batch.unsent) - spooled
        if result.outcome is ExportOutcome.DROPPED:
            self._dropped_open += lost
        else:
            self._failed += lost
            self._count_undelivered(error_type_of(result), lost)
        # The reason of a result is that of the last events, which may have failed otherwise.
        self._count_undelivered(_REJECTED if batch.unsent else error_type_of(result), batch.rejected)

    def abandoned(self, count: int, spooled: int) -> None:
        """The close gives up on a batch that the exporter does not let go of."""
        self._failed += count - spooled
        self._count_undelivered(TIMEOUT, count - spooled)
        self._spooled += spooled

    def left_at_close(self, count: int, spooled: int) -> None:
        """The time of the close was up while these events were in the queue."""
        self._left_at_close += count - spooled
        self._spooled += spooled

    def _count_undelivered(self, error_type: str, count: int) -> None:
        if count:
            if len(self.undelivered) >= _MOST_ERROR_TYPES and error_type not in self.undelivered:
                error_type = _OTHER
            self.undelivered[error_type] = self.undelivered.get(error_type, 0) + count

    def drops(self) -> dict[str, int]:
        """How many events were dropped, by the reason in words. Needs no lock: each number stands by itself."""
        return {
            "dropped: the queue was full": self.dropped_full.value(),
            "dropped: the circuit was open": self._dropped_open,
            "dropped: the client was closed": self.dropped_closed.value() + self._left_at_close,
        }

    def stats(
        self,
        *,
        taken: int,
        queued: int,
        in_flight: int,
        replayed: int,
        spool_lost: int,
        further_errors: int,
        last_failure: Failure | None,
    ) -> ClientStats:
        """All counts; `taken` events have left the queue to be sent, or at its close."""
        full, closed = self.dropped_full.value(), self.dropped_closed.value()
        return ClientStats(
            enqueued=taken + queued + full + closed,
            delivered=self._delivered,
            rejected=self._rejected,
            failed=self._failed,
            dropped_queue_full=full,
            dropped_circuit_open=self._dropped_open,
            dropped_closed=closed + self._left_at_close,
            spooled=self._spooled,
            queued=queued,
            in_flight=in_flight,
            exports=self._exports,
            errors=self.errors.value() + further_errors,
            replayed=replayed,
            spool_lost=spool_lost,
            last_failure=last_failure,
        )
