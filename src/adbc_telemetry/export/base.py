"""What every exporter is, what it answers, and how the client calls one so that its exceptions end here.

An exporter needs `export` and `close`, no more (`TelemetryExporter`). What else it may be able to do stands in
`abilities`. `with_abilities` adapts an exporter that knows nothing of them, once, where it comes in.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final, Protocol, runtime_checkable

from msgspec import Struct

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.reentrant import AtomicCounter
from adbc_telemetry.export.abilities import ExporterAbilities
from adbc_telemetry.schema import TelemetryFrontendLog

_OUR_EXPORTERS: Final = f"{__package__}."


class ExportOutcome(Enum):
    """How an export ended, for the logs that were neither delivered nor rejected one by one.

    Since 0.1.
    """

    DELIVERED = "delivered"
    """Accepted by the other side."""
    REJECTED = "rejected"
    """Refused for good: sending again would not help."""
    FAILED = "failed"
    """Not delivered after all retries, or because of an error in this package."""
    DROPPED = "dropped"
    """Not tried: the circuit is open."""
    CANCELLED = "cancelled"
    """Given up because the deadline came, or because the exporter was closed or preempted."""


class BatchOutcome(Struct, frozen=True):
    """How many logs of a batch were delivered and rejected, and which ones were neither."""

    delivered: int
    rejected: int
    unsent: list[TelemetryFrontendLog]


class ExportResult(Struct, frozen=True):
    """What became of a batch.

    `delivered` and `rejected` logs are done with, one by one. `outcome` says what became of the others, or of all
    logs if there are no others.

    Since 0.1.

    Attributes:
        outcome: see `ExportOutcome`.
        delivered: logs that were accepted.
        rejected: logs that were refused.
        reason: why not all logs were delivered, in words without a host, a token or a payload; None if they were.
        unsent: the logs that `outcome` is about, if the exporter can tell which; else they are the batch's last ones.
        retry_after: for how many seconds the other side has asked to be left alone, if it has.
    """

    outcome: ExportOutcome
    delivered: int = 0
    rejected: int = 0
    reason: str | None = None
    unsent: Sequence[TelemetryFrontendLog] | None = None
    retry_after: float | None = None

    def batch_outcome(self, batch: Sequence[TelemetryFrontendLog]) -> BatchOutcome:
        """What became of each log of `batch`. The counts add up, even if a foreign exporter has miscounted."""
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
NOT_ENCODABLE: Final = "not a log, or a value that the wire cannot carry"
"""The reason for rejecting a log that cannot be encoded."""


@runtime_checkable
class TelemetryExporter(Protocol):
    """Delivers batches. May be called from several threads; may block; may raise.

    Since 0.1.
    """

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        """Deliver `logs`.

        Args:
            logs: the batch. An empty one counts as delivered, and nothing is sent.
            deadline: the `time.monotonic()` value by which the call returns; None for no limit.
        """
        ...

    def close(self) -> None:
        """Release what it holds; an export under way ends soon. Idempotent."""
        ...


class AbleExporter(ExporterAbilities):
    """An exporter with every optional method; by default they do nothing. The base of our exporters."""

    @property
    def wrapped(self) -> TelemetryExporter | None:
        """The exporter that this one stands before; None where this is the last."""
        return None

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        """See `TelemetryExporter`."""
        raise NotImplementedError

    def close(self) -> None:
        """See `TelemetryExporter`."""
        raise NotImplementedError


class _ForeignExporter(AbleExporter):
    """Adapts an exporter of the program's own. It may have `expire` and `preempt`, and need not."""

    def __init__(self, exporter: TelemetryExporter) -> None:
        self._exporter = exporter

    @property
    def wrapped(self) -> TelemetryExporter:
        return self._exporter

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        return self._exporter.export(logs, deadline=deadline)

    def expire(self, deadline: float) -> None:
        expire = getattr(self._exporter, "expire", None)
        if expire is not None:
            expire(deadline)

    def preempt(self, long_waits_only: bool = False) -> None:
        preempt = getattr(self._exporter, "preempt", None)
        if preempt is not None:
            preempt(long_waits_only)

    def close(self) -> None:
        self._exporter.close()


def checked_exporter(exporter: Any) -> TelemetryExporter:
    """`exporter`, if it is one.

    Returns:
        The same object.

    Raises:
        TypeError: it has no `export` and `close` to call, or is a class.
    """
    if isinstance(exporter, type):
        raise TypeError(f"exporter must be an instance, not the class {exporter.__name__}")
    if not (callable(getattr(exporter, "export", None)) and callable(getattr(exporter, "close", None))):
        raise TypeError(f"exporter must have export() and close(), not be a {type(exporter).__name__}")
    return exporter  # type: ignore[no-any-return]


def with_abilities(exporter: TelemetryExporter) -> AbleExporter:
    """`exporter` itself if it inherits the abilities, else an adapter that has them in its place."""
    return exporter if isinstance(exporter, AbleExporter) else _ForeignExporter(exporter)


def failed_export(error: BaseException, *_: object, **__: object) -> ExportResult:
    """The result of an export that has raised `error`."""
    return ExportResult(ExportOutcome.FAILED, reason=type(error).__name__)


def name_of_exporter(exporter: TelemetryExporter) -> str:
    """The full name of the class of the last exporter of a chain, by which it is told apart from others."""
    while isinstance(exporter, AbleExporter) and exporter.wrapped is not None:
        exporter = exporter.wrapped
    return f"{type(exporter).__module__}.{type(exporter).__qualname__}"


# The exceptions of foreign exporters end in the functions below. Each of these takes the counter of errors last.


def _count(error: Exception, exporter: AbleExporter, *arguments: object) -> None:
    errors = arguments[-1]
    assert isinstance(errors, AtomicCounter)
    errors.increment()


def _count_failed_export(error: Exception, exporter: AbleExporter, *arguments: object) -> ExportResult:
    _count(error, exporter, *arguments)
    return failed_export(error)


@never_raises(_count_failed_export)
def safe_export(
    exporter: AbleExporter,
    logs: Sequence[TelemetryFrontendLog],
    deadline: float | None,
    errors: AtomicCounter,
) -> ExportResult:
    """Export `logs`. An exception, or an answer of another type, is a failed export and counts as an error."""
    result = exporter.export(logs, deadline=deadline)
    if not isinstance(result, ExportResult):
        raise TypeError(f"export() must return an ExportResult, not {type(result).__name__}")
    if not isinstance(result.outcome, ExportOutcome):
        raise TypeError(f"outcome must be an ExportOutcome, not {type(result.outcome).__name__}")
    if not isinstance(result.delivered, int) or not isinstance(result.rejected, int):
        raise TypeError("delivered and rejected must be whole numbers")
    return result


@never_raises(_count)
def expire(exporter: AbleExporter, deadline: float, errors: AtomicCounter) -> None:
    """`ExporterAbilities.expire`; an exception counts as an error."""
    exporter.expire(deadline)


@never_raises(_count)
def preempt(exporter: AbleExporter, long_waits_only: bool, errors: AtomicCounter) -> None:
    """`ExporterAbilities.preempt`; an exception counts as an error."""
    exporter.preempt(long_waits_only)


@never_raises(_count)
def safe_close(exporter: AbleExporter, errors: AtomicCounter) -> None:
    """Close `exporter`; an exception counts as an error."""
    exporter.close()


def takes_statements(exporter: AbleExporter) -> bool:
    """`ExporterAbilities.takes_statements`, of our own exporters; their subclasses get logs."""
    return _is_ours(exporter) and exporter.takes_statements


@never_raises(lambda error, exporter: False)
def hold_nothing_open(exporter: AbleExporter) -> bool:
    """`ExporterAbilities.hold_nothing_open`, of our own exporters; their subclasses have to be closed."""
    return _is_ours(exporter) and exporter.hold_nothing_open()


def _is_ours(exporter: AbleExporter) -> bool:
    """Whether the class itself is one of this folder, not a subclass of one."""
    return type(exporter).__module__.startswith(_OUR_EXPORTERS)
