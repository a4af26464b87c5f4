"""Statement contexts: what happens to a statement, collected into one event."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from itertools import count
from time import monotonic_ns, time_ns
from types import TracebackType
from typing import Any, Final

from msgspec import Struct, field

from adbc_telemetry.core.decorators import Function, around
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.ids import id_of, next_number
from adbc_telemetry.driver_facts.error_category import ErrorCategory, error_category
from adbc_telemetry.events.handover import hand_over
from adbc_telemetry.events.session import TelemetrySessionContext
from adbc_telemetry.events.statement import LoggedStatement
from adbc_telemetry.events.wire_types import as_text
from adbc_telemetry.schema import ExecutionResultFormat, OperationType, StatementType, VolumeOperationType

# Beyond this many milliseconds, some thirty thousand years, nothing is a latency.
_LIMIT: Final = 1e15
_NUMBERS: Final = frozenset({int, float})
_INT32: Final = 2**31

_internal: Final[ContextVar[bool]] = ContextVar("adbc_telemetry_internal_call", default=False)


@contextlib.contextmanager
def internal_calls() -> Iterator[None]:
    """Mark the statements that begin in this block as made by the driver itself, and not for the user.

    For a driver's own `USE` and `SET`, and its heartbeats. It holds for the thread or task that enters the block, and
    for tasks that are started in it.
    """
    token = _internal.set(True)
    try:
        yield
    finally:
        # A generator of the driver's may be closed in another context than it began in; that context has no mark.
        with contextlib.suppress(ValueError):
            _internal.reset(token)


def _count_error(error: Exception, context: StatementTelemetryContext, *_: object, **__: object) -> None:
    context._errors += 1


def _no_number(error: Exception, context: StatementTelemetryContext, *_: object) -> int | None:
    context._errors += 1
    return None


class _OfSession(Struct):
    session: TelemetrySessionContext


class StatementTelemetryContext(_OfSession, LoggedStatement, kw_only=True, eq=False, gc=False):
    """Follows one statement from its start, which is when this is made, to its one event.

    All latencies are whole milliseconds of the monotonic clock, since the start. Only facts enter: no SQL, no
    parameter, no message; of an error, its class's name. No method raises: what cannot be understood is left
    out of the event and counted in `errors`. A context manager, also an asynchronous one: leaving the block records
    the exception that leaves with it, if any, and emits. A decorator, too: see `__call__`.

    Events of CREATE_SESSION and DELETE_SESSION are about no statement: they carry no statement's id.

    Since 0.1.

    Attributes:
        session: the connection's context.
        statement_id: ties the events of a statement together; a UUID unless the driver sets its own. Set to None, it
            says that there is no statement.
        statement_type, operation_type, result_format: see the enums of `adbc_telemetry.schema`.
        is_internal_call: made by the driver itself and not for the user; see also `internal_calls`.
        is_compressed: whether the result came compressed; the session's default unless set.
        retry_count: how often the driver tried again; see also `record_retry`.
        chunk_id: the chunk that an error was about.
        volume_operation: of a statement that moves a file to or from a volume; its paths are told to no one.
        errors: how many facts could not be recorded, or have a value that the wire has no type for.

    Raises:
        TypeError: `session` is no `TelemetrySessionContext`.
    """

    # Without the garbage collector's tracking (gc=False): it refers to its session, enums and plain values, and
    # nothing of those refers to it, but the queue that it passes through.

    statement_type: StatementType | None = None
    operation_type: OperationType | None = None
    result_format: ExecutionResultFormat | None = None
    is_internal_call: bool = False
    is_compressed: bool | None = None
    retry_count: int | None = None
    chunk_id: int | None = None
    volume_operation: VolumeOperationType | None = None
    _errors: int = 0
    _id: str | int | None = field(
        default_factory=next_number
    )  # a number stands for the id that is made of it
    _error_name: str | None = None
    _error_category: ErrorCategory | None = None
    _start_ns: int = 0
    _execute_complete_ns: int | None = None
    _first_batch_ns: int | None = None
    _results_consumed_ns: int | None = None
    _poll_count: int = 0
    _poll_sum_ms: float = 0.0
    _chunk_count: int = 0
    _chunk_first_ms: float = 0.0
    _chunk_slowest_ms: float = 0.0
    _chunk_sum_ms: float = 0.0
    _chunk_overrides: dict[str, int | None] | None = None
    # The call that gets the first number emits. `next` is one indivisible step, so close and the destructor
    # may race.
    _emissions: Any = field(default_factory=count)
    _emitted_ns: int = 0
    _emitted_at_ns: int = 0  # Unix time
    _event_number: int = 0  # of the event's id, where the statement's is no number

    def __post_init__(self) -> None:
        session = self.session
        if type(session) is not TelemetrySessionContext:
            _check(session)
        if self.result_format is None:
            self.result_format = session.default_result_format
        if self.is_compressed is None:
            self.is_compressed = session.default_compression_enabled
        if _internal.get():
            self.is_internal_call = True
        self._start_ns = monotonic_ns()

    @property
    def errors(self) -> int:
        """How many facts could not be recorded, or are none."""
        return self._errors + self._count_odd_facts()

    @property
    def statement_id(self) -> str:
        """Ties the events of a statement together."""
        if type(self._id) is int:
            self._event_number = self._id  # which an event that has been emitted already keeps
            self._id = id_of(self._id)
        return self._id  # type: ignore[return-value]

    @statement_id.setter
    def statement_id(self, statement_id: str | None) -> None:
        text = as_text(statement_id)
        if text is None and statement_id is not None:
            self._errors += 1
        else:
            self._id = text

    @property
    def error_category(self) -> ErrorCategory | None:
        """What went wrong, as one of a fixed list of words; None where nothing has.

        It leaves the process only where the session says `error_categories=True`.
        """
        return self._error_category

    @never_raises(_count_error)
    def began_before(self, elapsed_ms: float) -> None:
        """The statement began `elapsed_ms` milliseconds ago: timed elsewhere, or before its session was there."""
        if not 0 <= elapsed_ms < _LIMIT:
            raise ValueError("not a latency")
        self._start_ns = monotonic_ns() - int(elapsed_ms * 1_000_000)

    def record_execute_complete(self) -> None:
        """The server has accepted or finished the statement."""
        self._execute_complete_ns = monotonic_ns()

    def record_first_batch_ready(self) -> None:
        """The first rows can be read. Later calls change nothing."""
        if self._first_batch_ns is None:
            self._first_batch_ns = monotonic_ns()

    def record_results_consumed(self) -> None:
        """The last rows have been read."""
        self._results_consumed_ns = monotonic_ns()

    def record_poll(self, latency_ms: float) -> None:
        """One request for the statement's state, which took `latency_ms` milliseconds."""
        if type(latency_ms) in _NUMBERS and -_LIMIT < latency_ms < _LIMIT:
            self._poll_count += 1
            self._poll_sum_ms += latency_ms
        else:
            self._record_odd(self.record_poll, latency_ms)

    def record_chunk(self, latency_ms: float) -> None:
        """One chunk of the result has been downloaded, in `latency_ms` milliseconds.

        Threads that download in parallel may call this at once.
        """
        # No call between a read and its write, so that the interpreter does not switch threads in between.
        if type(latency_ms) in _NUMBERS and -_LIMIT < latency_ms < _LIMIT:
            if not self._chunk_count:
                self._chunk_first_ms = latency_ms
            self._chunk_count += 1
            self._chunk_sum_ms += latency_ms
            if latency_ms > self._chunk_slowest_ms:
                self._chunk_slowest_ms = latency_ms
        else:
            self._record_odd(self.record_chunk, latency_ms)

    @never_raises(_count_error)
    def _record_odd(self, record: Callable[[float], None], latency_ms: Any) -> None:
        """A latency that is no plain number: of numpy, say."""
        latency = float(latency_ms)
        if not -_LIMIT < latency < _LIMIT:
            raise ValueError("not a latency")
        record(latency)

    def set_chunk_details(
        self,
        *,
        total_chunks_present: int | None = None,
        total_chunks_iterated: int | None = None,
        initial_chunk_latency_ms: float | None = None,
        slowest_chunk_latency_ms: float | None = None,
        sum_chunks_download_time_ms: float | None = None,
    ) -> None:
        """What a driver that keeps its own count of chunks knows; beats what `record_chunk` has added up.

        A later call beats an earlier one in what it names.

        Args:
            total_chunks_present: how many chunks the result has.
            total_chunks_iterated: how many of them were read.
            initial_chunk_latency_ms: what the first one took, in milliseconds, as all of these.
            slowest_chunk_latency_ms: what the slowest one took.
            sum_chunks_download_time_ms: what all of them took together.
        """
        told = {
            "total_chunks_present": self._whole(total_chunks_present, _INT32),
            "total_chunks_iterated": self._whole(total_chunks_iterated, _INT32),
            "initial_chunk_latency_millis": self._whole(initial_chunk_latency_ms, _LIMIT),
            "slowest_chunk_latency_millis": self._whole(slowest_chunk_latency_ms, _LIMIT),
            "sum_chunks_download_time_millis": self._whole(sum_chunks_download_time_ms, _LIMIT),
        }
        known = {name: number for name, number in told.items() if number is not None}
        self._chunk_overrides = {**(self._chunk_overrides or {}), **known}

    def record_reader(
        self,
        *,
        result_format: ExecutionResultFormat | None = None,
        is_compressed: bool | None = None,
        total_chunks_present: int | None = None,
    ) -> None:
        """How the results really come, as the reader knows that the server's answer has led to.

        What it names beats the session's defaults: a connection that may get links to files gets small results inline.

        Args:
            result_format: None for the one so far.
            is_compressed: None for what holds so far.
            total_chunks_present: how many chunks the server has promised.
        """
        if result_format is not None:
            self.result_format = result_format
        if is_compressed is not None:
            self.is_compressed = is_compressed
        if total_chunks_present is not None:
            self.set_chunk_details(total_chunks_present=total_chunks_present)

    @never_raises(_count_error)
    def record_retry(self, times: int = 1) -> None:
        """The driver has tried again, `times` times."""
        self.retry_count = (self.retry_count or 0) + times

    @never_raises(_no_number)
    def _whole(self, number: float | None, limit: float) -> int | None:
        if number is None:
            return None
        whole = int(number)
        if not -limit < whole < limit:
            raise ValueError("more than the wire takes")
        return whole

    @never_raises(_count_error)
    def record_error(self, exception: BaseException) -> None:
        """The statement has failed. Of `exception` its class's name and category are kept; the first counts."""
        if self._error_name is None:
            self._error_name = type(exception).__name__
            self._error_category = error_category(exception)

    def emit(self) -> bool:
        """Hand the event to the session's client: the first time only.

        Returns:
            True where this call emitted the event; False where an earlier one had, or without a client.
        """
        if next(self._emissions):
            return False
        if self._results_consumed_ns is None:  # else that was the end
            self._emitted_ns = monotonic_ns()
        self._emitted_at_ns = time_ns()
        if type(self._id) is not int:  # else its number does for the event as well
            self._event_number = next_number()
        # A copy, so that the event keeps what it says now, whatever becomes of this context later.
        event = self.__copy__()  # type: ignore[attr-defined]
        event._emissions = None  # the garbage collector would track it for as long as the event is queued
        session = self.session
        if hand_over(session, event):
            return True
        if session.client is not None:
            self._errors += 1
        return False

    def __enter__(self) -> StatementTelemetryContext:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.record_error(error)
        self.emit()

    async def __aenter__(self) -> StatementTelemetryContext:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: Function) -> Function:
        """Decorate a function, or a coroutine function: each call is a statement of its own, of the same kind."""
        return around(self._another, function)

    def _another(self) -> StatementTelemetryContext:
        return StatementTelemetryContext(
            self.session,
            statement_type=self.statement_type,
            operation_type=self.operation_type,
            result_format=self.result_format,
            is_internal_call=self.is_internal_call,
        )


def _check(session: object) -> None:
    if not isinstance(session, TelemetrySessionContext):
        raise TypeError(f"session must be a TelemetrySessionContext, not {type(session).__name__}")
