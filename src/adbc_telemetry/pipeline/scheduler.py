"""The schedule: which client sends when, and in which order those who are due get a worker.

A client is in one of four places: idle (nowhere), due at a time, waiting (a degraded, for want of a worker), or busy
(in a worker, or about to be). No thread and no I/O is in here: the dispatcher of `sender` runs it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

MAX_DEGRADED_WORKERS: Final = 4
"""Workers that clients whose last export failed may hold: however many hosts are dead, the others have the rest."""
MAX_TASK_WORKERS: Final = 2
"""Workers that other jobs may hold. Some of them wait for an export, which needs a worker too."""

_ROUND_SECONDS: Final = 2.0
_SHORTEST_SLICE_SECONDS: Final = 0.2
PROMPT_SECONDS: Final = 1.0
"""Longer than this nobody holds a worker that others wait for, degraded in their few workers apart."""


class Sendable(Protocol):
    """What the sender knows of a client."""

    def next_send(self, now: float) -> float | None:
        """When to call `send_batch` (at once, if not after `now`), or None while there is nothing to send."""
        ...

    @property
    def is_degraded(self) -> bool:
        """Whether the next export may well take long, since the last did not succeed promptly."""
        ...

    @property
    def usual_seconds(self) -> float:
        """How long the last export took that succeeded; 0 before the first."""
        ...

    def send_batch(self) -> None:
        """Send one batch. Called by one worker at a time."""
        ...

    def preempt(self, long_waits_only: bool) -> None:
        """Others wait for the worker: give the batch under way back, and be a degraded from now on.

        With `long_waits_only` this is asked of a degraded, for whose worker other degraded wait: it is to do so only
        while it waits for a time that the endpoint has asked for.

        Called by the dispatcher, so it must not block; may be called again, or when nothing is under way any more.
        """
        ...


def time_slice(client: Sendable, waiting: int, workers: int) -> float:
    """Seconds that a client which is no degraded may hold a worker while `waiting` others want one.

    As in a fair scheduler: a round through all that wait is to take two seconds even if each of them is a black
    hole, but nobody gets less than a healthy endpoint needs, nor less than three times what it usually needs.
    """
    fair = _ROUND_SECONDS * workers / max(1, waiting)
    return min(PROMPT_SECONDS, max(_SHORTEST_SLICE_SECONDS, fair, 3 * client.usual_seconds))


class Schedule:
    """Who is due when, and who is busy. Belongs to the dispatcher.

    Args:
        start: gives a client's next batch, or with None for a client another job, to a worker.
    """

    def __init__(self, start: Callable[[Sendable | None, Callable[[], object]], None]) -> None:
        self._start = start
        self._due: dict[Sendable, float] = {}
        self._busy: set[Sendable] = set()
        self._busy_degraded: set[Sendable] = set()
        # Suspects that wait for one of their workers, first come first served.
        self._waiting: dict[Sendable, None] = {}
        self._tasks: deque[Callable[[], object]] = deque()
        self._tasks_under_way = 0

    @property
    def has_waiting(self) -> bool:
        """Whether degraded wait for one of their workers."""
        return bool(self._waiting)

    @property
    def jobs(self) -> int:
        """Jobs that were given to workers and have not finished."""
        return len(self._busy) + self._tasks_under_way

    def seconds_to_next(self) -> float | None:
        """Until the next client is due."""
        if not self._due:
            return None
        return max(0.0, min(self._due.values()) - time.monotonic())

    def examine(self, client: Sendable) -> None:
        """Find the place for a client that may have something to send."""
        if client in self._busy:
            return  # it is examined when its worker is free
        now = time.monotonic()
        at = client.next_send(now)
        self._due.pop(client, None)
        self._waiting.pop(client, None)
        if at is None:
            return
        if at > now:
            self._due[client] = at
            return
        if client.is_degraded:
            if len(self._busy_degraded) >= MAX_DEGRADED_WORKERS:
                self._waiting[client] = None
                return
            self._busy_degraded.add(client)
        self._busy.add(client)
        self._start(client, client.send_batch)

    def start_due(self) -> None:
        """Give those whose time has come to workers."""
        now = time.monotonic()
        for client in [client for client, at in self._due.items() if at <= now]:
            self.examine(client)

    def run_task(self, task: Callable[[], object]) -> None:
        """Have another job run, after those that came before it."""
        self._tasks.append(task)
        self._start_tasks()

    def finished(self, client: Sendable | None) -> None:
        """A worker is done with a client's batch, or with an task."""
        if client is None:
            self._tasks_under_way -= 1
            self._start_tasks()
            return
        self._busy.discard(client)
        self._busy_degraded.discard(client)
        for waiting in list(self._waiting):  # before the one that has just had its turn
            if len(self._busy_degraded) >= MAX_DEGRADED_WORKERS:
                break
            self.examine(waiting)
        self.examine(client)

    def _start_tasks(self) -> None:
        while self._tasks and self._tasks_under_way < MAX_TASK_WORKERS:
            self._tasks_under_way += 1
            self._start(None, self._tasks.popleft())
