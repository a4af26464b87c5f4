"""The schedule: which client sends when, and in which order clients get a worker.

A client is always in one of four states:

    idle       has nothing to send; the schedule does not know it
    due        wants to send at a time that is still to come
    waiting    wants to send now, but is degraded, and degraded clients already hold all workers that they may hold
    busy       a worker sends for it, or is about to

`examine` asks a client when it wants to send, and moves it accordingly. `sent` ends a busy client's turn: those that
wait get its worker first. No thread and no I/O is in here: the dispatcher of `sender` runs it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol

MAX_DEGRADED_WORKERS: Final = 4
"""Workers that degraded clients may hold: however many hosts are dead, the others have the rest."""
MAX_TASK_WORKERS: Final = 2
"""Workers that tasks may hold. A task may wait for an export, which needs a worker too."""

_ROUND_SECONDS: Final = 2.0
_SHORTEST_SLICE_SECONDS: Final = 0.2
PROMPT_SECONDS: Final = 1.0
"""An export that takes longer is not prompt. While others wait, no healthy client holds a worker for longer."""


class Sendable(Protocol):
    """What the sender knows of a client."""

    def next_send(self, now: float) -> float | None:
        """When to call `send_batch` (at once, if not after `now`), or None while there is nothing to send."""
        ...

    @property
    def is_degraded(self) -> bool:
        """Whether the next export may well take long, because the last did not succeed promptly."""
        ...

    @property
    def usual_seconds(self) -> float:
        """How long the last successful export took; 0 before the first."""
        ...

    def send_batch(self) -> None:
        """Send one batch. Only one worker at a time calls it."""
        ...

    def preempt(self, long_waits_only: bool) -> None:
        """Requeue the batch under way, because others wait for the worker; the client is degraded from now on.

        The dispatcher calls it, so it must not block. It may be called again, or when no batch is under way any more.

        Args:
            long_waits_only: requeue the batch only if the export waits because the endpoint has asked for that. The
                client is degraded already, and other degraded clients wait.
        """
        ...


class ClientState(Enum):
    """Where a client is in the schedule; see the module's docstring."""

    IDLE = "idle"
    DUE = "due"
    WAITING = "waiting"
    BUSY = "busy"


def time_slice(client: Sendable, waiting: int, workers: int) -> float:
    """Seconds for which a healthy client may hold a worker while `waiting` others want one.

    As in a fair scheduler: a round through all that wait is to take two seconds, even if each of them is a black
    hole. But no client gets less than a healthy endpoint needs, nor less than three times what it usually needs.
    """
    fair = _ROUND_SECONDS * workers / max(1, waiting)
    return min(PROMPT_SECONDS, max(_SHORTEST_SLICE_SECONDS, fair, 3 * client.usual_seconds))


class Schedule:
    """Which clients are due, waiting and busy, and which tasks are to be run. Only the dispatcher touches it.

    Args:
        send: has a worker send a client's next batch; `sent` is called when that is over.
        run: has a worker run a task; `task_done` is called when that is over.
    """

    def __init__(
        self, send: Callable[[Sendable], object], run: Callable[[Callable[[], object]], object]
    ) -> None:
        self._send = send
        self._run = run
        self._due: dict[Sendable, float] = {}  # when each of them wants to send
        self._waiting: dict[Sendable, None] = {}  # first come, first served
        self._busy: dict[Sendable, bool] = {}  # whether it was degraded when it got its worker
        self._tasks: deque[Callable[[], object]] = deque()  # that wait for a worker
        self._tasks_under_way = 0

    @property
    def has_waiting(self) -> bool:
        """Whether degraded clients wait for a worker."""
        return bool(self._waiting)

    @property
    def under_way(self) -> int:
        """Clients and tasks that were given to workers and are not done."""
        return len(self._busy) + self._tasks_under_way

    def state(self, client: Sendable) -> ClientState:
        """Where `client` is."""
        if client in self._busy:
            return ClientState.BUSY
        if client in self._waiting:
            return ClientState.WAITING
        return ClientState.DUE if client in self._due else ClientState.IDLE

    def seconds_to_next(self) -> float | None:
        """Until the next client is due; None if none is."""
        if not self._due:
            return None
        return max(0.0, min(self._due.values()) - time.monotonic())

    def examine(self, client: Sendable) -> None:
        """Move a client that may have something to send."""
        if self.state(client) is ClientState.BUSY:
            return  # `sent` examines it
        now = time.monotonic()
        at = client.next_send(now)
        if at is None:
            self._move(client, ClientState.IDLE)
        elif at > now:
            self._move(client, ClientState.DUE, at)
        elif client.is_degraded and sum(self._busy.values()) >= MAX_DEGRADED_WORKERS:
            self._move(client, ClientState.WAITING)
        else:
            self._move(client, ClientState.BUSY)
            self._send(client)

    def start_due(self) -> None:
        """Examine the clients whose time has come."""
        now = time.monotonic()
        for client in [client for client, at in self._due.items() if at <= now]:
            self.examine(client)

    def sent(self, client: Sendable) -> None:
        """A worker is done with `client`."""
        self._move(client, ClientState.IDLE)
        # Before `client` itself, which has just had its turn.
        for waiting in list(self._waiting):
            if sum(self._busy.values()) >= MAX_DEGRADED_WORKERS:
                break
            self.examine(waiting)
        self.examine(client)

    def run_task(self, task: Callable[[], object]) -> None:
        """Have `task` run after those that came before it."""
        self._tasks.append(task)
        self._start_tasks()

    def task_done(self) -> None:
        """A worker is done with a task."""
        self._tasks_under_way -= 1
        self._start_tasks()

    def _start_tasks(self) -> None:
        while self._tasks and self._tasks_under_way < MAX_TASK_WORKERS:
            self._tasks_under_way += 1
            self._run(self._tasks.popleft())

    def _move(self, client: Sendable, state: ClientState, at: float = 0.0) -> None:
        """The only place that changes a client's state; `at` is the time at which a due client wants to send."""
        if state is ClientState.WAITING and self.state(client) is state:
            return  # it keeps its place in the queue, however often it is examined
        self._due.pop(client, None)
        self._waiting.pop(client, None)
        self._busy.pop(client, None)
        if state is ClientState.DUE:
            self._due[client] = at
        elif state is ClientState.WAITING:
            self._waiting[client] = None
        elif state is ClientState.BUSY:
            self._busy[client] = client.is_degraded
