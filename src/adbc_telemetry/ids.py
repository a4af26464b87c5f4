"""Ids of events and statements: valid version 4 UUIDs, without `uuid.uuid4`'s system call for each.

All but the last 48 bits are random for the process; those count from a random start. Randomness comes from
the system and not from `random`, whose sequence (and seed) belongs to the host program.
"""

from __future__ import annotations

import itertools
import os

from adbc_telemetry.forking import renew_in_child


class _IdSource:
    __slots__ = ("__weakref__", "_next", "_prefix")

    def __init__(self) -> None:
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        # A child that went on counting from its parent's state would repeat the parent's ids.
        random = int.from_bytes(os.urandom(16), "big")
        head, middle, variant = random & 0xFFFFFFFF, random >> 32 & 0xFFFF, random >> 48 & 0xFFF
        tail = 0x8000 | random >> 60 & 0x3FFF
        self._prefix = f"{head:08x}-{middle:04x}-4{variant:03x}-{tail:04x}-%012x"
        # Starts below 2**47, so that a process would need 2**47 ids to leave the twelve digits.
        self._next = itertools.count(random >> 80 & 0x7FFFFFFFFFFF).__next__

    def new_id(self) -> str:
        return self._prefix % self._next()


_source = _IdSource()
new_id = _source.new_id
