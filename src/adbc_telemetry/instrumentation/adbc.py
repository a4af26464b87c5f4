"""ADBC DBAPI connections (`adbc_driver_manager.dbapi`), whichever the driver.

No proxies: an instrumented connection is the same object, of a subclass of its class that is made once, bears
the same names and differs in nothing but the methods below. So `isinstance` holds, and what pandas and polars
read from the class's module; attributes, context managers and the warnings of `__del__` are those of the
driver manager.
"""

from __future__ import annotations

import copyreg
import functools
import inspect
import sys
from collections.abc import Callable
from time import monotonic_ns
from typing import Any, Final

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.instrumentation.cursor_clone import CursorClone
from adbc_telemetry.instrumentation.null_recorder import NULL_RECORDER
from adbc_telemetry.instrumentation.observed import new_statement_recorder
from adbc_telemetry.instrumentation.operations import (
    CONNECTION_OPERATIONS,
    CURSOR_CANCEL,
    CURSOR_FETCHES,
    CURSOR_OPERATIONS,
    Fetch,
)
from adbc_telemetry.instrumentation.readers import follow_reader
from adbc_telemetry.instrumentation.session_recorder import SessionRecorder
from adbc_telemetry.instrumentation.statement_recorder import StatementRecorder
from adbc_telemetry.instrumentation.tracebacks import leave_no_frame
from adbc_telemetry.instrumentation.watched import (
    CONNECTION_CLOSE,
    CURSOR_CLOSE,
    FETCH_ALL,
    FETCH_MANY,
    FETCH_ONE,
    Args,
    ConnectionOperation,
    CursorCall,
    Execution,
    Kwargs,
    Method,
    Watch,
    watched,
)

DBAPI_MODULE: Final = "adbc_driver_manager.dbapi"

STATE: Final = "_adbc_telemetry"
"""The one attribute that an instrumented connection or cursor has and others have not."""

Methods = dict[str, Method]


def is_adbc_connection(connection: object) -> bool:
    """Whether this is a connection of the ADBC driver manager; imports nothing to find out."""
    dbapi = sys.modules.get(DBAPI_MODULE)
    return dbapi is not None and isinstance(connection, dbapi.Connection)


def itself(connection: Any) -> Any:
    """The connection behind the proxies of other packages, such as wrapt's, which pass for it."""
    while not issubclass(type(connection), sys.modules[DBAPI_MODULE].Connection):
        connection = connection.__wrapped__
    return connection


def recorder_of(connection: Any) -> SessionRecorder | None:
    """The recorder of an instrumented connection; None of any other."""
    recorder: SessionRecorder | None = vars(connection).get(STATE)
    return recorder


def is_closed(connection: Any) -> bool:
    """Whether the connection has been closed, so that nothing is left to record."""
    return bool(connection._closed)


def follow(connection: Any, start: Callable[[], SessionRecorder]) -> None:
    """Turn the connection into an instrumented one; `start` makes its recorder, once its class is there."""
    cls: Any = type(connection)
    kind = connection_class(cls)
    recorder = start()
    try:
        object.__setattr__(connection, STATE, recorder)  # whatever attributes its class lets be set
        connection.__class__ = kind
    except BaseException:
        vars(connection).pop(STATE, None)
        recorder.end()
        raise


def leave(connection: Any) -> None:
    """Undo `follow`. Cursors that exist keep their recorders, which have no listener any more."""
    cls: Any = type(connection)
    if cls is connection_class(cls.__mro__[1]):
        connection.__class__ = cls.__mro__[1]
        vars(connection).pop(STATE, None)


# Bounded, for programs that make classes at run time.
_CLASSES_AT_MOST: Final = 256


@functools.lru_cache(maxsize=_CLASSES_AT_MOST)
def connection_class(cls: Any) -> Any:
    """The subclass that instrumented connections of `cls` belong to."""
    methods = {
        name: _watched(cls, name, ConnectionOperation(operation))
        for name, operation in CONNECTION_OPERATIONS.items()
        if hasattr(cls, name)
    }
    return _subclass(cls, {**methods, **_connection_methods(cls)})


@functools.lru_cache(maxsize=_CLASSES_AT_MOST)
def cursor_class(cls: Any) -> Any:
    """The subclass that cursors of instrumented connections belong to."""
    return _subclass(cls, _cursor_methods(cls))


def _subclass(cls: Any, methods: Methods) -> Any:
    """A subclass that passes for `cls` in all but identity: names, documentation and signatures are the same.

    A class that was made here is its own subclass: the program may make objects of it.
    """
    if hasattr(cls, STATE):
        return cls
    namespace: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        STATE: NULL_RECORDER,
    }
    for name, method in {**methods, "__reduce_ex__": _reduces_as(cls)}.items():
        namespace[name] = functools.update_wrapper(method, getattr(cls, name))
    return type(cls)(cls.__name__, (cls,), namespace)


def _reduces_as(cls: Any) -> Callable[..., Any]:
    """Pickles like an object that is not instrumented."""

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        reduced = cls.__reduce_ex__(self, protocol)
        if not isinstance(reduced, tuple) or len(reduced) < 3 or not isinstance(reduced[2], dict):
            return reduced
        state = {name: value for name, value in reduced[2].items() if name != STATE}
        # Not the `__newobj__` of an object's own, which insists on the class that the object has.
        return (copyreg._reconstructor, (cls, object, None), state, *reduced[3:])  # type: ignore[attr-defined]

    return __reduce_ex__


# The methods below look up the driver manager's own on the class at each call, as `super()` would, so that a patch of
# that class is not bypassed. An error leaves with the traceback that it would have without us.
#
# Five methods are spelt out: `cursor`, `execute`, `fetchone`, `fetchall` and `close` of a cursor. Every statement calls
# them, and to pack and unpack their arguments would cost more than to record. Each begins, makes the real call, and
# fails and raises again, or finishes. `watched` makes all others, and these five where the driver manager's takes other
# arguments than ours.

NOT_GIVEN: Final[Any] = object()


def _connection_methods(cls: Any) -> Methods:
    clone = _cursor_clone(cls)

    def cursor(self: Any, *, adbc_stmt_kwargs: Any = NOT_GIVEN) -> Any:
        make = clone.instead_of(cls.cursor)  # type: ignore[union-attr]
        try:
            made = (
                make(self) if adbc_stmt_kwargs is NOT_GIVEN else make(self, adbc_stmt_kwargs=adbc_stmt_kwargs)
            )
        except BaseException as error:
            leave_no_frame(error)
            raise
        recorder = self._adbc_telemetry
        if type(made) is clone.made and recorder is not NULL_RECORDER:  # type: ignore[union-attr]
            made._adbc_telemetry = new_statement_recorder(recorder)
        else:
            _follow_cursor(made, recorder)
        return made

    def __del__(self: Any) -> None:
        recorder: SessionRecorder = self._adbc_telemetry
        recorder.collected = True
        try:
            cls.__del__(self)
        finally:
            recorder.end()

    spelt_out = clone is not None and _called_alike(cursor, cls.cursor)
    return {
        "cursor": cursor if spelt_out else _watched(cls, "cursor", _NewCursor()),
        "adbc_clone": _watched(cls, "adbc_clone", _Clone()),
        # It warns, in its caller's name, of cursors that do not close.
        "close": watched("close", CONNECTION_CLOSE, original_class=cls, in_callers_place=True),
        "__del__": __del__,
    }


def _watched(cls: Any, name: str, watch: Watch) -> Method:
    return watched(name, watch, original_class=cls, in_callers_place=False)


class _NewCursor(Watch):
    """A method that makes a cursor."""

    __slots__ = ()

    def finish(self, told: Any, thing: Any, result: Any, args: Args, kwargs: Kwargs) -> Any:
        _follow_cursor(result, told)
        return result


class _Clone(Watch):
    """`adbc_clone`, which makes another connection."""

    __slots__ = ()

    def finish(self, told: Any, thing: Any, result: Any, args: Args, kwargs: Kwargs) -> Any:
        told.instrument_like_this(result)
        return result


def _no_clone(error: Exception, cls: Any) -> CursorClone | None:
    return None


@never_raises(_no_clone)
def _cursor_clone(cls: Any) -> CursorClone | None:
    """The driver manager's `cursor`, made to make instrumented cursors; None of a `cursor` that is not its own."""
    original, own = cls.cursor, sys.modules[DBAPI_MODULE]
    return CursorClone(original, _class_of_its_cursors) if original.__globals__ is vars(own) else None


def _class_of_its_cursors(cls: Any) -> Any:
    if cls.__module__ != DBAPI_MODULE or not hasattr(cls, "fetchone") or cls.__new__ is not object.__new__:
        raise ValueError("not the driver manager's class of cursors")
    return cursor_class(cls)


def _leave_alone(error: Exception, cursor: Any, recorder: SessionRecorder) -> None:
    recorder.errors += 1


@never_raises(_leave_alone)
def _follow_cursor(cursor: Any, recorder: SessionRecorder) -> None:
    if (
        recorder is NULL_RECORDER or vars(cursor).get(STATE) is not None
    ):  # drivers may return the same one again
        return
    cls: Any = type(cursor)
    kind = cursor_class(cls)
    object.__setattr__(cursor, STATE, new_statement_recorder(recorder))
    cursor.__class__ = kind


def _called_alike(method: Method, original: Method) -> bool:
    """Whether our method, which spells out its arguments, is called as the driver manager's is."""
    if any(
        hasattr(original, name) for name in ("__wrapped__", "__signature__")
    ):  # its signature may not hold
        return False
    try:
        mine, its = inspect.signature(method), inspect.signature(original)
    except (TypeError, ValueError):  # some methods in C have no signature
        return False
    return [(each.name, each.kind, each.default is each.empty) for each in mine.parameters.values()] == [
        (each.name, each.kind, each.default is each.empty) for each in its.parameters.values()
    ]


def _cursor_methods(cls: Any) -> Methods:
    def execute(self: Any, operation: Any, parameters: Any = NOT_GIVEN) -> Any:
        recorder: StatementRecorder = self._adbc_telemetry
        recorder.begin(_EXECUTE, operation, self)
        try:
            if parameters is NOT_GIVEN:
                result = cls.execute(self, operation)
            else:
                result = cls.execute(self, operation, parameters)
        except BaseException as error:
            recorder.fail(error)
            leave_no_frame(error)
            raise
        recorder.executed(self)
        return result

    # Called for each row, also by iteration: between the first row and the last it takes the time and nothing else.

    def fetchone(self: Any) -> Any:
        recorder: StatementRecorder = self._adbc_telemetry
        try:
            row = cls.fetchone(self)
        except BaseException as error:
            recorder.fail(error)
            leave_no_frame(error)
            raise
        if recorder.under_way:
            if row is None or recorder.awaits_rows:
                recorder.fetched(row is None)
            else:
                recorder.active_ns = monotonic_ns()
        return row

    def fetchall(self: Any) -> Any:
        recorder: StatementRecorder = self._adbc_telemetry
        try:
            rows = cls.fetchall(self)
        except BaseException as error:
            recorder.fail(error)
            leave_no_frame(error)
            raise
        recorder.fetched(True, rows)
        return rows

    # `__del__` calls it, too.

    def close(self: Any) -> Any:
        recorder: StatementRecorder = self._adbc_telemetry
        try:
            result = cls.close(self)
        except BaseException as error:
            recorder.fail(error)
            leave_no_frame(error)
            raise
        if recorder.under_way:
            recorder.end()
        return result

    watches: dict[str, Watch] = {
        **{name: Execution(operation, _sql) for name, operation in CURSOR_OPERATIONS.items()},
        **{name: _FETCHES[end] for name, end in CURSOR_FETCHES.items() if name not in _CALL_FETCHONE},
        "adbc_cancel": _Cancel(),
        "close": CURSOR_CLOSE,
    }
    methods: Methods = {
        name: _watched(cls, name, watch) for name, watch in watches.items() if hasattr(cls, name)
    }
    for ours in (execute, fetchone, fetchall, close):
        if _called_alike(ours, getattr(cls, ours.__name__)):
            methods[ours.__name__] = ours
    return methods


_EXECUTE: Final = CURSOR_OPERATIONS["execute"]


def _sql(args: Args, kwargs: Kwargs) -> object:
    return args[0] if args else kwargs.get("operation")


class _Stream(CursorCall):
    """A method that hands out a stream, which is left alone."""

    __slots__ = ()

    def finish(self, told: Any, thing: Any, result: Any, args: Args, kwargs: Kwargs) -> Any:
        told.handed_out_stream()
        return result


class _Reader(CursorCall):
    """A method that hands out a reader, which is watched as well."""

    __slots__ = ()

    def finish(self, told: Any, thing: Any, result: Any, args: Args, kwargs: Kwargs) -> Any:
        told.handed_out()
        return follow_reader(told, result)


_FETCHES: Final[dict[Fetch, Watch]] = {
    Fetch.ONE: FETCH_ONE,
    Fetch.MANY: FETCH_MANY,
    Fetch.ALL: FETCH_ALL,
    Fetch.READER: _Reader(),
    Fetch.STREAM: _Stream(),
}
# The driver manager's own call `fetchone` of the cursor, which is watched.
_CALL_FETCHONE: Final = ("next", "__next__")


class _Cancel(Watch):
    """`adbc_cancel` of a cursor: an operation of its own, which leaves the statement under way alone."""

    __slots__ = ()

    def begin(self, thing: Any, args: Args, kwargs: Kwargs) -> Any:
        recorder = thing._adbc_telemetry
        return recorder.connection, recorder.begin_cancel(CURSOR_CANCEL, thing)

    def fail(self, told: Any, error: BaseException) -> None:
        session, call = told
        session.fail(call, error)

    def finish(self, told: Any, thing: Any, result: Any, args: Args, kwargs: Kwargs) -> Any:
        session, call = told
        session.finish(call)
        return result
