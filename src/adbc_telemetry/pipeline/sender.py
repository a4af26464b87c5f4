"""The sender: the few threads that all clients of this process share.

One dispatcher decides who sends next; up to seven lanes send. The dispatcher alone owns the schedule, so that
the schedule needs no lock, and it never does I/O, so that no endpoint can hold it up. Everybody talks to it
through a `SimpleQueue`, whose `put` is reentrant: it may be called from a destructor or a signal handler.

While others wait for a lane, an export may hold one for its time slice alone; then it is interrupted. What cannot
be interrupted (an `auth` that hangs, a foreign exporter) has its lane given up, and another takes its place.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Final

from adbc_telemetry.core.fork import renew_in_child
from adbc_telemetry.core.guard import contained
from adbc_telemetry.core.native import Empty, RLock, SimpleQueue
from adbc_telemetry.core.threads import WorkerThread
from adbc_telemetry.core.uwsgi import prefork
from adbc_telemetry.pipeline.scheduler import PROMPT_SECONDS, Schedule, Sendable, time_slice

MAX_LANES: Final = 7
MAX_LOST_LANES: Final = 7
"""Lanes that were given up and replaced, at the most: only code that is not ours can hold on to them."""

# How long an interrupted export may take to let go of its lane.
_LETTING_GO_SECONDS: Final = 1.0
# How often, while somebody waits for a lane, those who hold one are looked at.
_LOOK_SECONDS: Final = 0.02


class _Lane:
    """A thread that sends, and what it is at. Written by the lane itself, but for `lost`; read by the dispatcher."""

    def __init__(self, name: str, jobs: SimpleQueue[Callable[[_Lane], object] | None]) -> None:
        self._jobs = jobs
        self.client: Sendable | None = None  # whom it sends for
        self.suspect = False
        self.since = 0.0
        self.lost = False
        self.thread = WorkerThread(self._work, name)

    def send(self, client: Sendable, send_batch: Callable[[], object], suspect: bool) -> None:
        self.since = time.monotonic()
        self.suspect = suspect
        self.client = client
        try:
            send_batch()
        finally:
            self.client = None

    def _work(self) -> None:
        while not self.lost:
            job = self._jobs.get()
            if job is None:
                return
            job(self)
            del job  # which holds on to its client


class SenderThreads:
    """One dispatcher and its lanes: from the first client to the last."""

    def __init__(self) -> None:
        self._mailbox: SimpleQueue[Callable[[Schedule], None] | None] = SimpleQueue()
        self._jobs: SimpleQueue[Callable[[_Lane], object] | None] = SimpleQueue()
        self._lanes: list[_Lane] = []
        self._dispatcher = WorkerThread(self._dispatch, "adbc-telemetry-dispatcher")
        # One lane is there from the start: Python 3.12 starts no thread any more once the interpreter ends.
        self._add_lanes(1)

    def wake(self, client: Sendable) -> None:
        """Ask `client` when it wants to send. Reentrant, never blocks."""
        self._mailbox.put(lambda schedule: schedule.examine(client))

    def run_soon(self, job: Callable[[], object]) -> None:
        """Run `job` in a lane. Reentrant, never blocks."""
        self._mailbox.put(lambda schedule: schedule.run_errand(job))

    def stop(self, deadline: float) -> None:
        """End all threads, and wait for them until `deadline` (`time.monotonic()`)."""
        self._mailbox.put(None)
        self._dispatcher.join(deadline)
        for lane in self._lanes:  # of which there are no more once the dispatcher has ended
            lane.thread.join(deadline)

    def _dispatch(self) -> None:
        schedule = Schedule(self._give_to_lane)
        while True:
            try:
                message = self._mailbox.get(timeout=self._seconds_to_next(schedule))
            except Empty:
                pass
            else:
                if message is None:
                    break
                message(schedule)
                del message  # which holds on to its client
            schedule.start_due()
            self._add_lanes(schedule.jobs)
            self._take_lanes_back(schedule)
        for _ in self._lanes:
            self._jobs.put(None)

    def _seconds_to_next(self, schedule: Schedule) -> float | None:
        seconds = schedule.seconds_to_next()
        if self._jobs.empty() and not schedule.has_parked:
            return seconds
        return _LOOK_SECONDS if seconds is None else min(seconds, _LOOK_SECONDS)

    def _give_to_lane(self, client: Sendable | None, job: Callable[[], object]) -> None:
        job = _contained_job(job)
        suspect = client is not None and client.is_suspect

        def run(lane: _Lane) -> None:
            try:
                run_all(lane)
            finally:
                self._mailbox.put(lambda schedule: schedule.finished(client))

        def run_all(lane: _Lane) -> None:
            if client is None:
                job()
                return
            lane.send(client, job, suspect)
            # The lane goes on with its client's next batch by itself, unless another waits for a lane: a way by
            # the dispatcher would cost two changes of thread a batch, which a busy program makes slow.
            while self._jobs.empty() and not client.is_suspect and _is_due(client):
                lane.send(client, job, suspect=False)

        self._jobs.put(run)

    def _add_lanes(self, jobs: int) -> None:
        """One lane a job, up to the limit. With no thread to be had, jobs wait for the next message's try."""
        able = sum(not lane.lost for lane in self._lanes)
        with contextlib.suppress(RuntimeError):
            while able < min(jobs, MAX_LANES):
                self._lanes.append(_Lane(f"adbc-telemetry-sender-{len(self._lanes) + 1}", self._jobs))
                able += 1

    def _take_lanes_back(self, schedule: Schedule) -> None:
        """Interrupt those who have held a lane for their time slice while others wait."""
        waiting = self._jobs.qsize()
        if not (waiting or schedule.has_parked):
            return
        self._lanes = [lane for lane in self._lanes if not lane.lost or lane.thread.is_alive]
        now = time.monotonic()
        for lane in self._lanes:
            client, since = lane.client, lane.since
            if client is None or lane.lost:
                continue
            # Should the lane have gone on to another batch by now, that one is put back: no harm done.
            if lane.suspect:
                if schedule.has_parked and now - since > PROMPT_SECONDS:
                    client.interrupt(long_waits_only=True)
            elif waiting:
                over = now - since - time_slice(client, waiting, MAX_LANES)
                if over > 0:
                    client.interrupt(long_waits_only=False)
                if over > _LETTING_GO_SECONDS:
                    lane.lost = sum(lane.lost for lane in self._lanes) < MAX_LOST_LANES


def _not_due(error: Exception, client: Sendable) -> bool:
    return False


@contained(_not_due)
def _is_due(client: Sendable) -> bool:
    at = client.next_send(time.monotonic())
    return at is not None and at <= time.monotonic()


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
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """The child has no thread of the parent's. Its clients, renewed after this, attach again."""
        # Guards both fields; reentrant, and they change by single steps, for the sake of signal handlers.
        self._lock = RLock()
        self._threads = None
        self._users: set[object] = set()

    def attach(self, user: object) -> SenderThreads:
        """The threads, which run until the last user has detached."""
        if not prefork.threads_may_start():
            raise RuntimeError("uWSGI is about to fork this process")
        with self._lock:
            self._users.add(user)
            try:
                made = None if self._threads is not None else SenderThreads()
            except RuntimeError:  # there is no thread to be had
                self._users.discard(user)
                raise
            # A signal handler may have attached while these were made.
            threads = self._threads = self._threads or made or SenderThreads()
        if made is not None and made is not threads:
            made.stop(time.monotonic())
        return threads

    def detach(self, user: object, threads: SenderThreads, deadline: float) -> None:
        """One user less; the last one waits for the threads to end, until `deadline`."""
        with self._lock:
            if threads is not self._threads:
                return  # attached before a fork
            self._users.discard(user)
            if self._users:
                return
            self._threads = None
        threads.stop(deadline)


sender = Sender()
