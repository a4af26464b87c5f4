"""Session and statement contexts: what happens to a statement, collected into one log."""

from __future__ import annotations

from time import monotonic_ns, time_ns
from types import TracebackType

from msgspec import Struct

from adbc_telemetry.guard import contained
from adbc_telemetry.ids import new_id
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

_INFINITY = float("inf")


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


def _count_error(error: Exception, context: StatementTelemetryContext, *_: object, **__: object) -> None:
    context.errors += 1


def _not_sent(error: Exception, context: StatementTelemetryContext) -> bool:
    context.errors += 1
    return False


class StatementTelemetryContext:
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

    __slots__ = (
        "_chunks",
        "_error_name",
        "_execute_complete_ns",
        "_first_batch_ns",
        "_poll_count",
        "_poll_sum_ms",
        "_results_consumed_ns",
        "_start_ns",
        "_unsent",
        "chunk_id",
        "errors",
        "is_compressed",
        "is_internal_call",
        "operation_type",
        "result_format",
        "retry_count",
        "session",
        "statement_id",
        "statement_type",
    )

    def __init__(
        self,
        session: TelemetrySessionContext,
        *,
        statement_type: StatementType | None = None,
        operation_type: OperationType | None = None,
        result_format: ExecutionResultFormat | None = None,
        is_internal_call: bool = False,
    ) -> None:
        self.session = session
        self.statement_id = new_id()
        self.statement_type = statement_type
        self.operation_type = operation_type
        self.result_format = result_format or session.default_result_format
        self.is_internal_call = is_internal_call
        self.is_compressed = session.default_compression_enabled
        self.retry_count: int | None = None
        self.chunk_id: int | None = None
        self.errors = 0
        self._error_name: str | None = None
        self._execute_complete_ns: int | None = None
        self._first_batch_ns: int | None = None
        self._results_consumed_ns: int | None = None
        self._poll_count = 0
        self._poll_sum_ms = 0.0
        self._chunks: _Chunks | None = None
        # One token, taken by whoever emits first: list.pop is atomic, so close and the destructor may race.
        self._unsent = [True]
        self._start_ns = monotonic_ns()

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

    @contained(_count_error)
    def record_poll(self, latency_ms: float) -> None:
        """One request for the statement's state, which took `latency_ms` milliseconds."""
        self._poll_sum_ms += _finite(latency_ms)
        self._poll_count += 1

    @contained(_count_error)
    def record_chunk(self, latency_ms: float) -> None:
        """One chunk of the result has been downloaded, in `latency_ms` milliseconds."""
        if self._chunks is None:
            self._chunks = _Chunks()
        self._chunks.add(latency_ms)

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
        if self._chunks is None:
            self._chunks = _Chunks()
        self._chunks.overrides = {
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
        end = monotonic_ns() if consumed is None else consumed
        session = self.session
        return OssSqlDriverTelemetryLog(
            session_id=session.session_id,
            sql_statement_id=self.statement_id,
            system_configuration=session.system_configuration,
            driver_connection_params=session.driver_connection_params,
            auth_type=session.auth_type,
            sql_operation=SqlExecutionEvent(
                statement_type=self.statement_type,
                is_compressed=self.is_compressed,
                execution_result=self.result_format,
                chunk_id=self.chunk_id,
                retry_count=self.retry_count,
                chunk_details=None if self._chunks is None else self._chunks.details(),
                result_latency=None
                if ready is None and consumed is None
                else ResultLatency(
                    result_set_ready_latency_millis=None if ready is None else (ready - start) // 1_000_000,
                    result_set_consumption_latency_millis=None
                    if consumed is None
                    else (consumed - start) // 1_000_000,
                ),
                operation_detail=OperationDetail(
                    n_operation_status_calls=self._poll_count or None,
                    operation_status_latency_millis=int(self._poll_sum_ms) if self._poll_count else None,
                    operation_type=self.operation_type,
                    is_internal_call=self.is_internal_call,
                ),
            ),
            error_info=None if self._error_name is None else DriverErrorInfo(error_name=self._error_name),
            operation_latency_ms=(end - start) // 1_000_000,
        )

    def emit(self) -> bool:
        """Build the event and hand it to the session's client: the first time only.

        Returns:
            True where this call emitted the event; False where an earlier one had, or without a client.
        """
        try:
            self._unsent.pop()
        except IndexError:
            return False
        return self._send()

    @contained(_not_sent)
    def _send(self) -> bool:
        session = self.session
        client = session.client
        if client is None:
            return False
        client.enqueue(
            TelemetryFrontendLog(
                workspace_id=session.workspace_id,
                frontend_log_event_id=new_id(),
                context=FrontendLogContext(
                    client_context=TelemetryClientContext(
                        timestamp_millis=time_ns() // 1_000_000, user_agent=session.user_agent
                    )
                ),
                entry=FrontendLogEntry(sql_driver_log=self.build_telemetry_log()),
            )
        )
        return True

    def __enter__(self) -> StatementTelemetryContext:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.record_error(error)
        self.emit()


class _Chunks:
    """The running account of a result's chunks."""

    __slots__ = ("count", "first_ms", "overrides", "slowest_ms", "sum_ms")

    def __init__(self) -> None:
        self.count = 0
        self.first_ms = 0.0
        self.slowest_ms = 0.0
        self.sum_ms = 0.0
        self.overrides: dict[str, int | None] = {}

    def add(self, latency_ms: float) -> None:
        self.sum_ms += _finite(latency_ms)
        if self.count == 0:
            self.first_ms = latency_ms
        self.slowest_ms = max(self.slowest_ms, latency_ms)
        self.count += 1

    def details(self) -> ChunkDetails:
        recorded: dict[str, int | None] = {}
        if self.count:
            recorded = {
                "initial_chunk_latency_millis": int(self.first_ms),
                "slowest_chunk_latency_millis": int(self.slowest_ms),
                "total_chunks_iterated": self.count,
                "sum_chunks_download_time_millis": int(self.sum_ms),
            }
        known = {name: value for name, value in self.overrides.items() if value is not None}
        return ChunkDetails(**{**recorded, **known})


def _finite(number: float) -> float:
    if not -_INFINITY < number < _INFINITY:
        raise ValueError("not a latency")
    return number


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)
