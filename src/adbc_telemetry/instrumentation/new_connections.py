"""Every ADBC connection that any code in this process opens: one patch, and those who follow what it sees.

The drivers' modules have functions `connect` and names `Connection` of their own, and code that imported them has
copies. The constructor of the driver manager's `Connection` is the only place that every connection passes. It is
patched while there is at least one follower, so that followers come and go in any order and leave no trace.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.native import Lock
from adbc_telemetry.instrumentation.tracebacks import leave_no_frame

Follow = Callable[[Any], object]

_lock = Lock()  # guards _patch and the list of its followers
_patch: _Patch | None = None


def add_follower(follow: Follow) -> bool:
    """Call `follow` with each new connection from now on. It raises nothing.

    Imports `adbc_driver_manager.dbapi`. Do not call it with a lock held, which a fork would leave locked meanwhile.

    Returns:
        False where that is not installed, so that there will be no connections.
    """
    global _patch
    connection_class = _adbc_connection_class()
    if connection_class is None:
        return False
    with _lock:
        if _patch is None:
            _patch = _Patch(connection_class)
        _patch.followers = (*_patch.followers, follow)
    return True


def remove_follower(follow: Follow) -> None:
    """Undo `add_follower`."""
    global _patch
    with _lock:
        if _patch is None:
            return
        _patch.followers = tuple(each for each in _patch.followers if each != follow)
        if not _patch.followers:
            _patch.remove()
            _patch = None


def _not_there(error: Exception) -> type[Any] | None:
    return None


@never_raises(_not_there)
def _adbc_connection_class() -> type[Any] | None:
    from adbc_driver_manager import dbapi

    kind: type[Any] = dbapi.Connection
    return kind


class _Patch:
    """A patch of the driver manager's `Connection.__init__`, from when this is made until `remove`."""

    def __init__(self, connection_class: type[Any]) -> None:
        self.followers: tuple[Follow, ...] = ()
        self._class = connection_class
        self._original = vars(connection_class)["__init__"]
        self._patched = self._make_patch()
        connection_class.__init__ = self._patched

    def _make_patch(self) -> Any:
        original = self._original

        @functools.wraps(original)
        def __init__(connection: Any, *args: Any, **kwargs: Any) -> None:
            try:
                original(connection, *args, **kwargs)
            except BaseException as error:
                leave_no_frame(error)
                raise
            for follow in self.followers:
                follow(connection)

        return __init__

    def remove(self) -> None:
        """Put the original back. A patch that other code has wrapped stays in place and does nothing."""
        self.followers = ()
        if vars(self._class)["__init__"] is self._patched:
            self._class.__init__ = self._original
