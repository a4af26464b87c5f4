"""Session and statement contexts: what happens to a statement, collected into one log.

What a statement costs is the caller's time, so the context is a struct that takes a fifth of a microsecond to make,
and its log, which takes ten times that, is built where the events are sent: a client of ours is handed a copy of the
context in the log's place. Any other client is handed the log.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from time import monotonic_ns, time_ns
from types import TracebackType
from typing import Any, Final

from msgspec import Struct, field

from adbc_telemetry.encoding import SessionPart, StatementEntry, StatementLog, StatementSqlLog
from adbc_telemetry.guard import contained
from adbc_telemetry.ids import event_id_of, id_of, next_number
from adbc_telemetry.protocols import TelemetryClientProtocol
from adbc_telemetry.schema import (
    ChunkDetails,
    DriverConnectionParameters,
    DriverErrorInfo,
    DriverSystemConfiguration,
    ExecutionResultFormat,
    FrontendLogContext,
    FrontendLogEntry,
    OperationDetail,
    OperationType,
    OssSqlDriverTelemetryLog,
    ResultLatency,
    SqlExecutionEvent,
    StatementType,
    TelemetryClientContext,
    TelemetryFrontendLog,
)

# Beyond this many milliseconds, some thirty thousand years, nothing is a latency.
_LIMIT: Final = 1e15
_NUMBERS: Final = frozenset({int, float})
# What stands in JSON as it is.
_PLAIN_TEXT: Final = re.compile(r"[\w.:/ -]*", re.ASCII)


class TelemetrySessionContext(Struct, frozen=True, kw_only=True):
    """What all events of a connection share. Immutable, so that it is encoded once and not once an event.

    Attributes:
        session_id: ties the events of a connection together.
        workspace_id: the Databricks workspace, where there is one (int64).
        auth_type: how the connection authenticates, in the driver's own words; never a credential.
        system_configuration: the process; see `adbc_telemetry.system`.
        driver_connection_params: the connection's settings that may be told.
        default_result_format: of statements that do not say their own.
        default_compression_enabled: whether results come compressed, of statements that do not say.
        client: where events go; without one, `emit` does nothing.
        user_agent: the driver and its version, as it calls itself over HTTP.
    """

    session_id: str | None = None
    workspace_id: int | None = None
    auth_type: str | None = None
    system_configuration: DriverSystemConfiguration | None = None
    driver_connection_params: DriverConnectionParameters | None = None
    default_result_format: ExecutionResultFormat | None = None
    default_compression_enabled: bool | None = None
    client: TelemetryClientProtocol | None = None
    user_agent: str | None = None

    def wire_part(self) -> SessionPart:
        """See `encoding.Session`."""
        return SessionPart(
            self.session_id, self.system_configuration, self.driver_connection_params, self.auth_type
        )


def _count_error(error: Exception, context: StatementTelemetryContext, *_: object, **__: object) -> None:
    context.errors += 1


def _not_sent(error: Exception, context: StatementTelemetryContext, *_: object) -> bool:
    context.errors += 1
    return False


class _OfSession(Struct):
    session: TelemetrySessionContext


class StatementTelemetryContext(_OfSession, kw_only=True, eq=False, gc=False):
    """Follows one statement from its start, which is when this is made, to its one event.

    All latencies are whole milliseconds of the monotonic clock, since the start. Only facts enter: no SQL, no
    parameter, no message; of an error, its class's name. No method raises: what cannot be understood is left
    out of the event and counted in `errors`. A context manager: leaving the block records the exception that
    leaves with it, if any, and emits.

    Attributes:
        session: the connection's context.
        statement_id: ties the events of a statement together; a UUID unless the driver sets its own.
        statement_type, operation_type, result_format: see the enums of `adbc_telemetry.schema`.
        is_internal_call: made by the driver itself and not for the user.
        is_compressed: whether the result came compressed; the session's default unless set.
        retry_count: how often the driver tried again.
        chunk_id: the chunk that an error was about.
        errors: how many facts could not be recorded.
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
    errors: int = 0
    _id: str | int = field(default_factory=next_number)  # the number of an id that nobody has asked for yet
    _error_name: str | None = None
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
    # Its first number is taken by whoever emits first: `next` is one indivisible step, so close and the destructor
    # may race.
    _emissions: Any = field(default_factory=count)
    _emitted_ns: int = 0
    _emitted_at_ns: int = 0  # Unix time
    _event_number: int = 0  # of the event's id, where the statement's is no number

    def __post_init__(self) -> None:
        session = self.session
        if self.result_format is None:
            self.result_format = session.default_result_format
        if self.is_compressed is None:
            self.is_compressed = session.default_compression_enabled
        self._start_ns = monotonic_ns()

    @property
    def statement_id(self) -> str:
        """Ties the events of a statement together."""
        if type(self._id) is int:
            self._event_number = self._id  # which an event that has been emitted already keeps
            self._id = id_of(self._id)
        return self._id  # type: ignore[return-value]

    @statement_id.setter
    def statement_id(self, statement_id: str) -> None:
        self._id = statement_id

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
        """One chunk of the result has been downloaded, in `latency_ms` milliseconds."""
        if type(latency_ms) in _NUMBERS and -_LIMIT < latency_ms < _LIMIT:
            if not self._chunk_count:
                self._chunk_first_ms = latency_ms
            self._chunk_count += 1
            self._chunk_sum_ms += latency_ms
            if latency_ms > self._chunk_slowest_ms:
                self._chunk_slowest_ms = latency_ms
        else:
            self._record_odd(self.record_chunk, latency_ms)

    @contained(_count_error)
    def _record_odd(self, record: Callable[[float], None], latency_ms: Any) -> None:
        """A latency that is no plain number: of numpy, say."""
        latency = float(latency_ms)
        if not -_LIMIT < latency < _LIMIT:
            raise ValueError("not a latency")
        record(latency)

    @contained(_count_error)
    def set_chunk_details(
        self,
        *,
        total_chunks_present: int | None = None,
        total_chunks_iterated: int | None = None,
        initial_chunk_latency_ms: float | None = None,
        slowest_chunk_latency_ms: float | None = None,
        sum_chunks_download_time_ms: float | None = None,
    ) -> None:
        """What a driver that keeps its own count of chunks knows; beats what `record_chunk` has added up."""
        self._chunk_overrides = {
            "total_chunks_present": _whole(total_chunks_present),
            "total_chunks_iterated": _whole(total_chunks_iterated),
            "initial_chunk_latency_millis": _whole(initial_chunk_latency_ms),
            "slowest_chunk_latency_millis": _whole(slowest_chunk_latency_ms),
            "sum_chunks_download_time_millis": _whole(sum_chunks_download_time_ms),
        }

    @contained(_count_error)
    def record_error(self, exception: BaseException) -> None:
        """The statement has failed. Only the name of the exception's class is kept; the first one counts."""
        if self._error_name is None:
            self._error_name = type(exception).__name__

    def build_telemetry_log(self) -> OssSqlDriverTelemetryLog:
        """The statement as the wire has it, as far as it has got."""
        start, ready, consumed = self._start_ns, self._first_batch_ns, self._results_consumed_ns
        if ready is None:
            ready = self._execute_complete_ns
        end = (self._emitted_ns or monotonic_ns()) if consumed is None else consumed
        latency = None
        if ready is not None or consumed is not None:
            latency = ResultLatency(
                result_set_ready_latency_millis=None if ready is None else (ready - start) // 1_000_000,
                result_set_consumption_latency_millis=None
                if consumed is None
                else (consumed - start) // 1_000_000,
            )
        polls = self._poll_count
        session = self.session
        # By position, which takes two thirds of the time that names take: this is done for each event.
        return OssSqlDriverTelemetryLog(
            session.session_id,
            self.statement_id,
            session.system_configuration,
            session.driver_connection_params,
            session.auth_type,
            None,
            SqlExecutionEvent(
                self.statement_type,
                self.is_compressed,
                self.result_format,
                self.chunk_id,
                self.retry_count,
                self._chunk_details(),
                latency,
                OperationDetail(
                    polls or None,
                    int(self._poll_sum_ms) if polls else None,
                    self.operation_type,
                    self.is_internal_call,
                ),
            ),
            None if self._error_name is None else DriverErrorInfo(self._error_name),
            (end - start) // 1_000_000,
        )

    def emit(self, *, ended_ns: int = 0) -> bool:
        """Hand the event to the session's client: the first time only.

        Args:
            ended_ns: of a statement whose results were not read to the end, when it was last at work, by
                `time.monotonic_ns`, so that it does not last while it lies idle; 0: until now.

        Returns:
            True where this call emitted the event; False where an earlier one had, or without a client.
        """
        if next(self._emissions):
            return False
        if self._results_consumed_ns is None:  # else that was the end
            self._emitted_ns = ended_ns or monotonic_ns()
        self._emitted_at_ns = time_ns()
        if type(self._id) is not int:  # else its number does for the event as well
            self._event_number = next_number()
        client: Any = self.session.client
        if type(client) is _statement_taker:
            enqueue = client.enqueue
            if (
                getattr(enqueue, "__func__", None) is _take_statement
            ):  # and not what somebody has put in its place
                # A copy, since what becomes of this one later is no concern of the event's.
                event = self.__copy__()  # type: ignore[attr-defined]
                event._emissions = (
                    None  # which the garbage collector would look at for as long as it is queued
                )
                enqueue(event)
                return True
        return self._send_log(client)

    @contained(_not_sent)
    def _send_log(self, client: TelemetryClientProtocol | None) -> bool:
        if client is None:
            return False
        client.enqueue(self.frontend_log())
        return True

    def frontend_log(self) -> TelemetryFrontendLog:
        """The event, once it is emitted."""
        session, number = self.session, self._id
        return TelemetryFrontendLog(
            session.workspace_id,
            event_id_of(number if type(number) is int else self._event_number),
            FrontendLogContext(TelemetryClientContext(self._emitted_at_ns // 1_000_000, session.user_agent)),
            FrontendLogEntry(self.build_telemetry_log()),
        )

    def shape(self) -> tuple[object, ...] | None:
        """See `encoding.Statement`."""
        retry, chunk, statement_id = self.retry_count, self.chunk_id, self._id
        kind, operation, result = self.statement_type, self.operation_type, self.result_format
        if self._chunk_overrides is not None:
            return None
        own_id = type(statement_id) is int
        if not own_id and not _PLAIN_TEXT.fullmatch(statement_id):  # type: ignore[arg-type]
            return None
        return (
            own_id,
            # Not the members: an Enum's hash takes a call of Python each.
            kind and kind._value_,
            operation and operation._value_,
            result and result._value_,
            self.is_internal_call,
            self.is_compressed,
            self._error_name,
            retry is None,
            chunk is None,
            self._chunk_count == 0,
            self._poll_count == 0,
            self._execute_complete_ns is None and self._first_batch_ns is None,
            self._results_consumed_ns is None,
        )

    def wire_log(self, blanks: Sequence[int]) -> StatementLog:
        """See `encoding.Statement`."""
        event, time, number, text, chunk, retries, first, slowest, count, sum_ms, ready, consumed, *rest = (
            blanks
        )
        polls, polls_ms, latency = rest
        is_ready = self._first_batch_ns is not None or self._execute_complete_ns is not None
        is_consumed = self._results_consumed_ns is not None
        return StatementLog(
            event_id_of(event),
            FrontendLogContext(client_context=TelemetryClientContext(timestamp_millis=time)),
            StatementEntry(
                StatementSqlLog(
                    sql_statement_id=id_of(number) if isinstance(self._id, int) else str(text),
                    sql_operation=SqlExecutionEvent(
                        statement_type=self.statement_type,
                        is_compressed=self.is_compressed,
                        execution_result=self.result_format,
                        chunk_id=None if self.chunk_id is None else chunk,
                        retry_count=None if self.retry_count is None else retries,
                        chunk_details=ChunkDetails(
                            initial_chunk_latency_millis=first,
                            slowest_chunk_latency_millis=slowest,
                            total_chunks_iterated=count,
                            sum_chunks_download_time_millis=sum_ms,
                        )
                        if self._chunk_count
                        else None,
                        result_latency=ResultLatency(
                            result_set_ready_latency_millis=ready if is_ready else None,
                            result_set_consumption_latency_millis=consumed if is_consumed else None,
                        )
                        if is_ready or is_consumed
                        else None,
                        operation_detail=OperationDetail(
                            n_operation_status_calls=polls if self._poll_count else None,
                            operation_status_latency_millis=polls_ms if self._poll_count else None,
                            operation_type=self.operation_type,
                            is_internal_call=self.is_internal_call,
                        ),
                    ),
                    operation_latency_ms=latency,
                    error_info=None
                    if self._error_name is None
                    else DriverErrorInfo(error_name=self._error_name),
                )
            ),
        )

    def fill(self, template: bytes, agent: bytes, tail: bytes) -> bytes:
        """See `encoding.Statement`."""
        start, ready, consumed = self._start_ns, self._first_batch_ns, self._results_consumed_ns
        if ready is None:
            ready = self._execute_complete_ns
        statement_id = self._id
        end = self._emitted_ns if consumed is None else consumed
        own = type(statement_id) is int
        return template % (
            statement_id if own else self._event_number,
            self._emitted_at_ns // 1_000_000,
            agent,
            statement_id,
            None if own else statement_id.encode(),  # type: ignore[union-attr]
            self.chunk_id,
            self.retry_count,
            self._chunk_first_ms,
            self._chunk_slowest_ms,
            self._chunk_count,
            self._chunk_sum_ms,
            None if ready is None else (ready - start) // 1_000_000,
            None if consumed is None else (consumed - start) // 1_000_000,
            self._poll_count,
            self._poll_sum_ms,
            (end - start) // 1_000_000,
            tail,
        )

    def _chunk_details(self) -> ChunkDetails | None:
        if self._chunk_overrides is None:
            if not self._chunk_count:
                return None
            return ChunkDetails(
                int(self._chunk_first_ms),
                int(self._chunk_slowest_ms),
                None,
                self._chunk_count,
                int(self._chunk_sum_ms),
            )
        recorded: dict[str, int | None] = {}
        if self._chunk_count:
            recorded = {
                "initial_chunk_latency_millis": int(self._chunk_first_ms),
                "slowest_chunk_latency_millis": int(self._chunk_slowest_ms),
                "total_chunks_iterated": self._chunk_count,
                "sum_chunks_download_time_millis": int(self._chunk_sum_ms),
            }
        told = self._chunk_overrides.items()
        return ChunkDetails(**{**recorded, **{name: value for name, value in told if value is not None}})

    def __enter__(self) -> StatementTelemetryContext:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.record_error(error)
        self.emit()


_statement_taker: type[Any] | None = None
_take_statement: object = None


def hand_over_statements_to(client_class: type[Any]) -> None:
    """Tell that `enqueue` of this class takes copies of contexts in their logs' place; `logs_of` makes logs of them."""
    global _statement_taker, _take_statement
    _statement_taker, _take_statement = client_class, client_class.enqueue


def logs_of(events: Iterable[TelemetryFrontendLog | StatementTelemetryContext]) -> list[TelemetryFrontendLog]:
    """The events as logs. What is neither a log nor a context is left as it is: an exporter refuses it."""
    return [event.frontend_log() if type(event) is StatementTelemetryContext else event for event in events]  # type: ignore[misc]


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)
