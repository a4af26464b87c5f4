"""Instrumenting every ADBC connection of the process, and undoing it without a trace."""

from __future__ import annotations

import functools
from typing import Any

from adbc_telemetry.instrument.settings import Settings
from adbc_telemetry.instrument.traces import leave_no_frame


class Installation:
    """A patch of the driver manager's `Connection.__init__`, from when this is made until `remove`.

    The drivers' modules have functions `connect` and names `Connection` of their own, and whoever imported them
    has copied these; the constructor is the one place that every connection passes.
    """

    def __init__(self, connection_class: type[Any], settings: Settings) -> None:
        self._class = connection_class
        self._settings: Settings | None = settings
        self._original = vars(connection_class)["__init__"]
        self._patch = self._make_patch()
        connection_class.__init__ = self._patch

    def _make_patch(self) -> Any:
        original = self._original

        @functools.wraps(original)
        def __init__(connection: Any, *args: Any, **kwargs: Any) -> None:
            try:
                original(connection, *args, **kwargs)
            except BaseException as error:
                leave_no_frame(error)
                raise
            settings = self._settings
            if settings is not None:
                settings.follow(connection)

        return __init__

    def remove(self) -> None:
        """Put the original back. A patch that somebody else has wrapped stays in place and does nothing."""
        self._settings = None
        if vars(self._class)["__init__"] is self._patch:
            self._class.__init__ = self._original
