"""What a cursor of an observed connection carries: the statement under way, which an observer is told about as well.

It is a class of its own, so that a connection without an observer pays nothing: neither a question nor a count of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic_ns
from typing import Any

from adbc_telemetry.core.guard import never_raises, never_raises_of_four
from adbc_telemetry.core.ids import id_of
from adbc_telemetry.instrumentation.observers import OperationObserver, Outcome
from adbc_telemetry.instrumentation.operations import Operation
from adbc_telemetry.instrumentation.session_recorder import SessionRecorder
from adbc_telemetry.instrumentation.statement_recorder import (
    NO_ARGUMENTS,
    NOTHING,
    StatementRecorder,
    not_ended,
)


def new_statement_recorder(session: SessionRecorder) -> StatementRecorder:
    """A recorder for a cursor of the session's connection."""
    if session.observer is None:
        recorder = StatementRecorder()
    else:
        recorder = observed = ObservedStatements()
        observed._observed = None
    recorder.connection = session  # here and not in an `__init__`; see there
    recorder.under_way = NOTHING
    return recorder


def _not_known(error: Exception, recorder: ObservedStatements, *_: object) -> int | None:
    return None


class ObservedStatements(StatementRecorder):
    """Follows a cursor as its base class does, and tells the connection's observer.

    Here `awaits_rows` stays true while there are rows to come, so that each row is told and counted.
    """

    __slots__ = ("_is_streamed", "_observed", "_rows")

    _observed: OperationObserver | None
    _rows: int | None

    def begin(
        self,
        operation: Operation,
        sql: object,
        cursor: Any = None,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = NO_ARGUMENTS,
    ) -> None:
        if self.under_way:
            self.end()
        connection = self.connection
        observer = connection.observer
        self._observed = observed = None
        try:
            if observer is not None:
                observed = observer.begin(operation, sql, cursor, args, kwargs)
            # Before the base class begins the statement, since it may be ended from then on.
            self._observed = observed
            if observed is None and connection.session is None and not operation.commits_first:
                return  # nothing is to be told of it
            self._rows = 0
            self._is_streamed = False
            super().begin(operation, sql)
        except BaseException:  # of a signal handler: the driver is not called, so that no call will return
            if observed is not None:
                observed.returned()
            raise

    # The call is over even if another thread has ended the statement: only this one can take back its context.

    def executed(self, cursor: Any) -> None:
        if self._observed is not None:
            self._observed.returned()
        if self.under_way:
            super().executed(cursor)

    def fail(self, error: BaseException) -> None:
        if self._observed is not None:
            self._observed.returned()
        if self.under_way:
            super().fail(error)

    def handed_out_stream(self) -> None:
        super().handed_out_stream()
        self._is_streamed = True

    def fetched(self, over: bool, fetched: object = None) -> None:
        if not self.under_way:
            return
        now = monotonic_ns()
        if self._first_batch_ns is None and self.awaits_rows:
            self._first_batch_ns = now
        rows = self._rows
        if rows is not None:
            if type(fetched) is list:
                self._rows = rows + len(fetched)
            elif fetched is not None:
                self._rows = self._count(rows, fetched)
            elif not over:
                self._rows = rows + 1
        if over:
            self._end(now, None, 0)
        else:
            self.active_ns = now

    @never_raises(_not_known)
    def _count(self, rows: int, fetched: Any) -> int | None:
        """The rows read so far, with those of a list, a table, a batch or a data frame."""
        more = getattr(fetched, "num_rows", None)
        return rows + (len(fetched) if more is None else more)

    @never_raises_of_four(not_ended)
    def _end(self, consumed_ns: int | None, error: BaseException | None, ended_ns: int) -> int | None:
        ended_ns = ended_ns or consumed_ns or monotonic_ns()
        has_event = self.connection.session is not None
        # First the event: it is not to depend on the observer.
        number = super()._end(consumed_ns, error, ended_ns)
        observed = self._observed
        if number is not None and observed is not None:
            first_ns = self._first_batch_ns
            were_read = self.awaits_rows and (first_ns is not None or consumed_ns is not None)
            if self._is_streamed:  # when it was read is not known, but it was while the cursor was open
                ended_ns = monotonic_ns()
            statement_id = id_of(number) if has_event else None
            rows = self._rows if were_read else None
            observed.ended(Outcome(statement_id, error, first_ns, consumed_ns, ended_ns, rows))
        return number
