"""Primitives that a signal handler, a destructor or another thread may enter at any step.

The locks of `threading.Event`, `threading.Condition` and `WeakSet` are not reentrant in this sense: a signal handler
that interrupts one of their methods and calls another waits for ever.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

from adbc_telemetry.core.native import Lock, RLock, green_sleep

_LONGEST_SECONDS: Final = 100_000_000.0  # no lock can be waited for longer than about this
_SHORTEST_PAUSE_SECONDS: Final = 0.001
_LONGEST_PAUSE_SECONDS: Final = 0.01

Thing = TypeVar("Thing")


class AtomicCounter:
    """Counts without a lock, with `itertools.count`, whose `next` is one indivisible step.

    Its representation, `count(7)`, tells the number and takes no step.
    """

    __slots__ = ("_steps", "increment")

    def __init__(self) -> None:
        self._steps = itertools.count()
        self.increment = self._steps.__next__

    def value(self) -> int:
        """How often `increment` has been called."""
        return int(repr(self._steps)[len("count(") : -len(")")])


class ReentrantEvent:
    """An event that is set once and stays set.

    Each waiting thread has a lock of its own, and the list of these locks changes by single steps.
    """

    __slots__ = ("_is_set", "_waiting")

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: list[Lock] = []

    def is_set(self) -> bool:
        """Whether `set` has been called."""
        return self._is_set

    def set(self) -> None:
        """Wake all threads that wait, and let later ones pass."""
        self._is_set = True
        self._wake_all()

    def _wake_all(self) -> None:
        while self._is_set and self._waiting:
            try:
                lock = self._waiting.pop()
            except IndexError:
                return  # another thread was faster
            lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, `timeout` seconds at most.

        Returns:
            Whether it is set.
        """
        sleep = None if self._is_set else green_sleep()
        if sleep is not None:
            self._wait_green(sleep, timeout)
        elif not self._is_set:
            lock = Lock()
            lock.acquire()
            self._waiting.append(lock)
            self._wake_all()  # `set` may have run before it could see the lock
            lock.acquire(timeout=-1 if timeout is None else min(max(0.0, timeout), _LONGEST_SECONDS))
        return self._is_set

    def _wait_green(self, sleep: Callable[[float], object], timeout: float | None) -> None:
        """Poll: a green thread that waits for a lock stops all other green threads, and their hub."""
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        pause = _SHORTEST_PAUSE_SECONDS
        while not self._is_set and (left := deadline - time.monotonic()) > 0:
            sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


@contextlib.contextmanager
def released(lock: RLock) -> Iterator[None]:
    """Release a reentrant lock for the block, however often this thread holds it.

    A signal handler that waits for another thread needs this: it may have interrupted its own thread where that
    holds the lock that the other thread needs.
    """
    depth = 0
    try:
        while True:
            lock.release()
            depth += 1
    except RuntimeError:  # this thread does not hold it (any more)
        pass
    try:
        yield
    finally:
        for _ in range(depth):
            lock.acquire()


class WeakRegistry(Generic[Thing]):
    """Weak references in the order of registration. Any thread may add or list at any time.

    Every change and every copy is a single step. A `WeakSet` raises when another thread, or a destructor, changes it
    during iteration.
    """

    def __init__(self) -> None:
        self._references: dict[weakref.ref[Thing], None] = {}

    def add(self, thing: Thing) -> None:
        """Remember `thing` for as long as it lives."""
        self._references[weakref.ref(thing, self._forget)] = None

    def living(self) -> list[Thing]:
        """The things that are still alive."""
        return [thing for reference in list(self._references) if (thing := reference()) is not None]

    def _forget(self, reference: weakref.ref[Thing]) -> None:
        self._references.pop(reference, None)
