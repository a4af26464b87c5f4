"""Any other connection of PEP 249: `sqlite3`, `duckdb`, `psycopg` and their like, through proxies.

Nothing is assumed beyond PEP 249. What some drivers have besides is followed where it is there: iteration,
context managers, `executescript`, and the statements' methods on the connection itself, which either returns a
new cursor (`sqlite3`, `psycopg`) or is its own cursor (`duckdb`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.instrumentation.callers import in_the_callers_place
from adbc_telemetry.instrumentation.operations import (
    PLAIN_CONNECTION_OPERATIONS,
    PLAIN_CURSOR_OPERATIONS,
    Operation,
)
from adbc_telemetry.instrumentation.proxies import Method, own, proxy_class, stand_for
from adbc_telemetry.instrumentation.session_recorder import SessionRecorder
from adbc_telemetry.instrumentation.statement_recorder import StatementRecorder
from adbc_telemetry.instrumentation.tracebacks import leave_no_frames


def _not_told(error: Exception, *_: object) -> Any:
    return None


def is_plain_connection(connection: object) -> bool:
    """Whether this looks like a connection of PEP 249, and not like one of asyncio's."""
    methods = [getattr(type(connection), name, None) for name in ("cursor", "commit", "close")]
    return all(callable(method) and not inspect.iscoroutinefunction(method) for method in methods)


def is_closed(connection: object) -> bool:
    """Whether the connection says that it has been closed; PEP 249 knows no way to say so."""
    closed = _closed(connection)
    return isinstance(closed, int) and closed != 0


@never_raises(_not_told)
def _closed(connection: object) -> object:
    return getattr(connection, "closed", None)


def follow(connection: Any, start: Callable[[], SessionRecorder]) -> Any:
    """The instrumented connection that stands for `connection`; `start` makes its recorder."""
    cls: Any = type(connection)
    kind = connection_class(cls)
    return stand_for(connection, kind, _cursor_recorder(start()))


@functools.lru_cache(maxsize=256)  # of which there are more where classes are made at run time
def connection_class(cls: Any) -> Any:
    """The class of the proxies of connections of `cls`."""
    return _class_of_proxies(
        cls,
        {
            "cursor": _cursor,
            "close": _close_connection,
            "__exit__": _leave_connection,
            "__del__": _drop_connection,
            **{name: _recorded(name, operation) for name, operation in PLAIN_CONNECTION_OPERATIONS.items()},
            **{name: _executes_for(name, operation) for name, operation in PLAIN_CURSOR_OPERATIONS.items()},
        },
    )


@functools.lru_cache(maxsize=256)
def cursor_class(cls: Any) -> Any:
    """The class of the proxies of cursors of `cls`."""
    return _class_of_proxies(
        cls,
        {
            "close": _close_cursor,
            "__exit__": _leave_cursor,
            "__del__": _drop_cursor,
            **{name: _executes(name, operation) for name, operation in PLAIN_CURSOR_OPERATIONS.items()},
        },
    )


def _class_of_proxies(cls: Any, methods: Mapping[str, Method]) -> Any:
    # A connection that is its own cursor fetches as well.
    fetches = {
        "fetchone": _fetchone,
        "fetchmany": _fetchmany,
        "fetchall": _fetchall,
        "__next__": _next,
        "__iter__": _iter,
    }
    return proxy_class(
        cls,
        {
            name: method
            for name, method in {**fetches, **methods}.items()
            if name == "__del__" or hasattr(cls, name)
        },
    )


# Each proxy carries a recorder of its own statements, also that of a connection. The methods below have the one shape:
# begin; the real call; fail and re-raise, or finish.


def _cursor(self: Any, /, *args: Any, **kwargs: Any) -> Any:
    try:
        made = eval(*in_the_callers_place(partial(self.__wrapped__.cursor, *args, **kwargs)))
    except BaseException as error:
        leave_no_frames(error)
        raise
    return _follow_cursor(self, made, _cursor_recorder(self._adbc_telemetry.connection))


def _cursor_recorder(session: SessionRecorder) -> StatementRecorder:
    recorder = StatementRecorder(session)
    session.end_with_connection(recorder)
    return recorder


def _follow_cursor(connection: Any, cursor: Any, recorder: StatementRecorder) -> Any:
    followed = _cursor_proxy(connection, cursor, recorder)
    if followed is None:
        recorder.end()
        return cursor
    return followed


@never_raises(_not_told)
def _cursor_proxy(connection: Any, cursor: Any, recorder: StatementRecorder) -> Any:
    """The cursor's proxy; None for what is no cursor, as some short cuts may return."""
    cls: Any = type(cursor)
    if not hasattr(cls, "fetchone"):
        return None
    return stand_for(cursor, cursor_class(cls), recorder, connection)


def _recorded(name: str, operation: Operation) -> Method:
    """A method of the connection that is an operation from its call to its return."""

    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        session: SessionRecorder = self._adbc_telemetry.connection
        statement = session.begin(operation, kwargs)
        try:
            result = eval(*in_the_callers_place(partial(getattr(self.__wrapped__, name), *args, **kwargs)))
        except BaseException as error:
            session.fail(statement, error)
            leave_no_frames(error)
            raise
        session.finish(statement)
        return own(self, result)

    return method


def _executes(name: str, operation: Operation) -> Method:
    """A method of a cursor that starts a statement."""

    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        recorder: StatementRecorder = self._adbc_telemetry
        cursor = self.__wrapped__
        recorder.begin(operation, _sql(args, kwargs))
        try:
            result = eval(*in_the_callers_place(partial(getattr(cursor, name), *args, **kwargs)))
        except BaseException as error:
            recorder.fail(error)
            leave_no_frames(error)
            raise
        recorder.executed(cursor)
        return own(self, result)

    return method


def _executes_for(name: str, operation: Operation) -> Method:
    """A method of a connection that starts a statement on a cursor: a new one, or the connection itself."""

    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        connection = self.__wrapped__
        recorder: StatementRecorder = _cursor_recorder(self._adbc_telemetry.connection)
        recorder.begin(operation, _sql(args, kwargs))
        try:
            result = eval(*in_the_callers_place(partial(getattr(connection, name), *args, **kwargs)))
        except BaseException as error:
            recorder.fail(error)
            leave_no_frames(error)
            raise
        recorder.executed(result)
        if result is not connection:
            return _follow_cursor(self, result, recorder)
        self._adbc_telemetry.end()
        object.__setattr__(self, "_adbc_telemetry", recorder)
        return self

    return method


@never_raises(_not_told)
def _sql(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
    """The statement's text: the first argument, by whichever name."""
    sql = args[0] if args else next(iter(kwargs.values()), None)
    return sql[:200].decode("ascii", "replace") if isinstance(sql, bytes) else sql


def _fetchone(self: Any, /, *args: Any, **kwargs: Any) -> Any:
    recorder: StatementRecorder = self._adbc_telemetry
    try:
        row = eval(*in_the_callers_place(partial(self.__wrapped__.fetchone, *args, **kwargs)))
    except BaseException as error:
        recorder.fail(error)
        leave_no_frames(error)
        raise
    recorder.fetched(row is None)
    return row


def _fetchmany(self: Any, /, *args: Any, **kwargs: Any) -> Any:
    recorder: StatementRecorder = self._adbc_telemetry
    try:
        rows = eval(*in_the_callers_place(partial(self.__wrapped__.fetchmany, *args, **kwargs)))
    except BaseException as error:
        recorder.fail(error)
        leave_no_frames(error)
        raise
    recorder.fetched_many(self.__wrapped__, rows, args, kwargs)
    return rows


def _fetchall(self: Any, /, *args: Any, **kwargs: Any) -> Any:
    recorder: StatementRecorder = self._adbc_telemetry
    try:
        rows = eval(*in_the_callers_place(partial(self.__wrapped__.fetchall, *args, **kwargs)))
    except BaseException as error:
        recorder.fail(error)
        leave_no_frames(error)
        raise
    recorder.fetched(True)
    return rows


def _next(self: Any) -> Any:
    recorder: StatementRecorder = self._adbc_telemetry
    try:
        row = eval(*in_the_callers_place(self.__wrapped__.__next__))
    except StopIteration as end:
        recorder.fetched(True)
        leave_no_frames(end)
        raise
    except BaseException as error:
        recorder.fail(error)
        leave_no_frames(error)
        raise
    recorder.fetched(False)
    return row


def _iter(self: Any) -> Any:
    try:
        rows = eval(*in_the_callers_place(self.__wrapped__.__iter__))
    except BaseException as error:
        leave_no_frames(error)
        raise
    return self if rows is self.__wrapped__ else _each(rows, self._adbc_telemetry)


def _each(rows: Iterator[Any], recorder: StatementRecorder) -> Iterator[Any]:
    while True:
        try:
            row = eval(*in_the_callers_place(partial(next, rows)))
        except StopIteration:
            break
        except BaseException as error:
            recorder.fail(error)
            leave_no_frames(error)
            raise
        recorder.fetched(False)
        yield row
    recorder.fetched(True)


def _close_cursor(self: Any, /, *args: Any, **kwargs: Any) -> Any:
    recorder: StatementRecorder = self._adbc_telemetry
    try:
        result = eval(*in_the_callers_place(partial(self.__wrapped__.close, *args, **kwargs)))
    except BaseException as error:
        recorder.fail(error)
        leave_no_frames(error)
        raise
    recorder.end()
    return own(self, result)


def _leave_cursor(self: Any, /, *args: Any) -> Any:
    try:
        result = eval(*in_the_callers_place(partial(self.__wrapped__.__exit__, *args)))
    except BaseException as error:
        self._adbc_telemetry.fail(error)
        leave_no_frames(error)
        raise
    self._adbc_telemetry.end()
    return result


def _drop_cursor(self: Any) -> None:
    self._adbc_telemetry.end()


def _close_connection(self: Any, /, *args: Any, **kwargs: Any) -> Any:
    session: SessionRecorder = self._adbc_telemetry.connection
    session.begin_close()
    try:
        result = eval(*in_the_callers_place(partial(self.__wrapped__.close, *args, **kwargs)))
    except BaseException as error:
        session.fail_close(error)
        leave_no_frames(error)
        raise
    session.end()
    return own(self, result)


def _leave_connection(self: Any, /, *args: Any) -> Any:
    # Some close the connection here, others end a transaction and stay open.
    try:
        return eval(*in_the_callers_place(partial(self.__wrapped__.__exit__, *args)))
    except BaseException as error:
        leave_no_frames(error)
        raise
    finally:
        if is_closed(self.__wrapped__):
            self._adbc_telemetry.connection.end()


def _drop_connection(self: Any) -> None:
    session: SessionRecorder = self._adbc_telemetry.connection
    session.collected = True
    session.end()
