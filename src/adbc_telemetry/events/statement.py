"""Statements on their way to become logs.

The log of a statement is built where events are sent, so that the caller need not wait for it: the package's own client
gets the facts of the statement. Every other client gets the log.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from time import monotonic_ns
from typing import Any, ClassVar, Final

from msgspec import Struct

from adbc_telemetry.core.ids import event_id_of, id_of
from adbc_telemetry.driver_facts.error_category import ErrorCategory
from adbc_telemetry.events.encoding import FIRST_BLANK
from adbc_telemetry.events.session import TelemetrySessionContext
from adbc_telemetry.events.wire_types import INT64, as_flag, as_member, as_whole
from adbc_telemetry.schema import (
    ChunkDetails,
    DriverErrorInfo,
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
    VolumeOperationEvent,
    VolumeOperationType,
)

# What stands in JSON as it is.
_PLAIN_TEXT: Final = re.compile(r"[\w.:/ -]*", re.ASCII)

# Events of these are about no statement, and name none: else each would count as one.
_BEGIN: Final = OperationType.CREATE_SESSION
_END: Final = OperationType.DELETE_SESSION

# The facts that a driver sets as it likes, and what each is as the wire's type.
_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "statement_type": partial(as_member, StatementType),
    "operation_type": partial(as_member, OperationType),
    "result_format": partial(as_member, ExecutionResultFormat),
    "is_internal_call": as_flag,
    "is_compressed": as_flag,
    "retry_count": as_whole,
    "chunk_id": as_whole,
    "volume_operation": partial(as_member, VolumeOperationType),
}


class LoggedStatement:
    """The facts of a statement, and the forms that its log takes.

    A fact that a subclass does not have as a field keeps the value that it has here: not recorded.
    """

    __slots__ = ()

    _sound: ClassVar[bool] = False  # whether it is known that all its facts are of the wire's types

    session: TelemetrySessionContext
    statement_type: StatementType | None
    operation_type: OperationType | None
    result_format: ExecutionResultFormat | None
    is_compressed: bool | None
    is_internal_call: bool = False
    retry_count: int | None = None
    chunk_id: int | None = None
    volume_operation: VolumeOperationType | None = None
    _id: str | int | None  # a number stands for an id that was not asked for yet
    _event_number: int = 0  # of the event's id, where the statement's is no number
    _error_name: str | None
    _error_category: ErrorCategory | None = None
    # By the monotonic clock.
    _start_ns: int
    _execute_complete_ns: int | None
    _first_batch_ns: int | None
    _results_consumed_ns: int | None
    _emitted_ns: int
    _emitted_at_ns: int  # Unix time
    _poll_count: int = 0
    _poll_sum_ms: float = 0.0
    _chunk_count: int = 0
    _chunk_first_ms: float = 0.0
    _chunk_slowest_ms: float = 0.0
    _chunk_sum_ms: float = 0.0
    _chunk_overrides: dict[str, int | None] | None = None

    @property
    def statement_id(self) -> str | None:
        """Ties the events of a statement together; None of an event that is about none."""
        number = self._id
        return id_of(number) if type(number) is int else number  # type: ignore[return-value]

    def build_telemetry_log(self) -> OssSqlDriverTelemetryLog:
        """The statement as the wire has it, as far as it has got."""
        start, ready, consumed = self._start_ns, self._first_batch_ns, self._results_consumed_ns
        if ready is None:
            ready = self._execute_complete_ns
        end = (self._emitted_ns or monotonic_ns()) if consumed is None else consumed
        latency = None
        if ready is not None or consumed is not None:
            latency = ResultLatency(
                None if ready is None else (ready - start) // 1_000_000,
                None if consumed is None else (consumed - start) // 1_000_000,
            )
        polls = self._poll_count
        has_chunks = self._chunk_count or self._chunk_overrides is not None
        session = self.session
        kind, operation, result = self.statement_type, self.operation_type, self.result_format
        internal, compressed = self.is_internal_call, self.is_compressed
        retry, chunk, volume = self.retry_count, self.chunk_id, self.volume_operation
        # Spelled out, since a call would cost more than all of it: this is done for each event.
        if not self._sound and not (
            (type(kind) is StatementType or kind is None)
            and (type(operation) is OperationType or operation is None)
            and (type(result) is ExecutionResultFormat or result is None)
            and (internal is False or internal is True)
            and (compressed is None or compressed is True or compressed is False)
            and (retry is None or (type(retry) is int and -INT64 <= retry < INT64))
            and (chunk is None or (type(chunk) is int and -INT64 <= chunk < INT64))
            and (volume is None or type(volume) is VolumeOperationType)
        ):
            kind, operation, result, internal, compressed, retry, chunk, volume = self._sound_facts()
        # By position, which takes two thirds of the time that names take.
        return OssSqlDriverTelemetryLog(
            session.session_id,
            None if operation is _BEGIN or operation is _END else self.statement_id,
            session.system_configuration,
            session.driver_connection_params,
            session.auth_type,
            None if volume is None else VolumeOperationEvent(volume),
            SqlExecutionEvent(
                kind,
                compressed,
                result,
                chunk,
                retry,
                self._chunk_details() if has_chunks else None,
                latency,
                OperationDetail(
                    polls or None,
                    int(self._poll_sum_ms) if polls else None,
                    operation,
                    internal,
                ),
            ),
            None if self._error_name is None else DriverErrorInfo(self._error_name, self._error_word()),
            (end - start) // 1_000_000,
        )

    def _error_word(self) -> str | None:
        """The category of the error, where the session says that it is told."""
        category = self._error_category
        return category.value if category is not None and self.session.error_categories else None

    def _count_odd_facts(self) -> int:
        told = ((getattr(self, name), read) for name, read in _READERS.items())
        return sum(value is not None and read(value) is None for value, read in told)

    def _sound_facts(self) -> tuple[Any, ...]:
        """The facts that a driver sets, in the order of `_READERS`, without those that are none."""
        told = ((getattr(self, name), read) for name, read in _READERS.items())
        return tuple(None if value is None else read(value) for value, read in told)

    def frontend_log(self) -> TelemetryFrontendLog:
        """The event, once it is emitted."""
        session, number = self.session, self._id
        return TelemetryFrontendLog(
            session.workspace_id,
            event_id_of(number if type(number) is int else self._event_number),
            FrontendLogContext(TelemetryClientContext(self._emitted_at_ns // 1_000_000, session.user_agent)),
            FrontendLogEntry(self.build_telemetry_log()),
        )

    def outline(self, agent: bytes, tail: bytes) -> tuple[Hashable, tuple[object, ...]] | None:
        """See `encoding.Statement`."""
        retry, chunk, statement_id = self.retry_count, self.chunk_id, self._id
        internal, compressed = self.is_internal_call, self.is_compressed
        chunks, polls = self._chunk_count, self._poll_count
        if self._chunk_overrides is not None:
            return None
        if retry is not None and not (type(retry) is int and -INT64 <= retry < INT64):
            return None
        if chunk is not None and not (type(chunk) is int and -INT64 <= chunk < INT64):
            return None
        event: int
        statement: int | bytes
        if has_number := type(statement_id) is int:
            event = statement = statement_id
        elif _PLAIN_TEXT.fullmatch(statement_id):  # type: ignore[arg-type]
            event, statement = self._event_number, statement_id.encode()  # type: ignore[union-attr]
        else:
            return None
        start, ready, consumed = self._start_ns, self._first_batch_ns, self._results_consumed_ns
        if ready is None:
            ready = self._execute_complete_ns
        end = self._emitted_ns if consumed is None else consumed
        shape = (
            has_number,
            # The ids of the members: an Enum's hash costs a Python call each, and a value that is not a member may
            # be equal to one. A member lives forever, so no other object gets its id. `blank` refuses other values.
            id(self.statement_type),
            id(self.operation_type),
            id(self.result_format),
            # By identity, since 1 is equal to True.
            internal is True,
            internal is False,
            compressed is True,
            compressed is False,
            self._error_name,
            None if self._error_name is None else self._error_word(),
            id(self.volume_operation),
            retry is None,
            chunk is None,
            chunks == 0,
            polls == 0,
            ready is None,
            consumed is None,
        )
        return shape, (
            event,
            self._emitted_at_ns // 1_000_000,
            agent,
            statement,
            chunk,
            retry,
            self._chunk_first_ms,
            self._chunk_slowest_ms,
            chunks,
            self._chunk_sum_ms,
            None if ready is None else (ready - start) // 1_000_000,
            None if consumed is None else (consumed - start) // 1_000_000,
            polls,
            self._poll_sum_ms,
            (end - start) // 1_000_000,
            tail,
        )

    def blank(self) -> LoggedStatement:
        """See `encoding.Statement`."""
        kind, operation, result, *_, volume = self._sound_facts()
        if (
            kind is not self.statement_type
            or operation is not self.operation_type
            or result is not self.result_format
            or volume is not self.volume_operation
        ):
            raise TypeError("a shape with a value that is not a member of the wire's enum has no template")
        return _Blank(self)

    def _chunk_details(self) -> ChunkDetails:
        if self._chunk_overrides is None:
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


# The facts that the numbers of a log are made of.
_NUMBERS: Final = (
    "_id",
    "_event_number",
    "_emitted_at_ns",
    "chunk_id",
    "retry_count",
    "_chunk_first_ms",
    "_chunk_slowest_ms",
    "_chunk_count",
    "_chunk_sum_ms",
    "_execute_complete_ns",
    "_first_batch_ns",
    "_results_consumed_ns",
    "_emitted_ns",
    "_poll_count",
    "_poll_sum_ms",
)
_ABSENT_IF_ZERO: Final = frozenset({"_chunk_count", "_poll_count"})
_BLANK_SESSION: Final = TelemetrySessionContext(user_agent="blank")
_BLANK_SESSION_WITH_CATEGORIES: Final = TelemetrySessionContext(user_agent="blank", error_categories=True)


class _Blank(LoggedStatement):
    """A statement of the same shape as another. Each number that its log has is a blank, unlike any other number."""

    def __init__(self, statement: LoggedStatement) -> None:
        facts = {name: getattr(statement, name) for name in LoggedStatement.__annotations__}
        for blank, name in enumerate(_NUMBERS, FIRST_BLANK):
            fact = facts[name]
            if isinstance(fact, str):
                facts[name] = str(blank)
            elif fact is not None and not (fact == 0 and name in _ABSENT_IF_ZERO):
                facts[name] = blank * 1_000_000 if name.endswith("_ns") else blank
        tells = statement.session.error_categories
        session = _BLANK_SESSION_WITH_CATEGORIES if tells else _BLANK_SESSION
        vars(self).update(facts, session=session, _start_ns=0)


class StatementRecord(Struct, LoggedStatement, eq=False, gc=False, frozen=True):
    """A statement that is over, as instrumentation knows it: made once all is known, in one step and by position."""

    # Without the garbage collector's tracking (gc=False): it refers to its session, enums and plain values, and
    # nothing of those refers to it.

    _sound: ClassVar[bool] = True

    session: TelemetrySessionContext
    _id: int
    statement_type: StatementType | None
    operation_type: OperationType | None
    result_format: ExecutionResultFormat | None
    is_compressed: bool | None
    _error_name: str | None
    _start_ns: int
    _execute_complete_ns: int | None
    _first_batch_ns: int | None
    _results_consumed_ns: int | None
    _emitted_ns: int
    _emitted_at_ns: int


def logs_of(events: Iterable[TelemetryFrontendLog | LoggedStatement]) -> list[TelemetryFrontendLog]:
    """The events as logs. What is neither a log nor a statement is left as it is: an exporter refuses it."""
    return [event.frontend_log() if isinstance(event, LoggedStatement) else event for event in events]
