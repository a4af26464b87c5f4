"""Interruptions at known lines, where a garbage collection or a signal could happen as well."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import adbc_telemetry

# The package, and the standard library's modules that hold locks on its behalf.
_TRACED = (os.path.dirname(adbc_telemetry.__file__), threading.__file__, queue.__file__)


class AtLine:
    """A trace function that runs `interrupt` at the `number`-th line and records where that was."""

    def __init__(self, number: int, interrupt: Callable[[], object]) -> None:
        self._left = number
        self._interrupt = interrupt
        self.where = ""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> AtLine | None:
        if not frame.f_code.co_filename.startswith(_TRACED):
            return None
        if event == "line":
            self._left -= 1
            if self._left == 0:
                name = getattr(
                    frame.f_code, "co_qualname", frame.f_code.co_name
                )  # qualified names need Python 3.11
                self.where = f"{name} {frame.f_lineno}"
                self._interrupt()  # Python does not trace inside a trace function
        return self


@contextmanager
def at_every_line(interrupt: Callable[[], object], times: int) -> Iterator[None]:
    """Run `interrupt` at each of the first `times` lines, in this thread and in threads that start meanwhile."""
    left = iter(range(times))

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_TRACED):
            return None
        if event == "line" and next(left, None) is not None:
            interrupt()
        return trace

    before = sys.gettrace()
    threading.settrace(trace)
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
        threading.settrace(before)


def interrupted_at_line(number: int, operation: Callable[[], object], interrupt: Callable[[], object]) -> str:
    """Run `operation`, and `interrupt` at its `number`-th line; returns where that was, or "" if it has fewer lines."""
    at_line = AtLine(number, interrupt)
    before = sys.gettrace()
    sys.settrace(at_line)
    try:
        operation()
    finally:
        sys.settrace(before)
    return at_line.where
