"""What a forked child has to make new: locks that other threads may hold, threads that it has not, its ids."""

from __future__ import annotations

import os
import threading
from typing import Final, Protocol

from adbc_telemetry.registry import WeakRegistry

# A fork waits so long for an import of ours to end; only an import that waits for the forking thread takes longer.
_IMPORT_SECONDS: Final = 2.0


class _Forked(Protocol):
    def after_fork_in_child(self) -> None:
        """Become what a new process would have made. Runs in the child, which has one thread by then."""
        ...


# In the order of registration, so that what others build upon is renewed before them.
_registered: WeakRegistry[_Forked] = WeakRegistry()


def renew_in_child(thing: _Forked) -> None:
    """Have `thing.after_fork_in_child()` called in every forked child, for as long as `thing` lives."""
    _registered.add(thing)


class _Importing:
    """Held while a thread of ours imports something; a fork waits for it.

    A child would inherit the lock of a module whose import was under way, held by a thread that it does not have,
    and could never import that module.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._held_for_fork = False

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()

    def before_fork(self) -> None:
        held = self._lock.acquire(timeout=_IMPORT_SECONDS)
        self._held_for_fork = held

    def after_fork_in_parent(self) -> None:
        if self._held_for_fork:
            self._lock.release()

    def after_fork_in_child(self) -> None:
        self._lock = threading.RLock()


importing: Final = _Importing()


_renewed_in = os.getpid()


def renew_if_forked() -> None:
    """Renew everything, if this is a forked child that has not done so: some forks run no hooks of Python's."""
    global _renewed_in
    if _renewed_in == os.getpid():
        return
    _renewed_in = os.getpid()
    importing.after_fork_in_child()
    for thing in _registered.living():
        thing.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(
        before=importing.before_fork,
        after_in_parent=importing.after_fork_in_parent,
        after_in_child=renew_if_forked,
    )
