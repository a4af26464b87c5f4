"""Calls of a driver that are made in the caller's place.

A driver may look at the nearest Python frame: duckdb looks there for the data frames that a query names, and a warning
is attributed to that frame's line. Behind a proxy the nearest frame is the proxy's method. So the method makes its call
by `eval`, of code that has the caller's file and line, over the caller's globals and locals:

    result = eval(*in_the_callers_place(partial(cursor.execute, sql)))

To the driver, the frame of that code is the caller's.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FrameType
from typing import Any, Final

from adbc_telemetry.core.guard import never_raises

# By this name the code finds its call. It is no identifier, so that no variable of the caller's is in its way.
_NAME: Final = "<adbc_telemetry>"
_CALL: Final = compile("call()", _NAME, "eval").replace(co_names=(_NAME,))

# By the place of the caller's code, and how far the caller has come in it.
_codes: Final[dict[tuple[int, int], tuple[weakref.ref[CodeType], CodeType]]] = {}
_CODES_AT_MOST: Final = 1024
_NO_LINE: Final = -2


class CallersLocals(Mapping[str, Any]):
    """The caller's locals, and the call that is to be made.

    The caller's frame is asked for its locals only when the driver asks. Until Python 3.12, a frame that has been asked
    keeps what it has told, so that the caller's `del` would free nothing, and its `locals()` would change.
    """

    __slots__ = ("_call", "_frame", "_locals")

    _call: Callable[[], Any]
    _frame: FrameType | None
    _locals: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self._call if name == _NAME else self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def _read(self) -> Mapping[str, Any]:
        try:
            return self._locals
        except AttributeError:
            self._locals = {} if self._frame is None else self._frame.f_locals
            return self._locals


def in_the_callers_place(call: Callable[[], Any]) -> tuple[CodeType, dict[str, Any], CallersLocals]:
    """What `eval` is to be given to make `call` in the place of the caller of the method that calls this.

    `call` is the driver's method or a `functools.partial` of it: a function of ours would have a frame of its own.
    """
    place = CallersLocals()  # without an `__init__`: this is done for each row
    place._call = call
    try:
        place._frame = frame = sys._getframe(2)
    except (
        ValueError
    ):  # the method is called from C with no Python below, as the target of a thread or at exit
        place._frame = None
        return _CALL, {}, place
    code = frame.f_code
    # A debugger that follows the caller would stop twice at its line.
    at = frame.f_lasti if frame.f_trace is None else _NO_LINE
    found = _codes.get((id(code), at))
    prepared = found[1] if found is not None and found[0]() is code else _prepare(frame, at)
    return prepared, frame.f_globals, place


def makes_a_call(frame: FrameType) -> bool:
    """Whether this is the frame of a call in the caller's place."""
    return frame.f_code.co_names == _CALL.co_names


def _without_a_line(error: Exception, frame: FrameType, at: int) -> CodeType:
    return _CALL


@never_raises(_without_a_line)
def _prepare(frame: FrameType, at: int) -> CodeType:
    """The code for calls from the line at which the frame is. To find the line takes longer than all the rest."""
    code = frame.f_code
    line = None if at == _NO_LINE or _debugger_monitors() else frame.f_lineno
    prepared = _CALL.replace(
        co_filename=code.co_filename, co_name=code.co_name, co_firstlineno=0 if line is None else line
    )
    if len(_codes) >= _CODES_AT_MOST:
        _codes.clear()
    # Another code may come to the place of one that is gone: the weak reference tells.
    _codes[id(code), at] = weakref.ref(code), prepared
    return prepared


def _debugger_monitors() -> bool:
    """Whether a debugger is there that does not trace frames: those of Python 3.12 and later may do without."""
    monitoring = getattr(sys, "monitoring", None)
    return monitoring is not None and monitoring.get_tool(monitoring.DEBUGGER_ID) is not None
