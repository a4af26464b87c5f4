"""What a cursor of an instrumented connection carries: the statement under way.

It does not refer to the cursor, so that the cursor dies exactly when it would have without it.
Everything here may be called from the host program's methods and is contained: it raises nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from time import monotonic_ns, time_ns
from typing import Any, Final

from adbc_telemetry.core.guard import never_raises, never_raises_of_four
from adbc_telemetry.core.ids import id_of, next_number
from adbc_telemetry.events.handover import hand_over
from adbc_telemetry.events.statement import StatementRecord
from adbc_telemetry.instrumentation.operations import AT_A_GLANCE, GLANCE, QUERY, Operation, classify
from adbc_telemetry.instrumentation.session_recorder import Call, SessionRecorder
from adbc_telemetry.schema import StatementType

NOTHING: Final[list[int]] = []  # is under way
NO_ARGUMENTS: Final[Mapping[str, Any]] = {}


def _count_error(error: Exception, recorder: StatementRecorder, *_: object) -> None:
    recorder.connection.errors += 1


def not_ended(error: Exception, recorder: StatementRecorder, *_: object) -> int | None:
    recorder.connection.errors += 1
    return None


def _perhaps(error: Exception, recorder: StatementRecorder, cursor: object) -> bool:
    recorder.connection.errors += 1
    return True


# What returns no rows is answered by some drivers with a table of one row: how many were changed, or that it
# went well. (DuckDB: Count, Success; Snowflake: status, number of rows inserted.)
_STATUS_COLUMNS: Final = ("count", "success", "status", "number of rows ")


class StatementRecorder:
    """Follows a cursor: the statement whose results are still being read, if any.

    What is known of a statement is kept here until it is over, and becomes its event in one step. To move facts from
    one place to another cannot fail; what can (SQL of an odd type, the driver's description, a client that is not
    ours) is contained by itself, since a guard around each step would cost a statement more than the steps do.

    Attributes:
        under_way: a token of the statement under way: its number, by which its id is made, until a call takes it
            out to emit the event. list.pop is atomic, so that a close in another thread may race with a fetch.
        active_ns: the monotonic time of the last thing that the driver did for the statement; 0 before.
        connection: the recorder of the cursor's connection.
        awaits_rows: whether no row of it has been fetched yet.
        reader: the reader that has been handed out last; see `readers`.
    """

    __slots__ = (
        "__weakref__",
        "_execute_complete_ns",
        "_first_batch_ns",
        "_kind",
        "_operation",
        "_start_ns",
        "active_ns",
        "awaits_rows",
        "connection",
        "reader",
        "under_way",
    )

    connection: SessionRecorder
    under_way: list[int]
    reader: weakref.ref[Any] | None
    _execute_complete_ns: int | None
    _first_batch_ns: int | None

    # There is no `__init__`, which takes Python longer to call than what it would do, and a cursor is made for each
    # statement: `observed.new_statement_recorder` makes a recorder. The rest is the statement's, and set by `begin`.

    def begin(
        self,
        operation: Operation,
        sql: object,
        cursor: Any = None,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = NO_ARGUMENTS,
    ) -> None:
        """A statement starts on the cursor, which is the end of the one before.

        The cursor and the arguments of the call are for an observer; see `observed`.
        """
        if self.under_way:
            self.end()
        kind = operation.kind
        if kind is None:
            if type(sql) is not str:
                kind = classify(sql)
            # Whether it starts with "SELECT ", without a call and a copy: "!" is the character after the blank.
            elif "SELECT " <= sql < "SELECT!" or "select " <= sql < "select!":
                kind = QUERY
            else:
                kind = AT_A_GLANCE.get(sql[:GLANCE]) or classify(sql)
        self._kind = kind
        self._operation = operation
        self._execute_complete_ns = self._first_batch_ns = self.reader = None
        self.active_ns = 0
        self.awaits_rows = False
        self._start_ns = monotonic_ns()
        # At last, since it may be ended from now on: by another thread, or because a signal handler raises.
        self.under_way = [next_number()]
        if operation.commits_first:
            self.connection.script = self.under_way

    def executed(self, cursor: Any) -> None:
        """The driver has answered. Without rows to come, that is the end of the statement."""
        if not self.under_way:
            return
        self._execute_complete_ns = self.active_ns = monotonic_ns()
        if self._operation.opens_results and (self._kind.returns_rows or self._has_rows(cursor)):
            self.awaits_rows = True
        else:
            self._end(None, None, 0)

    def fetched(self, over: bool, fetched: object = None) -> None:
        """Rows or a batch have been fetched; `over` where these were the last.

        What has been fetched is for an observer: rows, a table or a batch; None of a single row.
        """
        if not self.under_way:
            return
        now = monotonic_ns()
        if self.awaits_rows:
            self.awaits_rows = False
            self._first_batch_ns = now
        if over:
            self._end(now, None, 0)
        else:
            self.active_ns = now

    @never_raises(_count_error)
    def handed_out(self) -> None:
        """The results are to be read in another way than by the cursor."""
        if self.under_way:
            self.active_ns = monotonic_ns()

    def handed_out_stream(self) -> None:
        """The results are to be read from a stream of the driver's, which does not tell."""
        self.handed_out()

    @never_raises(_count_error)
    def fetched_many(self, cursor: Any, rows: list[Any], args: tuple[Any, ...], kwargs: Any) -> None:
        """`fetchmany` has returned: fewer rows than it was asked for are the last."""
        size = args[0] if args else kwargs.get("size")
        if size is None:
            size = getattr(cursor, "arraysize", 1)
        self.fetched(len(rows) < size, rows)

    @never_raises(_count_error)
    def fail(self, error: BaseException) -> None:
        """The statement, or a fetch from it, has failed; without a statement, nothing has."""
        if self.under_way:
            self._end(None, error, 0)

    def end(self) -> None:
        """The cursor was closed or dropped, or goes on to another statement: the results are not read to the end."""
        if self.under_way:
            self._end(None, None, self.active_ns)  # so that it does not last while it lies idle

    # A reader knows the statement that it belongs to: the cursor may be at another one by now.

    @never_raises(_count_error)
    def read(self, statement: list[int], over: bool, batch: object = None) -> None:
        """A reader that was handed out has read a batch, or its end."""
        if self.under_way is statement:
            self.fetched(over, batch)

    @never_raises(_count_error)
    def read_failed(self, statement: list[int], error: BaseException) -> None:
        """Reading has failed."""
        if self.under_way is statement:
            self.fail(error)

    @never_raises(_count_error)
    def dropped(self, statement: list[int]) -> None:
        """The reader is gone."""
        if self.under_way is statement:
            self.end()

    def begin_cancel(self, operation: Operation, cursor: Any) -> Call | None:
        """A cancellation is an event of its own, under the id of the statement that it is to cancel."""
        call = self.connection.begin(operation, cursor)
        if call is not None and call.event is not None:
            for number in self.under_way:
                call.event.statement_id = id_of(number)
                call.event.statement_type = self._kind.statement_type
        return call

    @never_raises_of_four(not_ended)
    def _end(self, consumed_ns: int | None, error: BaseException | None, ended_ns: int) -> int | None:
        """End the statement and emit its event.

        Returns:
            The statement's number; None where another call has ended it.
        """
        # Contained, where the rest is not: near the limit of recursion, this is a step deeper than the driver goes.
        try:
            number = self.under_way.pop()
        except IndexError:  # another thread was faster
            return None
        connection = self.connection
        session = connection.session
        if session is None:
            return number
        has_rows = self.awaits_rows or self._first_batch_ns is not None
        record = StatementRecord(
            session,
            number,
            self._kind.statement_type,
            self._operation.operation_type,
            connection.result_format if has_rows else session.default_result_format,
            session.default_compression_enabled,
            None if error is None else type(error).__name__,
            self._start_ns,
            self._execute_complete_ns,
            self._first_batch_ns,
            consumed_ns,
            ended_ns or consumed_ns or monotonic_ns(),
            time_ns(),
        )
        # As `hand_over` does, and it is not called where the client takes statements: this is done for each.
        receive = session._receive
        if receive is not None and receive == session.client.enqueue:  # type: ignore[union-attr]
            receive(record)
        elif not hand_over(session, record):
            connection.errors += 1
        return number

    @never_raises(_perhaps)
    def _has_rows(self, cursor: Any) -> bool:
        """Whether an executed statement has rows to read, as RETURNING and CALL may.

        ADBC gives every statement a stream; one without columns has none. Reading its schema costs some two
        microseconds and consumes nothing; a SELECT is spared even that.
        """
        columns = cursor.description
        if not columns:
            return False
        if self._kind.statement_type is StatementType.QUERY:
            return True
        return not str(columns[0][0]).lower().startswith(_STATUS_COLUMNS)
