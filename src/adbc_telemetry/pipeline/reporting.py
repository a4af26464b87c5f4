"""What a client says about its exports: its last failure, and lines in the log at DEBUG."""

from __future__ import annotations

from typing import Final

from adbc_telemetry.core.diagnostics import Diagnostics
from adbc_telemetry.export.base import BatchOutcome, ExportOutcome, ExportResult

# What is said of an export that did not go well, where its exporter gives no reason.
_NO_REASON: Final = {
    ExportOutcome.DELIVERED: "events were refused",
    ExportOutcome.REJECTED: "the export was refused",
    ExportOutcome.FAILED: "the export has failed",
    ExportOutcome.DROPPED: "the circuit is open",
    ExportOutcome.CANCELLED: "the export was cancelled",
}


class ExportReport:
    """Tells when delivery begins to fail and when it works again.

    Called by one task at a time, without the client's lock: to log calls handlers of the program's.
    """

    def __init__(self, diagnostics: Diagnostics) -> None:
        self._diagnostics = diagnostics
        self._failed_exports = 0  # in a row

    def exported(self, result: ExportResult, batch: BatchOutcome, *, requeued: bool) -> None:
        """An export is over."""
        outcome, diagnostics = result.outcome, self._diagnostics
        if outcome is ExportOutcome.DROPPED:
            if diagnostics.last_failure is None:  # else that is the failure that opened the circuit
                diagnostics.failed(result.reason, _NO_REASON[outcome])
            return
        went_wrong = batch.rejected or (batch.unsent and not requeued)
        reason = diagnostics.failed(result.reason, _NO_REASON[outcome]) if went_wrong else ""
        # Events that are refused one by one say something about the events, not about the endpoint.
        one_by_one = outcome is ExportOutcome.REJECTED and result.rejected >= batch.rejected
        if went_wrong and (result or one_by_one):
            diagnostics.tell("refused", f"events were refused: {reason}")
        elif went_wrong:
            self._failed_exports += 1
            diagnostics.tell("delivery", f"delivery fails: {reason}")
        if result and self._failed_exports:
            diagnostics.tell("recovery", f"delivery works again, after {self._failed_exports} failed exports")
            self._failed_exports = 0

    def dropped(self, counts: dict[str, int], *, last: bool = False) -> None:
        """Events were dropped so far: `counts` of them, by the reason in words."""
        for reason, count in counts.items():
            self._diagnostics.tell_count(reason, count, reason, last=last)

    def abandoned(self) -> None:
        """The close has given up on a batch."""
        self._diagnostics.failed(None, "an export did not end in time")
