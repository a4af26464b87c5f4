"""What every exporter is, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final, Protocol, runtime_checkable

from msgspec import Struct

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.reentrant import AtomicCounter
from adbc_telemetry.schema import TelemetryFrontendLog


class ExportOutcome(Enum):
    """How an export ended, for the logs that were neither delivered nor rejected one by one."""

    DELIVERED = "delivered"
    """Accepted by the other side."""
    REJECTED = "rejected"
    """Refused for good: sending again would not help."""
    FAILED = "failed"
    """Not delivered after all retries, or for an error of ours."""
    DROPPED = "dropped"
    """Not tried: the circuit is open."""
    CANCELLED = "cancelled"
    """Given up because the deadline came, or the exporter was closed."""


class BatchOutcome(Struct, frozen=True):
    """How many logs of a batch were delivered and rejected, and which ones were neither."""

    delivered: int
    rejected: int
    unsent: list[TelemetryFrontendLog]


class ExportResult(Struct, frozen=True):
    """What became of a batch.

    `delivered` and `rejected` logs have reached their end one by one; `outcome` is that of the others (of all,
    where there are no others).

    Attributes:
        outcome: see `ExportOutcome`.
        delivered: logs that were accepted.
        rejected: logs that were refused.
        reason: why it was not all delivered, in words without a host, a token or a payload; None if it was.
        unsent: the logs that `outcome` is of, where the exporter can tell them; else they are the batch's last ones.
    """

    outcome: ExportOutcome
    delivered: int = 0
    rejected: int = 0
    reason: str | None = None
    unsent: Sequence[TelemetryFrontendLog] | None = None

    def batch_outcome(self, batch: Sequence[TelemetryFrontendLog]) -> BatchOutcome:
        """How each log of `batch` has ended, whatever an exporter of somebody's may have counted."""
        delivered = min(max(self.delivered, 0), len(batch))
        rejected = min(max(self.rejected, 0), len(batch) - delivered)
        rest = len(batch) - delivered - rejected
        if self.outcome is ExportOutcome.DELIVERED:
            return BatchOutcome(delivered + rest, rejected, [])
        if self.outcome is ExportOutcome.REJECTED:
            return BatchOutcome(delivered, rejected + rest, [])
        unsent = self.unsent
        if unsent is None or len(unsent) != rest:
            unsent = batch[len(batch) - rest :]
        return BatchOutcome(delivered, rejected, list(unsent))

    def __bool__(self) -> bool:
        """Whether the export succeeded."""
        return self.outcome is ExportOutcome.DELIVERED


NOTHING_EXPORTED: Final = ExportResult(ExportOutcome.DELIVERED)
"""The answer to an empty batch. It says nothing about the other side, which is not asked."""


@runtime_checkable
class TelemetryExporter(Protocol):
    """Takes a batch somewhere. May be called from several threads; need not be fast; may raise."""

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        """Deliver `logs`.

        Args:
            logs: the batch. An empty one is delivered without a word to the other side.
            deadline: the `time.monotonic()` value by which the call has returned; None for no limit.
        """
        ...

    def close(self) -> None:
        """Release what it holds; an export under way ends soon. Idempotent."""
        ...


def checked_exporter(exporter: Any) -> TelemetryExporter:
    """`exporter`, if it is one.

    Raises:
        TypeError: it has no `export` and `close` to call, or is a class.
    """
    if isinstance(exporter, type):
        raise TypeError(f"exporter must be an instance, not the class {exporter.__name__}")
    if not (callable(getattr(exporter, "export", None)) and callable(getattr(exporter, "close", None))):
        raise TypeError(f"exporter must have export() and close(), not be a {type(exporter).__name__}")
    return exporter  # type: ignore[no-any-return]


def failed_export(error: BaseException, *_: object, **__: object) -> ExportResult:
    """What an export comes to that has raised."""
    return ExportResult(ExportOutcome.FAILED, reason=type(error).__name__)


def _counted_failure(
    error: Exception, exporter: object, logs: object, deadline: object, errors: AtomicCounter
) -> ExportResult:
    errors.increment()
    return failed_export(error)


# The exceptions of foreign exporters end here. `errors` counts them.


@never_raises(_counted_failure)
def safe_export(
    exporter: TelemetryExporter,
    logs: Sequence[TelemetryFrontendLog],
    deadline: float | None,
    errors: AtomicCounter,
) -> ExportResult:
    """Export with an exporter of anybody's: an exception, or an answer that is none, is a failed export."""
    result = exporter.export(logs, deadline=deadline)
    if not isinstance(result, ExportResult):
        raise TypeError(f"export() must return an ExportResult, not {type(result).__name__}")
    if not isinstance(result.outcome, ExportOutcome):
        raise TypeError(f"outcome must be an ExportOutcome, not {type(result.outcome).__name__}")
    if not isinstance(result.delivered, int) or not isinstance(result.rejected, int):
        raise TypeError("delivered and rejected must be whole numbers")
    return result


@never_raises(lambda error, exporter: False)
def takes_statements(exporter: object) -> bool:
    """Whether an exporter would rather have statements than the logs that it would take apart again.

    Only exporters of ours say so, of themselves: a subclass, or whatever else stands in for one, gets logs.
    """
    return getattr(exporter, "takes_statements", False) is True


def _count(error: Exception, exporter: object, *arguments: object) -> None:
    errors = arguments[-1]
    assert isinstance(errors, AtomicCounter)
    errors.increment()


@never_raises(_count)
def expire(exporter: object, deadline: float, errors: AtomicCounter) -> None:
    """Tell an exporter that everything under way has to be over by `deadline`, if it can be told."""
    notify = getattr(exporter, "expire", None)
    if notify is not None:
        notify(deadline)


@never_raises(_count)
def preempt(exporter: object, long_waits_only: bool, errors: AtomicCounter) -> None:
    """Have the export under way end as cancelled, or only if it waits for a `Retry-After`, if it can be told."""
    notify = getattr(exporter, "preempt", None)
    if notify is not None:
        notify(long_waits_only)


@never_raises(lambda error, exporter: False)
def hold_nothing_open(exporter: object) -> bool:
    """Have an exporter keep nothing open between exports from now on; False of one that has to be closed instead.

    Only exporters of ours can be told, and not their subclasses, whose `close` may have more to do.
    """
    notify = getattr(exporter, "hold_nothing_open", None)
    return notify is not None and notify() is True


@never_raises(_count)
def safe_close(exporter: TelemetryExporter, errors: AtomicCounter) -> None:
    """Close an exporter of anybody's; an exception changes nothing any more."""
    exporter.close()
