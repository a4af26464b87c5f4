"""Ids of events and statements: valid version 4 UUIDs, without `uuid.uuid4`'s system call for each.

All but the last twelve digits are random for the process; those count from a random start, in decimal, which costs
half of what hexadecimal does. Randomness comes from the system and not from `random`, whose sequence (and seed)
belongs to the host program.
"""

from __future__ import annotations

import itertools
import os

from adbc_telemetry.core.fork import renew_in_child


class _IdSource:
    __slots__ = ("__weakref__", "_prefix")

    def __init__(self) -> None:
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        # With its parent's prefix, a child that counts on from its parent's state would repeat the parent's ids.
        random = int.from_bytes(os.urandom(10), "big")
        head, middle, variant = random & 0xFFFFFFFF, random >> 32 & 0xFFFF, random >> 48 & 0xFFF
        tail = 0x8000 | random >> 60 & 0x3FFF
        self._prefix = f"{head:08x}-{middle:04x}-4{variant:03x}-{tail:04x}-"

    def id_of(self, number: int) -> str:
        return f"{self._prefix}{number}"


_source, _event_source = _IdSource(), _IdSource()

# Of twelve digits from the start, and for the next half a trillion.
next_number = itertools.count(10**11 + int.from_bytes(os.urandom(8), "big") % (4 * 10**11)).__next__
"""A number that no other call returns. It is the cheap half of an id; `id_of` makes the id of it."""

id_of = _source.id_of
"""The id of a number."""

event_id_of = _event_source.id_of
"""Another id of the same number: an event's, where `id_of` is that of its statement."""


def new_id() -> str:
    """The id of the next number."""
    return id_of(next_number())
