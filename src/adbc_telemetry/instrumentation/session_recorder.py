"""What an instrumented connection carries: the session, from its beginning to its end.

It does not refer to the connection, so that the connection dies exactly when it would have without it.
Everything here may be called from the host program's methods and is contained: it raises nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from adbc_telemetry.context import StatementTelemetryContext
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.events.session import TelemetrySessionContext
from adbc_telemetry.instrumentation.observers import ConnectionObserver, OperationObserver, Outcome
from adbc_telemetry.instrumentation.operations import CREATE_SESSION, DELETE_SESSION, Operation
from adbc_telemetry.schema import ExecutionResultFormat

if TYPE_CHECKING:
    from adbc_telemetry.flagged import Lease

_NO_SCRIPT: Final[list[int]] = []
_NO_ARGUMENTS: Final[Mapping[str, Any]] = {}


class CursorRecorder(Protocol):
    """What a session knows of the recorder of one of its cursors."""

    def end(self) -> None:
        """The cursor is closed, or the connection is."""
        ...


class Call(NamedTuple):
    """One call of a method that is an operation from its call to its return: what each of the listeners has of it."""

    event: StatementTelemetryContext | None
    observed: OperationObserver | None


def _count_error(error: Exception, recorder: SessionRecorder, *_: object) -> None:
    recorder.errors += 1


def _no_event(error: Exception, recorder: SessionRecorder, *_: object) -> StatementTelemetryContext | None:
    recorder.errors += 1
    return None


class SessionRecorder:
    """Follows a connection for its two listeners. Either may come later than the other, and go earlier.

    The session's events go from CREATE_SESSION, which is when `session` comes, to the one DELETE_SESSION.

    Attributes:
        session: what all events of the connection share; None where there are no events.
        observer: the other listener, or None; see `observers`.
        result_format: in which the driver hands over results; None where it does not say.
        script: the token of a script, while it is under way: what the driver commits then is no event of its own.
        collected: set when the garbage collector closes the connection, where nothing may wait.
        errors: how many facts, also of its cursors' statements, could not be recorded.
    """

    __slots__ = (
        "_closing",
        "_cursors",
        "_instrument_like_this",
        "_lease",
        "_open",
        "collected",
        "errors",
        "observer",
        "result_format",
        "script",
        "session",
    )

    def __init__(
        self,
        session: TelemetrySessionContext | None = None,
        lease: Lease | None = None,
        instrument_like_this: Callable[[Any], object] | None = None,
        result_format: ExecutionResultFormat | None = None,
    ) -> None:
        self.session = session
        self.observer: ConnectionObserver | None = None
        self.result_format = result_format
        self.script: list[int] = _NO_SCRIPT
        self.collected = False
        self.errors = 0
        self._lease = lease
        self._instrument_like_this = instrument_like_this
        self._closing: StatementTelemetryContext | None = None
        # Of drivers that close a connection's cursors without a word to them.
        self._cursors: weakref.WeakSet[CursorRecorder] | None = None
        # One token: the call that gets it ends the session. list.pop is atomic.
        self._open = [True]
        if session is not None:
            start_operation(session, CREATE_SESSION).emit()

    @property
    def connection(self) -> SessionRecorder:
        """This recorder: the recorders of connections and of cursors can be asked alike for that of the connection."""
        return self

    def take_session(self, started: SessionRecorder) -> None:
        """Record events as well, in the session that another recorder has started and now leaves to this one."""
        self.result_format = started.result_format
        self._lease = started._lease
        self._instrument_like_this = started._instrument_like_this
        self.session = started.session

    @never_raises(_count_error)
    def instrument_like_this(self, connection: Any) -> None:
        """Instrument another connection in the same way; for clones."""
        if self._instrument_like_this is not None:
            self._instrument_like_this(connection)
        if self.observer is not None:
            self.observer.follow_clone(connection)

    def begin(
        self,
        operation: Operation,
        thing: Any = None,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = _NO_ARGUMENTS,
    ) -> Call | None:
        """One call of a method of the connection; `finish` or `fail` ends it."""
        event = None if self.session is None else self._begin_event(self.session, operation, kwargs)
        observer = self.observer
        observed = None if observer is None else observer.begin(operation, None, thing, args, kwargs)
        return Call(event, observed)

    @never_raises(_no_event)
    def _begin_event(
        self, session: TelemetrySessionContext, operation: Operation, arguments: Mapping[str, object]
    ) -> StatementTelemetryContext | None:
        event = start_operation(session, operation)
        if operation.by_depth is not None:
            depth = arguments.get("depth", "all")
            event.operation_type = operation.by_depth.get(str(depth), operation.operation_type)
        return event

    def finish(self, call: Call | None, returns_arrow: bool = False) -> None:
        if call is not None:
            self._end_observation(call, None)
            self._finish_event(call.event, returns_arrow)

    @never_raises(_count_error)
    def _finish_event(self, event: StatementTelemetryContext | None, returns_arrow: bool) -> None:
        if event is not None:
            event.record_execute_complete()
            if returns_arrow:
                event.result_format = self.result_format
            event.emit()

    def fail(self, call: Call | None, error: BaseException) -> None:
        if call is not None:
            self._end_observation(call, error)
            self._fail_event(call.event, error)

    @never_raises(_count_error)
    def _fail_event(self, event: StatementTelemetryContext | None, error: BaseException) -> None:
        if event is not None:
            event.record_error(error)
            event.emit()

    @never_raises(_count_error)
    def _end_observation(self, call: Call, error: BaseException | None) -> None:
        if call.observed is not None:
            call.observed.returned()
            statement_id = None if call.event is None else call.event.statement_id
            call.observed.ended(Outcome(statement_id, error, None, None, monotonic_ns(), None))

    @never_raises(_count_error)
    def begin_close(self) -> None:
        if self._closing is None and self.session is not None:
            self._closing = start_operation(self.session, DELETE_SESSION)

    @never_raises(_count_error)
    def fail_close(self, error: BaseException) -> None:
        """The connection would not close: it is still open, and may be closed again."""
        if self._closing is not None:
            self._closing.record_error(error)

    def end_with_connection(self, recorder: CursorRecorder) -> None:
        """Have this recorder of a cursor ended with the connection: a driver may close cursors without a call."""
        if self._cursors is None:
            self._cursors = weakref.WeakSet()
        self._cursors.add(recorder)

    @never_raises(_count_error)
    def end(self) -> None:
        """The connection is closed: say so, once, and let go of the client.

        Waits for delivery, within `close_timeout_ms`, where this was the host's last connection; never in
        the garbage collector, which may be running in any thread and inside any lock.
        """
        try:
            self._open.pop()
        except IndexError:
            return
        self._end_cursors()
        if self.session is None:
            return
        try:
            (self._closing or start_operation(self.session, DELETE_SESSION)).emit()
        finally:
            if self._lease is not None:
                self._release(self._lease)

    def _release(self, lease: Lease) -> None:
        if self.collected:
            lease.release_soon()
        else:
            lease.release()

    @never_raises(_count_error)
    def _end_cursors(self) -> None:
        # Guarded by itself: another thread may make a cursor meanwhile, and the session has to end all the same.
        for recorder in tuple(self._cursors or ()):
            recorder.end()


def start_operation(session: TelemetrySessionContext, operation: Operation) -> StatementTelemetryContext:
    return StatementTelemetryContext(
        session, statement_type=operation.statement_type, operation_type=operation.operation_type
    )
