"""The sender: the few threads that all clients of this process share.

One dispatcher decides who sends next; up to seven lanes send. The dispatcher alone owns the schedule, so that
the schedule needs no lock, and it never does I/O, so that no endpoint can hold it up. Everybody talks to it
through a `SimpleQueue`, whose `put` is reentrant: it may be called from a destructor or a signal handler.

A client is in one of four places: idle (nowhere), due at a time, parked (a suspect, for want of a lane), or busy
(in a lane, or about to be).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, Protocol

from adbc_telemetry.forking import renew_in_child
from adbc_telemetry.guard import contained

MAX_LANES: Final = 7
MAX_SUSPECT_LANES: Final = 4
"""Lanes that clients whose last export failed may hold: however many hosts are dead, the others have the rest."""


class Sendable(Protocol):
    """What the sender knows of a client."""

    def next_send(self, now: float) -> float | None:
        """When to call `send_batch` (at once, if not after `now`), or None while there is nothing to send."""
        ...

    @property
    def is_suspect(self) -> bool:
        """Whether its last export failed, so that the next may well take its whole timeout."""
        ...

    def send_batch(self) -> None:
        """Send one batch. Called by one lane at a time."""
        ...


class SenderThreads:
    """One dispatcher and its lanes: from the first client to the last."""

    def __init__(self) -> None:
        self._mailbox: SimpleQueue[Callable[[_Schedule], None] | None] = SimpleQueue()
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._dispatcher = threading.Thread(
            target=self._dispatch, name="adbc-telemetry-dispatcher", daemon=True
        )
        self._lanes: list[threading.Thread] = []
        self._dispatcher.start()

    def wake(self, client: Sendable) -> None:
        """Ask `client` when it wants to send. Reentrant, never blocks."""
        self._mailbox.put(lambda schedule: schedule.examine(client))

    def run_soon(self, job: Callable[[], object]) -> None:
        """Run `job` in a lane. Reentrant, never blocks."""
        self._mailbox.put(lambda schedule: schedule.start(None, job))

    def stop(self, deadline: float) -> None:
        """End all threads, and wait for them until `deadline` (`time.monotonic()`)."""
        self._mailbox.put(None)
        _join(self._dispatcher, deadline)
        for lane in self._lanes:  # of which there are no more once the dispatcher has ended
            _join(lane, deadline)

    def _dispatch(self) -> None:
        schedule = _Schedule(self._give_to_lane)
        while True:
            try:
                message = self._mailbox.get(timeout=schedule.seconds_to_next())
            except Empty:
                pass
            else:
                if message is None:
                    break
                message(schedule)
            schedule.start_due()
            self._add_lanes(schedule.jobs)
        for _ in self._lanes:
            self._jobs.put(None)

    def _give_to_lane(self, client: Sendable | None, job: Callable[[], object]) -> None:
        def run() -> None:
            try:
                run_all()
            finally:
                self._mailbox.put(lambda schedule: schedule.finished(client))

        def run_all() -> None:
            job()
            # The lane goes on with its client's next batch by itself, unless another waits for a lane: a way by
            # the dispatcher would cost two changes of thread a batch, which a busy program makes slow.
            while client is not None and self._jobs.empty() and not client.is_suspect and _is_due(client):
                job()

        self._jobs.put(run)

    def _add_lanes(self, jobs: int) -> None:
        """One lane a job, up to the limit. With no thread to be had, jobs wait for the next message's try."""
        with contextlib.suppress(RuntimeError):
            while len(self._lanes) < min(jobs, MAX_LANES):
                name = f"adbc-telemetry-sender-{len(self._lanes) + 1}"
                lane = threading.Thread(target=self._send, name=name, daemon=True)
                lane.start()
                self._lanes.append(lane)

    def _send(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def _join(thread: threading.Thread, deadline: float) -> None:
    if thread is not threading.current_thread():
        thread.join(max(0.0, deadline - time.monotonic()))


def _not_due(error: Exception, client: Sendable) -> bool:
    return False


@contained(_not_due)
def _is_due(client: Sendable) -> bool:
    at = client.next_send(time.monotonic())
    return at is not None and at <= time.monotonic()


class _Schedule:
    """Who is due when, and who is busy. Belongs to the dispatcher."""

    def __init__(self, give_to_lane: Callable[[Sendable | None, Callable[[], object]], None]) -> None:
        self._give_to_lane = give_to_lane
        self._due: dict[Sendable, float] = {}
        self._busy: set[Sendable] = set()
        self._busy_suspects: set[Sendable] = set()
        # Suspects that wait for one of their lanes, first come first served.
        self._parked: dict[Sendable, None] = {}
        self.jobs = 0  # given to lanes and not finished

    def seconds_to_next(self) -> float | None:
        if not self._due:
            return None
        return max(0.0, min(self._due.values()) - time.monotonic())

    def examine(self, client: Sendable) -> None:
        if client in self._busy:
            return  # it is examined when its lane is free
        now = time.monotonic()
        at = client.next_send(now)
        self._due.pop(client, None)
        self._parked.pop(client, None)
        if at is None:
            return
        if at > now:
            self._due[client] = at
            return
        if client.is_suspect:
            if len(self._busy_suspects) >= MAX_SUSPECT_LANES:
                self._parked[client] = None
                return
            self._busy_suspects.add(client)
        self._busy.add(client)
        self.start(client, client.send_batch)

    def start_due(self) -> None:
        now = time.monotonic()
        for client in [client for client, at in self._due.items() if at <= now]:
            self.examine(client)

    def start(self, client: Sendable | None, job: Callable[[], object]) -> None:
        self.jobs += 1
        self._give_to_lane(client, _contained_job(job))

    def finished(self, client: Sendable | None) -> None:
        self.jobs -= 1
        if client is not None:
            self._busy.discard(client)
            self._busy_suspects.discard(client)
            for parked in list(self._parked):  # before the one that has just had its turn
                if len(self._busy_suspects) >= MAX_SUSPECT_LANES:
                    break
                self.examine(parked)
            self.examine(client)


def _contained_job(job: Callable[[], object]) -> Callable[[], object]:
    """A lane outlives its jobs: in a thread of ours even a SystemExit or CancelledError (of somebody's `auth`, say)
    ends nothing, and is told to nobody's excepthook."""

    def run() -> None:
        with contextlib.suppress(BaseException):  # an Exception has been dealt with by then
            _run_contained(job)

    return run


@contained(lambda error, job: None)
def _run_contained(job: Callable[[], object]) -> None:
    job()


class Sender:
    """Starts the threads with the first client and ends them with the last."""

    def __init__(self) -> None:
        self._threads: SenderThreads | None = None
        self._users = 0
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """The child has no thread of the parent's. Its clients, renewed after this, attach again."""
        self._lock = threading.Lock()  # guards _threads and _users
        self._threads = None
        self._users = 0

    def attach(self) -> SenderThreads:
        """The threads for one more client."""
        with self._lock:
            if self._threads is None:
                self._threads = SenderThreads()
            self._users += 1
            return self._threads

    def detach(self, threads: SenderThreads, deadline: float) -> None:
        """One client less; the last one waits for the threads to end, until `deadline`."""
        with self._lock:
            if threads is not self._threads:
                return  # attached before a fork
            self._users -= 1
            if self._users:
                return
            self._threads = None
        threads.stop(deadline)


sender = Sender()
