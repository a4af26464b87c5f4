"""ADBC DBAPI connections (`adbc_driver_manager.dbapi`), whichever the driver.

No proxies: an instrumented connection is the same object, of a subclass of its class that is made once, bears
the same names and differs in nothing but the methods below. So `isinstance` holds, and what pandas and polars
read from the class's module; attributes, context managers and the warnings of `__del__` are those of the
driver manager.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from adbc_telemetry.guard import contained
from adbc_telemetry.instrument.operations import (
    CONNECTION_OPERATIONS,
    CURSOR_CANCEL,
    CURSOR_OPERATIONS,
    Operation,
)
from adbc_telemetry.instrument.recorder import SessionRecorder, StatementRecorder

DBAPI_MODULE: Final = "adbc_driver_manager.dbapi"

STATE: Final = "_adbc_telemetry"
"""The one attribute that an instrumented connection or cursor has and others have not."""

_DRIVER_NAME, _DRIVER_VERSION = 100, 101  # ADBC_INFO_DRIVER_NAME, ADBC_INFO_DRIVER_VERSION

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


def autocommits(connection: Any) -> bool | None:
    """Whether each statement commits on its own; None where the driver manager does not say."""
    autocommit = getattr(connection, "_autocommit", None)
    return autocommit if isinstance(autocommit, bool) else None


def _not_told(error: Exception, connection: object) -> tuple[str | None, str | None]:
    return None, None


@contained(_not_told)
def driver_name_and_version(connection: Any) -> tuple[str | None, str | None]:
    """What the driver calls itself.

    Asks for these two facts alone and not by `adbc_get_info()`: drivers know them by heart, whereas some ask
    the server for the others, and would do so inside the host program's transaction.
    """
    import pyarrow

    stream = connection.adbc_connection.get_info([_DRIVER_NAME, _DRIVER_VERSION])
    rows = pyarrow.RecordBatchReader._import_from_c(stream.address).read_all().to_pylist()
    told = {row["info_name"]: row["info_value"] for row in rows}
    return _text(told.get(_DRIVER_NAME)), _text(told.get(_DRIVER_VERSION))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def follow(connection: Any, start: Callable[[], SessionRecorder]) -> None:
    """Turn the connection into an instrumented one; `start` makes its recorder, once nothing else can fail."""
    cls: Any = type(connection)
    kind = connection_class(cls)
    setattr(connection, STATE, start())
    connection.__class__ = kind


@functools.cache
def connection_class(cls: Any) -> Any:
    """The subclass that instrumented connections of `cls` belong to."""
    methods = {
        name: _recorded(cls, name, operation)
        for name, operation in CONNECTION_OPERATIONS.items()
        if hasattr(cls, name)
    }
    return _subclass(cls, {**methods, **_connection_methods(cls)})


@functools.cache
def cursor_class(cls: Any) -> Any:
    """The subclass that cursors of instrumented connections belong to."""
    methods: Methods = {
        **{name: _executes(cls, name, operation) for name, operation in CURSOR_OPERATIONS.items()},
        **{name: _fetches(cls, name, over) for name, over in _FETCHES.items()},
        **_cursor_methods(cls),
    }
    return _subclass(cls, {name: method for name, method in methods.items() if hasattr(cls, name)})


def _subclass(cls: Any, methods: Methods) -> Any:
    """A subclass that passes for `cls` in all but identity: names, documentation and signatures are the same."""
    namespace: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    for name, method in methods.items():
        namespace[name] = functools.update_wrapper(method, getattr(cls, name))
    return type(cls)(cls.__name__, (cls,), namespace)


# The methods below look up the driver manager's own on the class at each call, as `super()` would: whoever else
# patches that class is not bypassed. Each has the one shape: begin; the real call; fail and re-raise, or finish.


def _connection_methods(cls: Any) -> Methods:
    def cursor(self: Any, *args: Any, **kwargs: Any) -> Any:
        made = cls.cursor(self, *args, **kwargs)
        _follow_cursor(made, self._adbc_telemetry)
        return made

    def adbc_clone(self: Any, *args: Any, **kwargs: Any) -> Any:
        clone = cls.adbc_clone(self, *args, **kwargs)
        self._adbc_telemetry.instrument_like_this(clone)
        return clone

    def commit(self: Any, *args: Any, **kwargs: Any) -> Any:
        return (cls.commit if _commits_nothing(self) else recorded_commit)(self, *args, **kwargs)

    def rollback(self: Any, *args: Any, **kwargs: Any) -> Any:
        return (cls.rollback if _commits_nothing(self) else recorded_rollback)(self, *args, **kwargs)

    def close(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder: SessionRecorder = self._adbc_telemetry
        recorder.begin_close()
        try:
            result = cls.close(self, *args, **kwargs)
        except BaseException as error:
            recorder.fail_close(error)
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

    recorded_commit = _recorded(cls, "commit", CONNECTION_OPERATIONS["commit"])
    recorded_rollback = _recorded(cls, "rollback", CONNECTION_OPERATIONS["rollback"])
    return {
        "cursor": cursor,
        "adbc_clone": adbc_clone,
        "commit": commit,
        "rollback": rollback,
        "close": close,
        "__del__": __del__,
    }


def _commits_nothing(connection: Any) -> bool:
    """Whether a commit is none of the user's: without transactions it does nothing; `executescript` makes its own."""
    return connection._adbc_telemetry.in_script or not getattr(connection, "_commit_supported", True)


@contained(lambda error, cursor, recorder: None)
def _follow_cursor(cursor: Any, recorder: SessionRecorder) -> None:
    cls: Any = type(cursor)
    kind = cursor_class(cls)
    setattr(cursor, STATE, StatementRecorder(recorder))
    cursor.__class__ = kind


def _recorded(cls: Any, name: str, operation: Operation) -> Callable[..., Any]:
    """A method of the connection that is an operation from its call to its return."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder: SessionRecorder = self._adbc_telemetry
        statement = recorder.begin(operation, kwargs)
        try:
            result = getattr(cls, name)(self, *args, **kwargs)
        except BaseException as error:
            recorder.fail(statement, error)
            raise
        recorder.finish(statement)
        return result

    return method


def _executes(cls: Any, name: str, operation: Operation) -> Callable[..., Any]:
    """A method of the cursor that starts a statement."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder: StatementRecorder = self._adbc_telemetry
        recorder.begin(operation, args, kwargs)
        try:
            result = getattr(cls, name)(self, *args, **kwargs)
        except BaseException as error:
            recorder.fail(error)
            raise
        recorder.executed(self)
        return result

    return method


# Whether a fetch that returned was the last. A reader or a stream that is handed out is read behind the cursor's back:
# its statement is over when the cursor is closed, dropped or used again.
_Over = bool
_READ_TO_THE_END: Final = True
_HANDED_OUT: Final = False

_FETCHES: Final[Mapping[str, _Over]] = {
    "fetchall": _READ_TO_THE_END,
    "fetch_arrow_table": _READ_TO_THE_END,
    "fetchallarrow": _READ_TO_THE_END,
    "fetch_df": _READ_TO_THE_END,
    "fetch_polars": _READ_TO_THE_END,
    "fetch_record_batch": _HANDED_OUT,
    "fetch_arrow": _HANDED_OUT,
}


def _fetches(cls: Any, name: str, over: _Over) -> Callable[..., Any]:
    """A method of the cursor that fetches, always to the end or never."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder: StatementRecorder = self._adbc_telemetry
        try:
            result = getattr(cls, name)(self, *args, **kwargs)
        except BaseException as error:
            recorder.fail(error)
            raise
        recorder.fetched(over)
        return result

    return method


def _cursor_methods(cls: Any) -> Methods:
    def fetchone(self: Any) -> Any:
        # Called once a row, also by iteration: between the first row and the last it does next to nothing.
        recorder: StatementRecorder = self._adbc_telemetry
        try:
            row = cls.fetchone(self)
        except BaseException as error:
            recorder.fail(error)
            raise
        if row is None or recorder.awaits_rows:
            recorder.fetched(row is None)
        return row

    def fetchmany(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder: StatementRecorder = self._adbc_telemetry
        try:
            rows = cls.fetchmany(self, *args, **kwargs)
        except BaseException as error:
            recorder.fail(error)
            raise
        recorder.fetched_many(self, rows, args, kwargs)
        return rows

    def adbc_cancel(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder: StatementRecorder = self._adbc_telemetry
        cancel = recorder.begin_cancel(CURSOR_CANCEL)
        try:
            result = cls.adbc_cancel(self, *args, **kwargs)
        except BaseException as error:
            recorder.connection.fail(cancel, error)
            raise
        recorder.connection.finish(cancel)
        return result

    def close(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Also what __del__ calls.
        recorder: StatementRecorder = self._adbc_telemetry
        try:
            result = cls.close(self, *args, **kwargs)
        except BaseException as error:
            recorder.fail(error)
            raise
        recorder.end()
        return result

    return {"fetchone": fetchone, "fetchmany": fetchmany, "adbc_cancel": adbc_cancel, "close": close}
