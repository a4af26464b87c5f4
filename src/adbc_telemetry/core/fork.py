"""What a forked child recreates: locks that other threads may hold, threads that it does not have, its ids.

What cannot be made new is kept whole: a fork waits while one of our threads is inside the fork gate.
"""

from __future__ import annotations

import contextlib
import logging  # noqa: F401 - see the end of this module
import os
import time
from collections.abc import Iterator
from typing import Final, Protocol

from adbc_telemetry.core.native import Lock, RLock
from adbc_telemetry.core.reentrant import WeakRegistry

# A fork waits so long for one of our imports. Only an import that waits for the forking thread takes longer.
_IMPORT_SECONDS: Final = 2.0
# A fork waits so long for a call that is brief unless it hangs, such as a name look-up.
_BRIEF_SECONDS: Final = 0.05


class _Forked(Protocol):
    def after_fork_in_child(self) -> None:
        """Reset to the state that a new process would have. Runs in the child, which has one thread by then."""
        ...


# In the order of registration, so that what others build upon is renewed before them.
_registered: WeakRegistry[_Forked] = WeakRegistry()


def renew_in_child(thing: _Forked) -> None:
    """Have `thing.after_fork_in_child()` called in every forked child, for as long as `thing` lives."""
    _registered.add(thing)


class ForkGate:
    """A fork waits while one of our threads is inside.

    A child inherits every lock as it is at the fork. The lock of a module that a thread of the parent is importing,
    or one inside the C library, would stay locked in the child for ever: the thread that holds it is not there.
    So our threads import in the gate, and make every call in it that takes such a lock.
    """

    def __init__(self) -> None:
        self.after_fork_in_child()
        self._held_for_fork = False

    def after_fork_in_child(self) -> None:
        """No thread of the child is inside."""
        self._lock = RLock()  # held while something is imported; guards _brief
        self._brief: dict[Lock, None] = {}  # a lock for each that is inside briefly

    def __enter__(self) -> None:
        """Import something."""
        self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()

    @contextlib.contextmanager
    def briefly(self) -> Iterator[None]:
        """Call what may hang after all: a fork waits a moment only, and several threads may be inside."""
        lock = Lock()
        lock.acquire()
        inside = self._brief
        with self._lock:
            inside[lock] = None
        try:
            yield
        finally:
            inside.pop(lock, None)
            lock.release()

    def before_fork(self) -> None:
        """Wait until no thread is inside, and let none in until the fork is over."""
        self._held_for_fork = self._lock.acquire(timeout=_IMPORT_SECONDS)
        deadline = time.monotonic() + _BRIEF_SECONDS
        for lock in list(self._brief):
            if lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                lock.release()

    def after_fork_in_parent(self) -> None:
        """The fork is over."""
        if self._held_for_fork:
            self._lock.release()


fork_gate: Final = ForkGate()


_renewed_in = os.getpid()


def renew_if_forked() -> None:
    """Renew everything, if this is a forked child that has not done so.

    `core.uwsgi` calls it, too: uWSGI forks without Python's hooks.
    """
    global _renewed_in
    if _renewed_in == os.getpid():
        return
    _renewed_in = os.getpid()
    fork_gate.after_fork_in_child()
    for thing in _registered.living():
        thing.after_fork_in_child()


# Hooks before a fork run in reverse order. `logging` is imported above, so that its hook, which takes its lock, comes
# after ours: an import that ours waits for may need that lock.
if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(
        before=fork_gate.before_fork,
        after_in_parent=fork_gate.after_fork_in_parent,
        after_in_child=renew_if_forked,
    )
