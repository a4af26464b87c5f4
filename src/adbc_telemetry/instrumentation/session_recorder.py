"""What an instrumented connection carries: the session, from its beginning to its end.

It does not refer to the connection, so that the connection dies exactly when it would have without it.
Everything here may be called from the host program's methods and is contained: it raises nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from adbc_telemetry.context import StatementTelemetryContext
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.events.session import TelemetrySessionContext
from adbc_telemetry.instrumentation.operations import CREATE_SESSION, DELETE_SESSION, Operation
from adbc_telemetry.schema import ExecutionResultFormat

if TYPE_CHECKING:
    from adbc_telemetry.flagged import Lease

_NO_SCRIPT: Final[list[int]] = []


class CursorRecorder(Protocol):
    """What a session knows of the recorder of one of its cursors."""

    def end(self) -> None:
        """The cursor is closed, or the connection is."""
        ...


def _count_error(error: Exception, recorder: SessionRecorder, *_: object) -> None:
    recorder.errors += 1


def _no_statement(
    error: Exception, recorder: SessionRecorder, *_: object
) -> StatementTelemetryContext | None:
    recorder.errors += 1
    return None


class SessionRecorder:
    """Follows a connection from CREATE_SESSION, which is when this is made, to its one DELETE_SESSION.

    Attributes:
        session: what all events of the connection share.
        instrument_like_this: instruments another connection in the same way; for clones.
        result_format: in which the driver hands over results; None where it does not say.
        script: the token of a script, while it is under way: what the driver commits then is no event of its own.
        collected: set when the garbage collector closes the connection, where nothing may wait.
        errors: how many facts, also of its cursors' statements, could not be recorded.
    """

    __slots__ = (
        "_closing",
        "_cursors",
        "_lease",
        "_open",
        "collected",
        "errors",
        "instrument_like_this",
        "result_format",
        "script",
        "session",
    )

    def __init__(
        self,
        session: TelemetrySessionContext,
        lease: Lease,
        instrument_like_this: Callable[[Any], object],
        result_format: ExecutionResultFormat | None = None,
    ) -> None:
        self.session = session
        self.instrument_like_this = instrument_like_this
        self.result_format = result_format
        self.script: list[int] = _NO_SCRIPT
        self.collected = False
        self.errors = 0
        self._lease = lease
        self._closing: StatementTelemetryContext | None = None
        # Of drivers that close a connection's cursors without a word to them.
        self._cursors: weakref.WeakSet[CursorRecorder] | None = None
        # One token: the call that gets it ends the session. list.pop is atomic.
        self._open = [True]
        start_operation(session, CREATE_SESSION).emit()

    @property
    def connection(self) -> SessionRecorder:
        """This recorder: the recorders of connections and of cursors can be asked alike for that of the connection."""
        return self

    @never_raises(_no_statement)
    def begin(
        self, operation: Operation, arguments: Mapping[str, object]
    ) -> StatementTelemetryContext | None:
        """One call of a method of the connection; `finish` or `fail` ends it."""
        statement = start_operation(self.session, operation)
        if operation.by_depth is not None:
            depth = arguments.get("depth", "all")
            statement.operation_type = operation.by_depth.get(str(depth), operation.operation_type)
        return statement

    @never_raises(_count_error)
    def finish(self, statement: StatementTelemetryContext | None, returns_arrow: bool = False) -> None:
        if statement is not None:
            statement.record_execute_complete()
            if returns_arrow:
                statement.result_format = self.result_format
            statement.emit()

    @never_raises(_count_error)
    def fail(self, statement: StatementTelemetryContext | None, error: BaseException) -> None:
        if statement is not None:
            statement.record_error(error)
            statement.emit()

    @never_raises(_count_error)
    def begin_close(self) -> None:
        if self._closing is None:
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
        try:
            (self._closing or start_operation(self.session, DELETE_SESSION)).emit()
        finally:
            if self.collected:
                self._lease.release_soon()
            else:
                self._lease.release()

    @never_raises(_count_error)
    def _end_cursors(self) -> None:
        # Guarded by itself: another thread may make a cursor meanwhile, and the session has to end all the same.
        for recorder in tuple(self._cursors or ()):
            recorder.end()


def start_operation(session: TelemetrySessionContext, operation: Operation) -> StatementTelemetryContext:
    return StatementTelemetryContext(
        session, statement_type=operation.statement_type, operation_type=operation.operation_type
    )
