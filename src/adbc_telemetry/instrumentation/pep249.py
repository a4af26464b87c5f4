"""Any other connection of PEP 249: `sqlite3`, `duckdb`, `psycopg` and their like, through proxies.

Nothing is assumed beyond PEP 249. What some drivers have besides is watched where it is there: iteration, context
managers, `executescript`, and the statements' methods on the connection itself, which either returns a new cursor
(`sqlite3`, `psycopg`) or is its own cursor (`duckdb`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.instrumentation.callers import in_the_callers_place
from adbc_telemetry.instrumentation.observed import new_statement_recorder
from adbc_telemetry.instrumentation.operations import (
    PEP249_CONNECTION_OPERATIONS,
    PEP249_CURSOR_OPERATIONS,
)
from adbc_telemetry.instrumentation.proxies import is_proxy, proxy_class, stand_for
from adbc_telemetry.instrumentation.session_recorder import SessionRecorder
from adbc_telemetry.instrumentation.statement_recorder import StatementRecorder
from adbc_telemetry.instrumentation.tracebacks import leave_no_frames
from adbc_telemetry.instrumentation.watched import (
    CONNECTION_CLOSE,
    CURSOR_CLOSE,
    FETCH_ALL,
    FETCH_MANY,
    Args,
    ConnectionOperation,
    Execution,
    Kwargs,
    Method,
    Watch,
    watched,
)


def _not_told(error: Exception, *_: object) -> Any:
    return None


def is_pep249_connection(connection: object) -> bool:
    """Whether this looks like a connection of PEP 249, and not like one of asyncio's."""
    methods = [getattr(type(connection), name, None) for name in ("cursor", "commit", "close")]
    return all(callable(method) and not inspect.iscoroutinefunction(method) for method in methods)


def is_closed(connection: object) -> bool:
    """Whether the connection says that it is closed; PEP 249 has no way to say so."""
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


def recorder_of(connection: Any) -> SessionRecorder | None:
    """The recorder of an instrumented connection; None of any other."""
    recorder: SessionRecorder | None = connection._adbc_telemetry.connection if is_proxy(connection) else None
    return recorder


def renew_recorder(connection: Any) -> None:
    """Follow the statements of the connection itself, where it is its own cursor, as its recorder now wants it."""
    before: StatementRecorder = connection._adbc_telemetry
    object.__setattr__(connection, "_adbc_telemetry", _cursor_recorder(before.connection))
    before.end()


# Bounded, for programs that make classes at run time.
_CLASSES_AT_MOST: Final = 256


@functools.lru_cache(maxsize=_CLASSES_AT_MOST)
def connection_class(cls: Any) -> Any:
    """The class of the proxies of connections of `cls`."""
    return _proxy_class(
        cls,
        {
            "cursor": _NewCursor(),
            "close": CONNECTION_CLOSE,
            "__exit__": _ConnectionExit(),
            **{
                name: ConnectionOperation(operation)
                for name, operation in PEP249_CONNECTION_OPERATIONS.items()
            },
            **{
                name: _ConnectionExecution(operation, _sql)
                for name, operation in PEP249_CURSOR_OPERATIONS.items()
            },
        },
        _drop_connection,
    )


@functools.lru_cache(maxsize=_CLASSES_AT_MOST)
def cursor_class(cls: Any) -> Any:
    """The class of the proxies of cursors of `cls`."""
    return _proxy_class(
        cls,
        {
            "close": CURSOR_CLOSE,
            "__exit__": CURSOR_CLOSE,
            **{name: Execution(operation, _sql) for name, operation in PEP249_CURSOR_OPERATIONS.items()},
        },
        _drop_cursor,
    )


def _proxy_class(cls: Any, watches: Mapping[str, Watch], drop: Method) -> Any:
    # A connection that is its own cursor fetches as well.
    watches = {"fetchmany": FETCH_MANY, "fetchall": FETCH_ALL, "__iter__": _Iter(), **watches}
    methods = {
        "fetchone": _fetchone,
        "__next__": _next,
        **{name: watched(name, watch) for name, watch in watches.items()},
    }
    present = {name: method for name, method in methods.items() if hasattr(cls, name)}
    return proxy_class(cls, {**present, "__del__": drop})


# Each proxy carries a recorder of its own statements, also that of a connection.


def _cursor_recorder(session: SessionRecorder) -> StatementRecorder:
    recorder = new_statement_recorder(session)
    session.end_with_connection(recorder)
    return recorder


class _NewCursor(Watch):
    """`cursor` of a connection."""

    __slots__ = ()

    def finish(self, told: Any, thing: Any, result: Any, args: Args, kwargs: Kwargs) -> Any:
        return _follow_cursor(thing, result, _cursor_recorder(told.connection))


def _follow_cursor(connection: Any, cursor: Any, recorder: StatementRecorder) -> Any:
    followed = _cursor_proxy(connection, cursor, recorder)
    if followed is None:
        recorder.end()
        return cursor
    return followed


@never_raises(_not_told)
def _cursor_proxy(connection: Any, cursor: Any, recorder: StatementRecorder) -> Any:
    """The cursor's proxy; None for something else than a cursor, which a connection's short cut may return."""
    cls: Any = type(cursor)
    if not hasattr(cls, "fetchone"):
        return None
    return stand_for(cursor, cursor_class(cls), recorder, connection)


class _ConnectionExecution(Execution):
    """A method of a connection that starts a statement on a cursor: a new one, or the connection itself."""

    __slots__ = ()

    def begin(self, thing: Any, args: Args, kwargs: Kwargs) -> Any:
        recorder = _cursor_recorder(thing._adbc_telemetry.connection)
        recorder.begin(self._operation, self._sql_of(args, kwargs), thing, args, kwargs)
        return recorder

    def finish(self, told: Any, thing: Any, result: Any, args: Args, kwargs: Kwargs) -> Any:
        told.executed(result)
        if result is not thing.__wrapped__:
            return _follow_cursor(thing, result, told)
        thing._adbc_telemetry.end()
        object.__setattr__(thing, "_adbc_telemetry", told)
        return thing


@never_raises(_not_told)
def _sql(args: Args, kwargs: Kwargs) -> object:
    """The statement's text: the first argument, which may have any name."""
    sql = args[0] if args else next(iter(kwargs.values()), None)
    return sql[:200].decode("ascii", "replace") if isinstance(sql, bytes) else sql


# A program may fetch each row by itself, so these two are spelt out: to pack and unpack their arguments would cost more
# than to record.


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


class _Iter(Watch):
    """`__iter__` of a cursor, which may return the cursor itself or an iterator of its own."""

    __slots__ = ()

    def finish(self, told: Any, thing: Any, result: Any, args: Args, kwargs: Kwargs) -> Any:
        return thing if result is thing.__wrapped__ else _each(result, told)


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


class _ConnectionExit(Watch):
    """`__exit__` of a connection. Some drivers close it there, others end a transaction and leave it open."""

    __slots__ = ()

    def begin(self, thing: Any, args: Args, kwargs: Kwargs) -> Any:
        return thing

    def fail(self, told: Any, error: BaseException) -> None:
        _end_if_closed(told)

    def finish(self, told: Any, thing: Any, result: Any, args: Args, kwargs: Kwargs) -> Any:
        _end_if_closed(thing)
        return result


def _end_if_closed(proxy: Any) -> None:
    if is_closed(proxy.__wrapped__):
        proxy._adbc_telemetry.connection.end()


def _drop_cursor(self: Any) -> None:
    self._adbc_telemetry.end()


def _drop_connection(self: Any) -> None:
    session: SessionRecorder = self._adbc_telemetry.connection
    session.collected = True
    session.end()
