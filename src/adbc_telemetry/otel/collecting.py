"""Operations that the garbage collector ends, because it takes a cursor or a reader that was not closed.

It may run at any line of any thread, also at one of the SDK's that holds a lock: a span that is ended there would wait
for this very lock. So such an operation is ended later, with the time at which it has ended: by the next one that
begins or ends, or at exit.
"""

from __future__ import annotations

import atexit
import functools
import gc
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from adbc_telemetry.core.guard import never_raises


class _Here(threading.local):
    is_collecting = False  # whether the garbage collector is running on this thread


_here: Final = _Here()
put_off: Final[deque[Callable[[], object]]] = deque()
"""The calls that are to be made later."""


def run_outside_of_collection(call: Callable[..., object], *arguments: Any) -> None:
    """Make the call now; later, if the garbage collector is running on this thread."""
    if _here.is_collecting:
        put_off.append(functools.partial(call, *arguments))
        return
    call(*arguments)
    if put_off:
        catch_up()


def _not_made(error: Exception) -> None:
    """It was one of many; the others are made the next time."""


@never_raises(_not_made)
def catch_up() -> None:
    """Make the calls that have been put off, unless the garbage collector is running on this thread."""
    while put_off and not _here.is_collecting:
        try:
            call = put_off.popleft()
        except IndexError:  # another thread was faster
            return
        call()


@functools.cache
def watch_the_collector() -> None:
    """From now on it is known when the garbage collector runs. Called before the first operation."""
    gc.callbacks.append(_notice)
    atexit.register(catch_up)


def _notice(phase: str, info: object) -> None:
    _here.is_collecting = phase == "start"
