"""A latch: it opens once, and whoever waits at it goes on.

`threading.Event` and `Condition` have a lock of their own: a signal handler that interrupts one of their methods and
calls another would wait for ever, and a nested wait would take the wake-up from the outer one. Here each who waits
has a lock of their own, and the list of those is changed by single steps.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

from adbc_telemetry.core.native import Lock, RLock, green_sleep

_LONGEST_SECONDS: Final = 100_000_000.0  # of what a lock takes, or more
_SHORTEST_PAUSE_SECONDS: Final = 0.001
_LONGEST_PAUSE_SECONDS: Final = 0.01


class Latch:
    """Opens once. Every method may interrupt every other, in the same thread and in others."""

    __slots__ = ("_waiting", "is_open")

    def __init__(self) -> None:
        self.is_open = False
        self._waiting: list[Lock] = []

    def open(self) -> None:
        """Let all go on that wait, and all that come later."""
        self.is_open = True
        self._let_go()

    def _let_go(self) -> None:
        while self.is_open and self._waiting:
            try:
                lock = self._waiting.pop()
            except IndexError:
                return  # another was faster
            lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it is open, after `timeout` seconds at most."""
        sleep = None if self.is_open else green_sleep()
        if sleep is not None:
            self._wait_green(sleep, timeout)
        elif not self.is_open:
            lock = Lock()
            lock.acquire()
            self._waiting.append(lock)
            self._let_go()  # it may have been opened before it could see the lock
            lock.acquire(timeout=-1 if timeout is None else min(max(0.0, timeout), _LONGEST_SECONDS))
        return self.is_open

    def _wait_green(self, sleep: Callable[[float], object], timeout: float | None) -> None:
        """Look again and again: a green thread that waits at a lock would stop all others, and their hub."""
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        pause = _SHORTEST_PAUSE_SECONDS
        while not self.is_open and (left := deadline - time.monotonic()) > 0:
            sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


@contextlib.contextmanager
def given_up(lock: RLock) -> Iterator[None]:
    """Wait without a reentrant lock, however often this thread holds it.

    A signal handler that waits for another thread may have interrupted its own thread where that holds the lock
    which the other one needs.
    """
    depth = 0
    try:
        while True:
            lock.release()
            depth += 1
    except RuntimeError:  # it is not ours (any more)
        pass
    try:
        yield
    finally:
        for _ in range(depth):
            lock.acquire()
