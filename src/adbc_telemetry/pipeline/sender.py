"""The sender: the few threads that all clients of this process share.

One dispatcher decides who sends next; up to seven workers send. The dispatcher alone owns the schedule, so that
the schedule needs no lock, and it never does I/O, so that no endpoint can hold it up. Everybody talks to it
through a `SimpleQueue`, whose `put` is reentrant: it may be called from a destructor or a signal handler.

While others wait for a worker, an export may hold one for its time slice alone; then it is interrupted. What cannot
be interrupted (an `auth` that hangs, a foreign exporter) has its worker given up, and another takes its place.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Final

from adbc_telemetry.core.fork import renew_in_child
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.native import Empty, RLock, SimpleQueue
from adbc_telemetry.core.threads import DaemonThread
from adbc_telemetry.core.uwsgi import prefork
from adbc_telemetry.pipeline.scheduler import PROMPT_SECONDS, Schedule, Sendable, time_slice

MAX_WORKERS: Final = 7
MAX_LOST_WORKERS: Final = 7
"""Workers that were given up and replaced, at the most: only code that is not ours can hold on to them."""

# How long an interrupted export may take to let go of its worker.
_LETTING_GO_SECONDS: Final = 1.0
# How often, while somebody waits for a worker, those who hold one are looked at.
_LOOK_SECONDS: Final = 0.02


class _Worker:
    """A thread that sends, and what it is at. Written by the worker itself, but for `lost`; read by the dispatcher."""

    def __init__(self, name: str, jobs: SimpleQueue[Callable[[_Worker], object] | None]) -> None:
        self._jobs = jobs
        self.client: Sendable | None = None  # whom it sends for
        self.degraded = False
        self.since = 0.0
        self.lost = False
        self.thread = DaemonThread(self._work, name)

    def send(self, client: Sendable, send_batch: Callable[[], object], degraded: bool) -> None:
        self.since = time.monotonic()
        self.degraded = degraded
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
    """One dispatcher and its workers: from the first client to the last."""

    def __init__(self) -> None:
        self._mailbox: SimpleQueue[Callable[[Schedule], None] | None] = SimpleQueue()
        self._jobs: SimpleQueue[Callable[[_Worker], object] | None] = SimpleQueue()
        self._workers: list[_Worker] = []
        self._dispatcher = DaemonThread(self._dispatch, "adbc-telemetry-dispatcher")
        # One worker is there from the start: Python 3.12 starts no thread any more once the interpreter ends.
        self._add_workers(1)

    def wake(self, client: Sendable) -> None:
        """Ask `client` when it wants to send. Reentrant, never blocks."""
        self._mailbox.put(lambda schedule: schedule.examine(client))

    def run_soon(self, job: Callable[[], object]) -> None:
        """Run `job` in a worker. Reentrant, never blocks."""
        self._mailbox.put(lambda schedule: schedule.run_task(job))

    def stop(self, deadline: float) -> None:
        """End all threads, and wait for them until `deadline` (`time.monotonic()`)."""
        self._mailbox.put(None)
        self._dispatcher.join(deadline)
        for worker in self._workers:  # of which there are no more once the dispatcher has ended
            worker.thread.join(deadline)

    def _dispatch(self) -> None:
        schedule = Schedule(self._give_to_worker)
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
            self._add_workers(schedule.jobs)
            self._take_workers_back(schedule)
        for _ in self._workers:
            self._jobs.put(None)

    def _seconds_to_next(self, schedule: Schedule) -> float | None:
        seconds = schedule.seconds_to_next()
        if self._jobs.empty() and not schedule.has_waiting:
            return seconds
        return _LOOK_SECONDS if seconds is None else min(seconds, _LOOK_SECONDS)

    def _give_to_worker(self, client: Sendable | None, job: Callable[[], object]) -> None:
        job = _safe_job(job)
        degraded = client is not None and client.is_degraded

        def run(worker: _Worker) -> None:
            try:
                run_all(worker)
            finally:
                self._mailbox.put(lambda schedule: schedule.finished(client))

        def run_all(worker: _Worker) -> None:
            if client is None:
                job()
                return
            worker.send(client, job, degraded)
            # The worker goes on with its client's next batch by itself, unless another waits for a worker: a way by
            # the dispatcher would cost two changes of thread a batch, which a busy program makes slow.
            while self._jobs.empty() and not client.is_degraded and _is_due(client):
                worker.send(client, job, degraded=False)

        self._jobs.put(run)

    def _add_workers(self, jobs: int) -> None:
        """One worker a job, up to the limit. With no thread to be had, jobs wait for the next message's try."""
        able = sum(not worker.lost for worker in self._workers)
        with contextlib.suppress(RuntimeError):
            while able < min(jobs, MAX_WORKERS):
                self._workers.append(_Worker(f"adbc-telemetry-sender-{len(self._workers) + 1}", self._jobs))
                able += 1

    def _take_workers_back(self, schedule: Schedule) -> None:
        """Interrupt those who have held a worker for their time slice while others wait."""
        waiting = self._jobs.qsize()
        if not (waiting or schedule.has_waiting):
            return
        self._workers = [worker for worker in self._workers if not worker.lost or worker.thread.is_alive]
        now = time.monotonic()
        for worker in self._workers:
            client, since = worker.client, worker.since
            if client is None or worker.lost:
                continue
            # Should the worker have gone on to another batch by now, that one is put back: no harm done.
            if worker.degraded:
                if schedule.has_waiting and now - since > PROMPT_SECONDS:
                    client.preempt(long_waits_only=True)
            elif waiting:
                over = now - since - time_slice(client, waiting, MAX_WORKERS)
                if over > 0:
                    client.preempt(long_waits_only=False)
                if over > _LETTING_GO_SECONDS:
                    worker.lost = sum(worker.lost for worker in self._workers) < MAX_LOST_WORKERS


def _not_due(error: Exception, client: Sendable) -> bool:
    return False


@never_raises(_not_due)
def _is_due(client: Sendable) -> bool:
    at = client.next_send(time.monotonic())
    return at is not None and at <= time.monotonic()


def _safe_job(job: Callable[[], object]) -> Callable[[], object]:
    """A worker outlives its jobs: in a thread of ours even a SystemExit or CancelledError (of somebody's `auth`, say)
    ends nothing, and is told to nobody's excepthook."""

    def run() -> None:
        with contextlib.suppress(BaseException):  # an Exception has been dealt with by then
            _run_safely(job)

    return run


@never_raises(lambda error, job: None)
def _run_safely(job: Callable[[], object]) -> None:
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
