"""Where accepted events go: a folder, or Kafka. The intake, the limits and the answers before it are the same.

A destination answers one question about each request: are its events durable? `add` returns when all of them are, and
raises `NotDurableError` when one of them may not be. Then the sender keeps them and tries again. An event whose fate
was not known may so arrive twice; the destination, or what stands behind it, keeps it once, by its id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec


class DestinationError(Exception):
    """A destination cannot be used. The message says why, and what to do."""


class NotDurableError(Exception):
    """The events are not durable. Their sender keeps them and tries again."""


class AcceptedLog(Protocol):
    """A log that the intake has accepted."""

    @property
    def event_id(self) -> str:
        """At most 128 characters."""

    @property
    def text(self) -> str:
        """JSON, as it came."""

    @property
    def canonical(self) -> bytes | None:
        """JSON in the wire's own form, if `text` is in another."""


class Added(NamedTuple):
    """What became of the events of one request; all of them are durable."""

    new: int
    duplicates: int


class Gauge(NamedTuple):
    """One figure for `/metrics`."""

    name: str
    text: str
    value: float


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How a destination is doing. Counts are since the start."""

    problems: list[str]
    """A sentence each; empty if all is well."""
    events: int = 0
    """Made durable."""
    duplicates: int = 0
    """Left out, because they were known."""
    failed_requests: int = 0
    newest_commit_age_seconds: float | None = None

    def gauges(self) -> list[Gauge]:
        """The figures of this kind of destination."""
        return []

    def details(self) -> dict[str, object]:
        """What `/healthz` says beside the problems."""
        return {}


class Destination(Protocol):
    """Where accepted events go. All methods are called on one event loop, and none of them blocks it."""

    @property
    def place(self) -> str:
        """The folder or the address, to be shown."""

    @property
    def largest_log(self) -> int | None:
        """Bytes of the largest log that it takes; None if it takes all that the intake accepts."""

    async def start(self) -> None:
        """Open it.

        Raises:
            DestinationError: it cannot be used.
        """

    async def add(self, logs: Sequence[AcceptedLog], array: bytes | None = None) -> Added:
        """Make the events of one request durable.

        Args:
            logs: the events.
            array: the texts of all of them as a JSON array on one line, if there is one.

        Raises:
            NotDurableError: at least one of them may not be durable.
        """

    async def stop(self, timeout: float) -> None:
        """Take no more events, finish what is under way within `timeout` seconds, and close. Idempotent."""

    def health(self) -> Health:
        """How it is doing now."""
