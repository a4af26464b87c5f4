"""ADBC connections in the making: how long it takes, and what becomes of it when it fails.

A driver's `connect` makes an `AdbcDatabase`, an `AdbcConnection` of it, and of both the DBAPI's `Connection`. When the
last of them is made, all the work is done. So the first two are watched: while there is an observer, subclasses of
theirs stand in their places in the driver manager's modules. Code that has imported the classes themselves before that
is not watched.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from time import monotonic_ns
from typing import Any, Final

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.native import Lock
from adbc_telemetry.instrumentation.observers import ConnectObserver, OperationObserver, Outcome
from adbc_telemetry.instrumentation.tracebacks import leave_no_frame

_AT_ONCE_NS: Final = 10_000_000
"""A connection that is made so soon after its database is of one `connect` with it, which began with the database."""

_lock = Lock()  # guards _observer and _patched
_observer: ConnectObserver | None = None
_patched: list[tuple[Any, str, Any, Any]] = []  # module, name, the original class, ours


def observe_connecting(observer: ConnectObserver) -> None:
    """Tell `observer` of each ADBC connection that is made from now on. Imports `adbc_driver_manager`."""
    global _observer
    modules = _modules()  # not under the lock, which a fork would leave locked
    with _lock:
        _observer = observer
        if not _patched:
            _patch(modules)


def stop_observing() -> None:
    """Undo `observe_connecting`. A class that other code has replaced since stays in its place."""
    global _observer
    with _lock:
        _observer = None
        for module, name, original, ours in _patched:
            if vars(module).get(name) is ours:
                setattr(module, name, original)
        _patched.clear()


def _no_modules(error: Exception) -> tuple[Any, ...]:
    return ()


@never_raises(_no_modules)
def _modules() -> tuple[Any, ...]:
    import adbc_driver_manager
    from adbc_driver_manager import _lib

    return _lib, adbc_driver_manager


def _patch(modules: tuple[Any, ...]) -> None:
    for name, watched in (("AdbcDatabase", _watched_database), ("AdbcConnection", _watched_connection)):
        originals = [vars(module).get(name) for module in modules]
        if originals and originals[0] is not None:
            ours = watched(originals[0])
            for module, original in zip(modules, originals, strict=True):
                if original is originals[0]:
                    setattr(module, name, ours)
                    _patched.append((module, name, original, ours))


class _PassesForOriginal(type):
    """An object that was made before the class was replaced is an instance all the same."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.__mro__[1])


def _subclass(original: Any, init: Any) -> Any:
    functools.update_wrapper(init, original.__init__, updated=())
    namespace = {"__module__": original.__module__, "__doc__": original.__doc__, "__init__": init}
    return _PassesForOriginal(original.__name__, (original,), namespace)


def _watched_database(original: Any) -> Any:
    def __init__(self: Any, **options: Any) -> None:
        started_ns = monotonic_ns()
        try:
            original.__init__(self, **options)
        except BaseException as error:
            # Some drivers connect already here.
            observed = _begin(_place_of(options), started_ns)
            _end(observed, error)
            leave_no_frame(error)
            raise
        self._adbc_telemetry_place = _place_of(options)
        self._adbc_telemetry_made_ns = started_ns, monotonic_ns()

    return _subclass(original, __init__)


def place_of(database: Any) -> object:
    """What the observer made of the options of a database; None of a database that was not watched."""
    return getattr(database, "_adbc_telemetry_place", None)


def _watched_connection(original: Any) -> Any:
    def __init__(self: Any, database: Any, **options: Any) -> None:
        observed = _begin_of(database)
        try:
            original.__init__(self, database, **options)
        except BaseException as error:
            _end(observed, error)
            leave_no_frame(error)
            raise
        _connected(observed, self)
        _end(observed, None)

    return _subclass(original, __init__)


def _not_observed(error: Exception, *_: object) -> OperationObserver | None:
    return None


def _not_told(error: Exception, *_: object) -> None:
    return None


def _no_place(error: Exception, options: Mapping[str, Any]) -> object:
    return None


@never_raises(_no_place)
def _place_of(options: Mapping[str, Any]) -> object:
    observer = _observer
    return None if observer is None else observer.place_of(options)


@never_raises(_not_observed)
def _begin_of(database: Any) -> OperationObserver | None:
    now = monotonic_ns()
    # Of its first connection: another one does not wait for the database.
    started_ns, made_ns = getattr(database, "__dict__", {}).pop("_adbc_telemetry_made_ns", (now, 0))
    return _begin(place_of(database), started_ns if now - made_ns < _AT_ONCE_NS else now)


@never_raises(_not_observed)
def _begin(place: object, started_ns: int) -> OperationObserver | None:
    observer = _observer
    return None if observer is None else observer.begin_connect(place, started_ns)


@never_raises(_not_told)
def _connected(observed: OperationObserver | None, connection: Any) -> None:
    observer = _observer
    if observer is not None:
        observer.connected(observed, connection)


@never_raises(_not_told)
def _end(observed: OperationObserver | None, error: BaseException | None) -> None:
    if observed is not None:
        observed.returned()
        observed.ended(Outcome(None, error, None, None, monotonic_ns(), None))
