"""The sender: the few threads that all clients of this process share.

One dispatcher decides who sends next, and up to seven workers send. A worker gets one assignment after the other: a
client whose batches it sends, or a task, such as a fetch of feature flags. Only the dispatcher touches the schedule, so
that needs no lock; the dispatcher never does I/O, so no endpoint can hold it up. Every other thread sends it messages
through a `SimpleQueue`, whose `put` is reentrant: a destructor or a signal handler may call it.

While others wait for a worker, an export may hold one for its time slice only; then the dispatcher preempts it. An
export that cannot be preempted (an `auth` that hangs, a foreign exporter) keeps its worker: that one is abandoned, and
another takes its place.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from adbc_telemetry.core.fork import renew_in_child
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.native import Empty, RLock, SimpleQueue
from adbc_telemetry.core.threads import DaemonThread
from adbc_telemetry.core.uwsgi import prefork
from adbc_telemetry.pipeline.scheduler import PROMPT_SECONDS, Schedule, Sendable, time_slice

MAX_WORKERS: Final = 7
MAX_ABANDONED_WORKERS: Final = 7
"""At most so many workers are abandoned and replaced: only code that is not ours can hold on to one."""

# How long a preempted export may take to let go of its worker.
_LETTING_GO_SECONDS: Final = 1.0
# How often the dispatcher looks at the busy workers while others wait for one.
_LOOK_SECONDS: Final = 0.02

_Task: TypeAlias = Callable[[], object]


class _Worker:
    """A thread that sends batches and runs tasks.

    The worker itself writes `client`, `degraded` and `since`, the dispatcher reads them; `abandoned` is the other way
    round.
    """

    def __init__(self, name: str, assignments: SimpleQueue[_Assignment | None]) -> None:
        self._assignments = assignments
        self.client: Sendable | None = None  # whose batch it sends at this moment
        self.degraded = False  # whether the client was degraded when the worker took it
        self.since = 0.0
        self.abandoned = False
        self.thread = DaemonThread(self._work, name)

    def send_batch(self, client: Sendable, degraded: bool) -> None:
        self.since = time.monotonic()
        self.degraded = degraded
        self.client = client  # last: the dispatcher takes the other two to be this client's
        try:
            _run_safely(client.send_batch)
        finally:
            self.client = None

    def _work(self) -> None:
        while not self.abandoned:
            assignment = self._assignments.get()
            if assignment is None:
                return
            assignment(self)
            del assignment  # it refers to its client, which may be dropped while this thread waits


_Assignment: TypeAlias = Callable[[_Worker], object]


class SenderThreads:
    """One dispatcher and its workers: from the first client to the last."""

    def __init__(self) -> None:
        self._mailbox: SimpleQueue[Callable[[Schedule], None] | None] = SimpleQueue()
        self._assignments: SimpleQueue[_Assignment | None] = SimpleQueue()
        self._workers: list[_Worker] = []
        self._dispatcher = DaemonThread(self._dispatch, "adbc-telemetry-dispatcher")
        # Start one worker right away: Python 3.12 starts no thread any more once the interpreter ends.
        self._add_workers(1)

    def wake(self, client: Sendable) -> None:
        """Ask `client` when it wants to send. Reentrant, never blocks."""
        self._mailbox.put(lambda schedule: schedule.examine(client))

    def run_soon(self, task: _Task) -> None:
        """Run `task` in a worker. Reentrant, never blocks."""
        self._mailbox.put(lambda schedule: schedule.run_task(task))

    def stop(self, deadline: float) -> None:
        """End all threads, and wait for them until `deadline` (`time.monotonic()`)."""
        self._mailbox.put(None)
        self._dispatcher.join(deadline)
        for worker in self._workers:  # only the dispatcher adds workers, so the list is stable from here
            worker.thread.join(deadline)

    # The dispatcher's thread.

    def _dispatch(self) -> None:
        schedule = Schedule(send=self._assign_client, run=self._assign_task)
        while True:
            try:
                message = self._mailbox.get(timeout=self._seconds_to_wait(schedule))
            except Empty:
                pass
            else:
                if message is None:
                    break
                message(schedule)
                del message  # it refers to its client, which may be dropped while this thread waits
            schedule.start_due()
            self._add_workers(schedule.under_way)
            self._reclaim_workers(schedule)
        for _ in self._workers:
            self._assignments.put(None)

    def _seconds_to_wait(self, schedule: Schedule) -> float | None:
        seconds = schedule.seconds_to_next()
        if self._assignments.empty() and not schedule.has_waiting:
            return seconds
        return _LOOK_SECONDS if seconds is None else min(seconds, _LOOK_SECONDS)

    def _add_workers(self, wanted: int) -> None:
        """Start workers until there are as many as are wanted, or as are allowed.

        If the system has no thread left, assignments wait until the dispatcher tries again at its next message.
        """
        able = sum(not worker.abandoned for worker in self._workers)
        with contextlib.suppress(RuntimeError):
            while able < min(wanted, MAX_WORKERS):
                name = f"adbc-telemetry-sender-{len(self._workers) + 1}"
                self._workers.append(_Worker(name, self._assignments))
                able += 1

    def _reclaim_workers(self, schedule: Schedule) -> None:
        """While others wait, preempt the exports that have held a worker for longer than their time slice."""
        waiting = self._assignments.qsize()
        if not (waiting or schedule.has_waiting):
            return
        self._workers = [worker for worker in self._workers if not worker.abandoned or worker.thread.is_alive]
        now = time.monotonic()
        for worker in self._workers:
            client, since = worker.client, worker.since
            if client is None or worker.abandoned:
                continue
            # The worker may have gone on to another batch by now. Then that one is requeued, which does no harm.
            if worker.degraded:
                if schedule.has_waiting and now - since > PROMPT_SECONDS:
                    client.preempt(long_waits_only=True)
            elif waiting:
                over = now - since - time_slice(client, waiting, MAX_WORKERS)
                if over > 0:
                    client.preempt(long_waits_only=False)
                if over > _LETTING_GO_SECONDS:
                    abandoned = sum(worker.abandoned for worker in self._workers)
                    worker.abandoned = abandoned < MAX_ABANDONED_WORKERS

    # What the workers do. The schedule hears of the end in any case, or the client would stay busy for ever.

    def _assign_client(self, client: Sendable) -> None:
        degraded = client.is_degraded

        def send(worker: _Worker) -> None:
            try:
                worker.send_batch(client, degraded)
                # Go on with the client's next batch at once, unless others wait for a worker: the way through the
                # dispatcher costs two changes of thread per batch, and a busy program makes those slow.
                while self._assignments.empty() and not client.is_degraded and _is_due(client):
                    worker.send_batch(client, degraded=False)
            finally:
                self._mailbox.put(lambda schedule: schedule.sent(client))

        self._assignments.put(send)

    def _assign_task(self, task: _Task) -> None:
        def run(worker: _Worker) -> None:
            try:
                _run_safely(task)
            finally:
                self._mailbox.put(Schedule.task_done)

        self._assignments.put(run)


def _not_due(error: Exception, client: Sendable) -> bool:
    return False


@never_raises(_not_due)
def _is_due(client: Sendable) -> bool:
    at = client.next_send(time.monotonic())
    return at is not None and at <= time.monotonic()


def _run_safely(task: _Task) -> None:
    """Run `task`; a worker outlives it.

    Even a SystemExit or CancelledError, of an `auth` say, ends nothing in a worker and reaches no excepthook.
    """
    with contextlib.suppress(BaseException):
        _swallow_exceptions(task)


@never_raises(lambda error, task: None)
def _swallow_exceptions(task: _Task) -> None:
    task()


class Sender:
    """Starts the threads with the first client and ends them with the last."""

    def __init__(self) -> None:
        self._threads: SenderThreads | None = None
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """The child has none of the parent's threads. Its clients are renewed after this, and attach again."""
        # Guards both fields. A signal handler may attach at any line: so the lock is reentrant, and each field changes
        # in a single step.
        self._lock = RLock()
        self._threads = None
        self._users: set[object] = set()

    def attach(self, user: object) -> SenderThreads:
        """The threads, which run until the last user has detached.

        Raises:
            RuntimeError: no thread can be started.
        """
        if not prefork.threads_may_start():
            raise RuntimeError("uWSGI is about to fork this process")
        with self._lock:
            self._users.add(user)
            try:
                made = None if self._threads is not None else SenderThreads()
            except RuntimeError:  # no thread can be started
                self._users.discard(user)
                raise
            # A signal handler may have attached while these were made.
            threads = self._threads = self._threads or made or SenderThreads()
        if made is not None and made is not threads:
            made.stop(time.monotonic())
        return threads

    def detach(self, user: object, threads: SenderThreads, deadline: float) -> None:
        """Remove a user. The last one ends the threads, and waits for them until `deadline` (`time.monotonic()`)."""
        with self._lock:
            if threads is not self._threads:
                return  # attached before a fork
            self._users.discard(user)
            if self._users:
                return
            self._threads = None
        threads.stop(deadline)


sender = Sender()
