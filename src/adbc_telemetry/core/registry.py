"""Who is alive: things that are to be told something, as long as anybody else has them."""

from __future__ import annotations

import weakref
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class WeakRegistry(Generic[Thing]):
    """Weak references in the order of their coming. Changed and copied by single steps, so from any thread.

    A `WeakSet` cannot be looked through while another thread, or a destructor, changes it.
    """

    def __init__(self) -> None:
        self._references: dict[weakref.ref[Thing], None] = {}

    def add(self, thing: Thing) -> None:
        """Remember `thing` for as long as it lives."""
        self._references[weakref.ref(thing, self._forget)] = None

    def living(self) -> list[Thing]:
        """Those that live."""
        return [thing for reference in list(self._references) if (thing := reference()) is not None]

    def _forget(self, reference: weakref.ref[Thing]) -> None:
        self._references.pop(reference, None)
