"""One trace through Python and driver: a driver that makes spans of its own is told which span they belong to.

Drivers take the W3C's `traceparent` as the option `adbc.telemetry.trace_parent`, of the statement or of the connection.
Whether one does is asked once per driver, by setting it: those that do not refuse it, and are left alone from then on.
"""

from __future__ import annotations

from typing import Any, Final

from opentelemetry.trace import SpanContext

from adbc_telemetry.core.guard import never_raises

OPTION: Final = "adbc.telemetry.trace_parent"

_takes: Final[dict[tuple[str, bool], bool]] = {}
"""Whether a driver takes the option: by its name and version, of the statement (True) or of the connection."""


def traceparent(context: SpanContext) -> str:
    """The W3C's header of a span: "" of none, by which a driver forgets the one that it has."""
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


class TraceParent:
    """Tells the driver of one connection.

    Args:
        driver: its name and version.
    """

    __slots__ = ("_driver", "_is_set")

    def __init__(self, driver: str) -> None:
        self._driver = driver
        self._is_set = False  # on the connection

    @property
    def is_wanted(self) -> bool:
        """Whether there is anything to do: not once the driver has refused both."""
        takes, driver = _takes, self._driver
        return takes.get((driver, True), True) or takes.get((driver, False), True)

    def tell(self, context: SpanContext, thing: Any) -> None:
        """A call of a method of `thing`, a cursor or a connection, belongs to this span."""
        value = traceparent(context)
        statement = getattr(thing, "adbc_statement", None)
        if statement is not None and (value or _takes.get((self._driver, True))):
            if self._set(statement, True, value):
                return
            thing = thing.connection
        if value or self._is_set:
            connection = thing.adbc_connection
            self._is_set = self._set(connection, False, value) and bool(value)

    def _set(self, handle: Any, is_statement: bool, value: str) -> bool:
        key = self._driver, is_statement
        takes = _takes.get(key)
        if takes is None:
            takes = _takes[key] = _was_set(handle, value)
            return takes
        return takes and _was_set(handle, value)


def _refused(error: Exception, handle: Any, value: str) -> bool:
    return False


@never_raises(_refused)
def _was_set(handle: Any, value: str) -> bool:
    handle.set_options(**{OPTION: value})
    return True
