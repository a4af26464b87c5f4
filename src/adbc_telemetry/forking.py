"""What a forked child has to make new: locks that other threads may hold, threads that it has not, its ids."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class _Forked(Protocol):
    def after_fork_in_child(self) -> None:
        """Become what a new process would have made. Runs in the child, which has one thread by then."""
        ...


# In the order of registration, so that what others build upon is renewed before them.
_registered: dict[weakref.ref[_Forked], None] = {}


def renew_in_child(thing: _Forked) -> None:
    """Have `thing.after_fork_in_child()` called in every forked child, for as long as `thing` lives."""
    _registered[weakref.ref(thing, lambda reference: _registered.pop(reference, None))] = None


def _renew_all() -> None:
    for reference in list(_registered):
        thing = reference()
        if thing is not None:
            thing.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_renew_all)
