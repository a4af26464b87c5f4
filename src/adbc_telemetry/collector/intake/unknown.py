"""Counts what the schema does not know, by name, within bounds that a sender cannot move."""

from __future__ import annotations

from typing import Final

MAX_NAMES: Final = 200
"""Different names that are counted apart."""
MAX_NAME: Final = 100
"""Characters of a name that came with a log."""
OTHER: Final = "(other)"
"""Counts the names that look like none, and those beyond `MAX_NAMES`."""


class UnknownNames:
    """Counts by name: `path.of.field`, or `path.of.field=NAME` for a value."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def add_field(self, parent: str, name: str) -> None:
        """Count a field of the message at the path `parent`, which is empty for the log itself."""
        self._add((f"{parent}.{name}" if parent else name) if _looks_like_a_name(name) else OTHER)

    def add_value(self, path: str, name: str | int) -> None:
        """Count a value of the field at `path`."""
        sound = isinstance(name, int) or _looks_like_a_name(name)
        self._add(f"{path}={name}" if sound else OTHER)

    def merge(self, others: UnknownNames) -> None:
        """Add the counts of `others`."""
        for name, times in others.counts.items():
            self._add(name, times)

    def _add(self, name: str, times: int = 1) -> None:
        if name not in self.counts and len(self.counts) >= MAX_NAMES:
            name = OTHER
        self.counts[name] = self.counts.get(name, 0) + times


def _looks_like_a_name(name: str) -> bool:
    return len(name) <= MAX_NAME and name.isascii() and name.isidentifier()
