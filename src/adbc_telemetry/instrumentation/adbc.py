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
from functools import partial
from time import monotonic_ns
from typing import Any, Final

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.instrumentation.callers import in_the_callers_place
from adbc_telemetry.instrumentation.cursor_clone import CursorClone
from adbc_telemetry.instrumentation.null_recorder import NULL_RECORDER
from adbc_telemetry.instrumentation.operations import (
    CONNECTION_OPERATIONS,
    CURSOR_CANCEL,
    CURSOR_FETCHES,
    CURSOR_OPERATIONS,
    Fetch,
    Operation,
)
from adbc_telemetry.instrumentation.readers import follow_reader
from adbc_telemetry.instrumentation.session_recorder import SessionRecorder
from adbc_telemetry.instrumentation.statement_recorder import StatementRecorder
from adbc_telemetry.instrumentation.tracebacks import leave_no_frame, leave_no_frames

DBAPI_MODULE: Final = "adbc_driver_manager.dbapi"

STATE: Final = "_adbc_telemetry"
"""The one attribute that an instrumented connection or cursor has and others have not."""

Methods = dict[str, Callable[..., Any]]


def is_adbc_connection(connection: object) -> bool:
    """Whether this is a connection of the ADBC driver manager; imports nothing to find out."""
    dbapi = sys.modules.get(DBAPI_MODULE)
    return dbapi is not None and isinstance(connection, dbapi.Connection)


def is_instrumented(connection: object) -> bool:
    """Whether the connection has a recorder already."""
    return STATE in vars(connection)


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


# Bounded, for programs that make classes at run time.
_CLASSES_AT_MOST: Final = 256


@functools.lru_cache(maxsize=_CLASSES_AT_MOST)
def connection_class(cls: Any) -> Any:
    """The subclass that instrumented connections of `cls` belong to."""
    methods = {
        name: _recorded(cls, name, operation)
        for name, operation in CONNECTION_OPERATIONS.items()
        if hasattr(cls, name)
    }
    return _subclass(cls, {**methods, **_connection_methods(cls)})


@functools.lru_cache(maxsize=_CLASSES_AT_MOST)
def cursor_class(cls: Any) -> Any:
    """The subclass that cursors of instrumented connections belong to."""
    methods: Methods = {
        **{name: _executes(cls, name, operation) for name, operation in CURSOR_OPERATIONS.items()},
        **{name: _fetches_all(cls, name) for name, end in CURSOR_FETCHES.items() if end is Fetch.ALL},
        **_cursor_methods(cls),
    }
    return _subclass(cls, {name: method for name, method in methods.items() if hasattr(cls, name)})


def _subclass(cls: Any, methods: Methods) -> Any:
    """A subclass that passes for `cls` in all but identity: names, documentation and signatures are the same.

    A class that has been made here, of which the program may make objects by itself, is its own.
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
    """Pickling fails, or succeeds, as that of an object that is not followed."""

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        reduced = cls.__reduce_ex__(self, protocol)
        if not isinstance(reduced, tuple) or len(reduced) < 3 or not isinstance(reduced[2], dict):
            return reduced
        state = {name: value for name, value in reduced[2].items() if name != STATE}
        # Not the `__newobj__` of an object's own, which insists on the class that the object has.
        return (copyreg._reconstructor, (cls, object, None), state, *reduced[3:])  # type: ignore[attr-defined]

    return __reduce_ex__


# The methods below look up the driver manager's own on the class at each call, as `super()` would: whoever else
# patches that class is not bypassed. Each has the one shape: begin; the real call; fail and re-raise, or finish.
# An error leaves with the traceback that it would have without. What a statement is sure to call has its arguments
# spelt out, since to pack and to unpack them costs more than to record; where the driver manager's has others, and for
# all the rest, a second form passes on whatever comes.

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
            made._adbc_telemetry = StatementRecorder(recorder)
        else:
            _follow_cursor(made, recorder)
        return made

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            made = cls.cursor(self, *args, **kwargs)
        except BaseException as error:
            leave_no_frame(error)
            raise
        _follow_cursor(made, self._adbc_telemetry)
        return made

    def adbc_clone(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            clone = cls.adbc_clone(self, *args, **kwargs)
        except BaseException as error:
            leave_no_frame(error)
            raise
        self._adbc_telemetry.instrument_like_this(clone)
        return clone

    def close(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder: SessionRecorder = self._adbc_telemetry
        recorder.begin_close()
        try:
            # It warns, in its caller's name, of cursors that do not close.
            result = eval(*in_the_callers_place(partial(cls.close, self, *args, **kwargs)))
        except BaseException as error:
            recorder.fail_close(error)
            leave_no_frames(error)
            raise
        recorder.end()
        return result

    def __del__(self: Any) -> None:
        recorder: SessionRecorder = self._adbc_telemetry
        recorder.collected = True
        try:
            cls.__del__(self)
        finally:
            recorder.end()

    make_cursor = cursor if clone is not None and _called_alike(cursor, cls.cursor) else method
    return {"cursor": make_cursor, "adbc_clone": adbc_clone, "close": close, "__del__": __del__}


def _commits_nothing(connection: Any) -> bool:
    """Whether a commit is none of the user's: without transactions it does nothing; `executescript` makes its own."""
    return bool(connection._adbc_telemetry.script) or not getattr(connection, "_commit_supported", True)


def _no_clone(error: Exception, cls: Any) -> CursorClone | None:
    return None


@never_raises(_no_clone)
def _cursor_clone(cls: Any) -> CursorClone | None:
    """The driver manager's `cursor`, which makes instrumented cursors; None of any other, whatever that does."""
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
    ):  # a driver may hand out the same one again
        return
    cls: Any = type(cursor)
    kind = cursor_class(cls)
    object.__setattr__(cursor, STATE, StatementRecorder(recorder))
    cursor.__class__ = kind


def _recorded(cls: Any, name: str, operation: Operation) -> Callable[..., Any]:
    """A method of the connection that is an operation from its call to its return."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder: SessionRecorder = self._adbc_telemetry
        counts = not (operation.ends_transaction and _commits_nothing(self))
        statement = recorder.begin(operation, kwargs) if counts else None
        try:
            result = getattr(cls, name)(self, *args, **kwargs)
        except BaseException as error:
            recorder.fail(statement, error)
            leave_no_frame(error)
            raise
        recorder.finish(statement, operation.returns_arrow)
        return result

    return method


def _executes(cls: Any, name: str, kind: Operation) -> Callable[..., Any]:
    """A method of the cursor that starts a statement."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder: StatementRecorder = self._adbc_telemetry
        recorder.begin(kind, args[0] if args else kwargs.get("operation"))
        try:
            result = getattr(cls, name)(self, *args, **kwargs)
        except BaseException as error:
            recorder.fail(error)
            leave_no_frame(error)
            raise
        recorder.executed(self)
        return result

    def execute(self: Any, operation: Any, parameters: Any = NOT_GIVEN) -> Any:
        recorder: StatementRecorder = self._adbc_telemetry
        recorder.begin(kind, operation)
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

    return execute if name == "execute" and _called_alike(execute, cls.execute) else method


def _called_alike(ours: Callable[..., Any], theirs: Callable[..., Any]) -> bool:
    """Whether a method of ours that spells out its arguments is called as the driver manager's is."""
    if any(hasattr(theirs, name) for name in ("__wrapped__", "__signature__")):  # its signature may not hold
        return False
    try:
        mine, its = inspect.signature(ours), inspect.signature(theirs)
    except (TypeError, ValueError):  # without one, as some of C's
        return False
    return [(each.name, each.kind, each.default is each.empty) for each in mine.parameters.values()] == [
        (each.name, each.kind, each.default is each.empty) for each in its.parameters.values()
    ]


def _fetches_all(cls: Any, name: str) -> Callable[..., Any]:
    """A method of the cursor that fetches to the end."""

    def fetchall(self: Any) -> Any:
        recorder: StatementRecorder = self._adbc_telemetry
        try:
            rows = cls.fetchall(self)
        except BaseException as error:
            recorder.fail(error)
            leave_no_frame(error)
            raise
        recorder.fetched(True)
        return rows

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder: StatementRecorder = self._adbc_telemetry
        try:
            result = getattr(cls, name)(self, *args, **kwargs)
        except BaseException as error:
            recorder.fail(error)
            leave_no_frame(error)
            raise
        recorder.fetched(True)
        return result

    return fetchall if name == "fetchall" and _called_alike(fetchall, cls.fetchall) else method


def _cursor_methods(cls: Any) -> Methods:
    # Called once a row, also by iteration: between the first row and the last it takes the time and no more.

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

    def fetchone_somehow(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder: StatementRecorder = self._adbc_telemetry
        try:
            row = cls.fetchone(self, *args, **kwargs)
        except BaseException as error:
            recorder.fail(error)
            leave_no_frame(error)
            raise
        recorder.fetched(row is None)
        return row

    def fetchmany(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder: StatementRecorder = self._adbc_telemetry
        try:
            rows = cls.fetchmany(self, *args, **kwargs)
        except BaseException as error:
            recorder.fail(error)
            leave_no_frame(error)
            raise
        recorder.fetched_many(self, rows, args, kwargs)
        return rows

    def fetch_record_batch(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder: StatementRecorder = self._adbc_telemetry
        try:
            reader = cls.fetch_record_batch(self, *args, **kwargs)
        except BaseException as error:
            recorder.fail(error)
            leave_no_frame(error)
            raise
        recorder.handed_out()
        return follow_reader(recorder, reader)

    def fetch_arrow(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder: StatementRecorder = self._adbc_telemetry
        try:
            stream = cls.fetch_arrow(self, *args, **kwargs)
        except BaseException as error:
            recorder.fail(error)
            leave_no_frame(error)
            raise
        recorder.handed_out()
        return stream

    def adbc_cancel(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder: StatementRecorder = self._adbc_telemetry
        cancel = recorder.begin_cancel(CURSOR_CANCEL)
        try:
            result = cls.adbc_cancel(self, *args, **kwargs)
        except BaseException as error:
            recorder.connection.fail(cancel, error)
            leave_no_frame(error)
            raise
        recorder.connection.finish(cancel)
        return result

    # Also what __del__ calls.

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

    def close_somehow(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder: StatementRecorder = self._adbc_telemetry
        try:
            result = cls.close(self, *args, **kwargs)
        except BaseException as error:
            recorder.fail(error)
            leave_no_frame(error)
            raise
        recorder.end()
        return result

    return {
        "fetchone": fetchone if _called_alike(fetchone, cls.fetchone) else fetchone_somehow,
        "fetchmany": fetchmany,
        "fetch_record_batch": fetch_record_batch,
        "fetch_arrow": fetch_arrow,
        "adbc_cancel": adbc_cancel,
        "close": close if _called_alike(close, cls.close) else close_somehow,
    }
