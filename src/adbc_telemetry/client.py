"""TelemetryClient: the queue of a host, its batches, and the account of every event.

An event is in the queue, in flight (in the batch that is being sent) or settled. The way in takes no lock:
`enqueue` appends to a deque and compares its length with one number, the wake threshold. All else lies
behind the wake threshold:

    state                     wake threshold                what the caller then does
    idle: nothing waits       1                    wake the sender
    gathering: a batch fills  the batch's size     wake the sender
    resting: many have been   several batches      wake the sender
    sending                   the capacity + 1     take the newest event out again: the queue is full
    closing, closed           0                    take the newest event out again: too late
    disabled                  0                    take the newest event out again: never counted
    unable to send            0                    take the newest event out again: there will be no thread to send it

Everything else is guarded by one lock, held for a few lines and never while something is sent.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from itertools import repeat, starmap
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from adbc_telemetry.config import TelemetryConfiguration, checked_config, opted_out
from adbc_telemetry.core.diagnostics import Diagnostics
from adbc_telemetry.core.fork import renew_in_child
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.hosts import normalize_host
from adbc_telemetry.core.interpreters import forbids_threads
from adbc_telemetry.core.native import RLock, current_task, start_thread
from adbc_telemetry.core.reentrant import AtomicCounter, ReentrantEvent, released
from adbc_telemetry.core.uwsgi import prefork
from adbc_telemetry.events.session import hand_over_statements_to
from adbc_telemetry.events.statement import LoggedStatement, logs_of
from adbc_telemetry.export.base import (
    AbleExporter,
    BatchOutcome,
    ExportOutcome,
    ExportResult,
    TelemetryExporter,
    checked_exporter,
    expire,
    failed_export,
    hold_nothing_open,
    preempt,
    safe_close,
    safe_export,
    takes_statements,
    with_abilities,
)
from adbc_telemetry.export.circuit_breaker import CircuitBreakerTelemetryExporter
from adbc_telemetry.export.databricks import DatabricksTelemetryExporter
from adbc_telemetry.pipeline.account import Account
from adbc_telemetry.pipeline.replay import Replay
from adbc_telemetry.pipeline.scheduler import PROMPT_SECONDS
from adbc_telemetry.pipeline.sender import SenderThreads, sender
from adbc_telemetry.pipeline.shutdown import close_at_exit
from adbc_telemetry.pipeline.spool import Spool
from adbc_telemetry.protocols import ClientStats
from adbc_telemetry.schema import TelemetryFrontendLog
from adbc_telemetry.transport.auth import Auth

if TYPE_CHECKING:
    import asyncio

# What a close may take beyond its timeout to see a cancelled request end and the threads go.
_GRACE_SECONDS: Final = 0.1
# What it may take beyond that for a batch that is being written to the spool.
_SPOOLING_SECONDS: Final = 0.5
# How often the circuit is asked for events that wait for it; asking costs next to nothing.
_RETAINED_SECONDS: Final = 0.25
# How often an asynchronous close looks whether it is over, where it cannot have a thread to tell it.
_POLL_SECONDS: Final = 0.02
# Full batches that follow each other within this time are sent several at a time, since every change of thread costs a
# busy program as much as several statements do: the sender rests for so long, ...
_REST_SECONDS: Final = 0.05
_CROWD_BATCHES: Final = 10  # ... unless so many have come meanwhile, or a tenth of what the queue holds.
_NOTHING_IN_FLIGHT: Final = -1  # a goal of barriers
_LONGEST_WAIT_SECONDS: Final = 100_000_000.0

# What is said of an export that has not gone well, where its exporter gives no reason.
_NO_REASON: Final = {
    ExportOutcome.DELIVERED: "events were refused",
    ExportOutcome.REJECTED: "the export was refused",
    ExportOutcome.FAILED: "the export has failed",
    ExportOutcome.DROPPED: "the circuit is open",
    ExportOutcome.CANCELLED: "the export was cancelled",
}


# What waits in the queue: a log, or the statement that its log will be built from.
_Event: TypeAlias = TelemetryFrontendLog | LoggedStatement


class _Barrier:
    """What a flush waits for: that so many events are taken and settled.

    Such a goal is a position in the queue. When the newest events are dropped for want of room, others will take
    their positions, so a goal beyond the end of the queue comes down with it.
    """

    __slots__ = ("_tell", "goal", "reached")

    def __init__(self, goal: int, tell: Callable[[], None] | None) -> None:
        self.goal = goal
        self.reached = ReentrantEvent()
        self._tell = tell

    def open(self) -> None:
        self.reached.set()
        if self._tell is not None:
            self._tell()


class _State(Enum):
    DISABLED = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3
    UNABLE = 4  # to send: the interpreter allows no daemon threads


def _no_threads(error: Exception, client: TelemetryClient) -> SenderThreads | None:
    client._account.errors.increment()
    if isinstance(error, RuntimeError) and forbids_threads(error):
        client._give_up_sending()
    return None


def _count_error(error: Exception, client: TelemetryClient, *_: object) -> None:
    client._account.errors.increment()


class TelemetryClient:
    """Queues, batches and delivers the events of one host. Thread-safe; a (async) context manager.

    Args:
        host: a host or an http(s) URL.
        config: see `TelemetryConfiguration`. If telemetry is not enabled, or the user has opted out, the client
            does nothing at all.
        exporter: where batches go, instead of to the telemetry service of `host`; behind the circuit breaker all
            the same, unless it is one. The client closes it.
        auth: returns the headers that authenticate a request; called for every request, on the sender's side.

    Raises:
        ValueError: `host` or `config` makes no sense, or `auth` would go over plain HTTP to another machine.
        TypeError: an argument is of the wrong type.
    """

    def __init__(
        self,
        host: str,
        config: TelemetryConfiguration,
        *,
        exporter: TelemetryExporter | None = None,
        auth: Auth | None = None,
    ) -> None:
        self._config = checked_config(config)
        if exporter is not None:
            checked_exporter(exporter)
        self._host = normalize_host(host)
        self._diagnostics = Diagnostics(self._host)
        self._exporter = _chain(self._host, config, exporter, auth)
        # What the exporter gets of a batch: see `statement`.
        self._prepared: Callable[[Sequence[Any]], Sequence[Any]] = (
            list if takes_statements(self._exporter) else logs_of
        )
        self._batch_size = min(config.batch_size, config.max_queue_size)
        self._capacity = config.max_queue_size
        self._crowd = max(self._batch_size, min(_CROWD_BATCHES * self._batch_size, self._capacity // 10))
        self._interval = config.flush_interval_ms / 1000
        # Who has each event sent by itself wants it sent at once.
        self._rest = min(_REST_SECONDS, self._interval) if self._batch_size > 1 else 0.0
        self._enabled = config.enabled and not opted_out()
        self._spool: Spool | None = None
        self._replay: Replay | None = None
        if self._enabled and config.spool_dir is not None:
            self._spool = Spool(config.spool_dir, self._host, config.spool_max_bytes, self._diagnostics)
            self._replay = Replay(self._spool, self._exporter, self._batch_size, self._interval)
        self._state = _State.OPEN if self._enabled else _State.DISABLED
        self._start()
        renew_in_child(self)
        if self._enabled:
            close_at_exit(self)
            if self._threads is None:
                prefork.start_when_forked(self)

    def _start(self) -> None:
        """Everything that changes, as it is in a new client, and in a forked child's."""
        self._queue: deque[_Event] = deque()
        self._account = Account()
        self._diagnostics.reset()
        self._failed_exports = 0  # in a row; the sender's alone
        self._earlier_errors = self._errors_of_exporter()  # of another client, say
        # Guards all below. Reentrant, since a signal handler may flush while its thread does. Nobody waits for
        # anything with it, and nothing that is not ours is called with it.
        self._lock = RLock()
        self._barriers: set[_Barrier] = set()  # that somebody waits at
        self._taken = 0  # events that have left the queue to be sent
        self._in_flight = 0
        self._under_way: Sequence[_Event] = []  # the batch in flight, until somebody settles it
        self._preempted = False  # it is to be put back
        self._flush_goal = 0  # send at once until so many are taken
        self._gathering_since: float | None = None
        self._last_full_batch = float("-inf")  # when it had been sent
        self._resting_until = 0.0
        self._retained_until: float | None = None
        self._at_exit = False  # the process ends: each event is sent at once, and none waits for the circuit
        self._deadline: float | None = None  # of the close
        self._complete = True  # whether the close lost nothing for want of time
        self.is_degraded = False
        self.usual_seconds = 0.0
        self._closed = ReentrantEvent()
        self._unfinished = [True]  # a token, taken by the one who finishes the close
        self._finisher: object = None  # the task of that one
        self._wake_threshold = 1 if self._state is _State.OPEN else 0
        self._sender_user = object()
        self._threads = self._attach() if self._state is _State.OPEN else None

    @never_raises(_no_threads)
    def _attach(self) -> SenderThreads | None:
        """The sender's threads; None where there is none to be had, until the next flush tries again."""
        if not prefork.threads_may_start():
            return None
        threads = sender.attach(self._sender_user)
        if self._replay is not None:
            threads.wake(self._replay)
        return threads

    def _give_up_sending(self) -> None:
        """No event will ever be sent: keep none."""
        self._state = _State.UNABLE
        self._wake_threshold = 0
        self._complete = False
        self._sweep()

    def start_sending(self) -> None:
        """See `prefork`: what has been enqueued without threads is sent."""
        if self._threads is None and self._state is _State.OPEN:
            self._threads = self._attach()
            if self._threads is not None and self._queue:
                self._threads.wake(self)

    def after_fork_in_child(self) -> None:
        """The parent delivers its events; the child starts with none."""
        if self._state is _State.CLOSING:  # by a thread of the parent, which the child does not have
            self._state = _State.CLOSED
        if self._spool is not None and self._replay is not None:
            self._spool.after_fork_in_child()
            self._replay.after_fork_in_child()
        self._start()
        if self._state is _State.CLOSED:
            self._closed.set()

    @property
    def host(self) -> str:
        """The host, normalised."""
        return self._host

    @property
    def is_open(self) -> bool:
        """Whether events are (or, with telemetry off, would be) taken: `close` has not been called."""
        return self._state in (_State.OPEN, _State.DISABLED, _State.UNABLE)

    @property
    def is_closed(self) -> bool:
        """Whether a close has come to its end."""
        return self._closed.is_set()

    def enqueue(self, log: TelemetryFrontendLog) -> None:
        """Take an event. Never blocks, never raises; from any thread, destructor or signal handler.

        With the queue full, or after `close`, the event is dropped and counted.
        """
        if log is None:
            return  # type: ignore[unreachable]  # no event, by mistake of a caller that is not checked
        queue = self._queue
        queue.append(log)
        if len(queue) >= self._wake_threshold:
            self._on_wake_threshold()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every event enqueued before this call has been delivered or counted as lost.

        Args:
            timeout: seconds to wait; None for as long as it takes (retries and the circuit breaker bound it,
                unless `circuit_open` is "retain").

        Returns:
            True when all have reached their end; False when the timeout came first, and at once where nothing will
            be sent: in an interpreter that allows no threads, or that has ended.
        """
        if self._sends_nothing():
            return False
        seconds = _seconds(timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        return self._wait_at(self._raise_barrier(), deadline)

    async def aflush(self, timeout: float | None = None) -> bool:
        """`flush` for asyncio: the loop is never blocked, and the call may be cancelled."""
        import asyncio

        if self._sends_nothing():
            return False
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[bool] = loop.create_future()

        @never_raises(_ignore_closed_loop)
        def tell_loop() -> None:
            loop.call_soon_threadsafe(_set_result, settled, True)

        barrier = self._raise_barrier(tell_loop)
        try:
            if self._threads is None:  # there is nobody to send
                return barrier.reached.is_set()
            await asyncio.wait_for(settled, _seconds(timeout))
        except asyncio.TimeoutError:
            return False
        finally:
            self._barriers.discard(barrier)
        return True

    def close(self, timeout: float | None = None) -> bool:
        """Deliver what has been enqueued so far, then stop. Idempotent: a second caller waits for the first.

        Args:
            timeout: seconds that delivery may take; None for `close_timeout_ms`. What is left then is counted.

        Returns:
            True when every event had reached its end in time.
        """
        deadline = self.close_deadline(timeout)
        self.begin_close(deadline)
        self.finish_close(deadline)
        return self._closed.is_set() and self._complete

    async def aclose(self, timeout: float | None = None) -> bool:
        """`close` for asyncio: the loop is never blocked. Cancelled, it still closes, in the background."""
        import asyncio

        loop = asyncio.get_running_loop()
        closed: asyncio.Future[bool] = loop.create_future()

        @never_raises(_ignore_closed_loop)
        def close_and_tell() -> None:
            complete = False
            try:
                complete = self.close(timeout)
            finally:
                loop.call_soon_threadsafe(_set_result, closed, complete)

        # A thread of its own and not the loop's executor, which would have the process wait for it at exit.
        try:
            start_thread(close_and_tell, "adbc-telemetry-close")
        except RuntimeError:  # there is no thread to be had
            deadline = self.close_deadline(timeout)
            self.begin_close(deadline)
            while self._queue or self._in_flight:
                if time.monotonic() >= deadline:
                    break
                await asyncio.sleep(_POLL_SECONDS)
            return self.close(0)
        return await closed

    def close_deadline(self, timeout: float | None = None) -> float:
        """When a close that begins now has to be over (`time.monotonic()`), `close_timeout_ms` from now by default."""
        seconds = _seconds(timeout)
        return time.monotonic() + (self._config.close_timeout_ms / 1000 if seconds is None else seconds)

    def begin_close(self, deadline: float) -> None:
        """Take no more events and have the rest sent by `deadline` (`time.monotonic()`); returns at once.

        The first call counts, and its deadline.
        """
        if sys.is_finalizing():  # a thread may have ended with the lock
            return
        with self._lock:
            unable = self._state is _State.UNABLE
            if unable:
                self._state = _State.CLOSED
        if unable:
            safe_close(self._exporter, self._account.errors)
            self._closed.set()
        with self._lock:
            if self._state is _State.DISABLED:
                self._closed.set()
            if self._state is not _State.OPEN:
                return
            self._state = _State.CLOSING
            self._wake_threshold = 0
            if self._threads is None:
                deadline = time.monotonic()  # there is nobody to send, nothing to wait for
            self._send_now()
            # Last, since it lets others finish the close: a signal handler that comes before this leaves it to us.
            self._deadline = deadline
        if self._replay is not None:
            self._replay.begin_close(deadline)
        expire(self._exporter, deadline, self._account.errors)

    def finish_close(self, deadline: float | None = None) -> None:
        """Wait for what `begin_close` has begun, until its deadline, and put the rest into the account.

        Whoever waits to the end finishes, and only one does: the one who began may have been interrupted. With
        an earlier `deadline` of its own, a caller leaves that to the others.
        """
        if self._closed.is_set() or self._deadline is None or sys.is_finalizing():
            return
        last = self._deadline
        until = last if deadline is None else min(deadline, last)
        in_time = self._wait_at(self._raise_barrier(), until)
        with released(self._lock):
            ended = in_time and (self._replay is None or self._replay.wait_closed(until))
        if not ended and time.monotonic() < last:
            return
        try:
            self._unfinished.pop()
        except IndexError:
            if self._finisher != current_task():  # else this is a signal handler that has interrupted it
                self._closed.wait(2 * _GRACE_SECONDS)
            return
        try:
            self._finisher = current_task()
            self._finish(in_time, last + _GRACE_SECONDS)
        finally:
            self._closed.set()

    def _finish(self, in_time: bool, grace: float) -> None:
        with self._lock:
            self._flush_goal = self._taken  # no further batch is begun
        if self._replay is not None:
            self._replay.stop()
        safe_close(self._exporter, self._account.errors)  # cancels a request that is under way
        self._wait_at(self._raise_barrier(nothing_in_flight=True), grace)
        with self._lock:
            abandoned, self._under_way = self._under_way, []  # by an exporter that does not let go
            left = self._take(len(self._queue))
        abandoned_spooled, left_spooled = self._to_spool(abandoned), self._to_spool(left)
        with self._lock:
            self._account.abandoned(len(abandoned), abandoned_spooled)
            self._account.left_at_close(len(left), left_spooled)
            self._in_flight -= len(abandoned)
        self._wait_at(self._raise_barrier(nothing_in_flight=True), grace + _SPOOLING_SECONDS)
        with self._lock:
            self._account.abandoned(self._in_flight, 0)  # on a disk that hangs
            self._in_flight = 0
            self._complete = in_time
            self._state = _State.CLOSED
            self._sweep()
        if abandoned:
            self._diagnostics.failed(None, "an export did not end in time")
        self._tell_drops(last=True)
        self._open_barriers()
        if self._threads is not None:
            self._threads.wake(self)  # to be forgotten
            sender.detach(self._sender_user, self._threads, grace)

    def begin_exit(self, deadline: float) -> None:
        """The process ends: have all that is queued sent by `deadline` (`time.monotonic()`); returns at once.

        The client stays open, for those whose exit handlers come later. It sends each event at once from now on.
        """
        with self._lock:
            if self._state is not _State.OPEN:
                return
            self._send_each_at_once()
        self._send_now()
        if self._replay is not None:
            self._replay.begin_close(deadline)
        # A little later, so that a client whose last request ends with the time is not taken for one that was in time.
        expire(self._exporter, deadline + _GRACE_SECONDS, self._account.errors)

    def finish_exit(self, deadline: float) -> bool:
        """Wait for what `begin_exit` has begun, at most until `deadline` (`time.monotonic()`).

        Returns:
            Whether the client needs no `close` now: it has been closed, or can stay open until the process is gone.
        """
        if self._state is _State.CLOSING:
            self.finish_close()
        if self._state is not _State.OPEN:
            return True
        in_time = self._wait_at(self._raise_barrier(), deadline)
        with released(self._lock):
            in_time = in_time and (self._replay is None or self._replay.wait_closed(deadline))
        if not (in_time and hold_nothing_open(self._exporter)):
            return False
        expire(self._exporter, math.inf, self._account.errors)  # not the requests that are still to come
        return True

    def begin_at_exit(self) -> None:
        """The client is made while the process ends: as `finish_exit` leaves those that it leaves open."""
        with self._lock:
            self._send_each_at_once()
        hold_nothing_open(self._exporter)

    def _send_each_at_once(self) -> None:
        self._at_exit = True
        self._interval = self._rest = 0.0

    def _sends_nothing(self) -> bool:
        """Whether nothing will be sent any more, so that there is nothing to wait for, nor a lock to be trusted."""
        return self._state is _State.UNABLE or sys.is_finalizing()

    def stats(self) -> ClientStats:
        """The account at this moment."""
        with self._lock:
            if self._state is _State.CLOSED:
                self._sweep()
            spool, replay = self._spool, self._replay
            refused = 0 if replay is None else replay.refused
            further_errors = self._errors_of_exporter() - self._earlier_errors
            if spool is not None and replay is not None:
                further_errors += spool.errors + replay.errors.value()
            return self._account.stats(
                taken=self._taken,
                queued=len(self._queue),
                in_flight=self._in_flight,
                replayed=0 if replay is None else replay.delivered,
                spool_lost=refused if spool is None else refused + spool.dropped,
                further_errors=further_errors,
                last_failure=self._diagnostics.last_failure,
            )

    def run_soon(self, job: Callable[[], object]) -> bool:
        """Run `job` on the sender's side; False when there is none. Reentrant, never blocks."""
        threads = self._threads
        if threads is None or self._state is not _State.OPEN:
            return False
        threads.run_soon(job)
        return True

    # The caller's side of the wake threshold: lock-free, since it may interrupt anything.

    @never_raises(_count_error)
    def _on_wake_threshold(self) -> None:
        if not self._takes_events():
            self._take_back(None if self._state is _State.DISABLED else self._account.dropped_closed)
        elif len(self._queue) > self._capacity:
            self._take_back(self._account.dropped_full)
        else:
            # Every further event until the sender looks need not wake it again. The sender sets the wake threshold anew
            # after this message at the latest; a close in between has to win.
            self._wake_threshold = self._capacity + 1
            if not self._takes_events():
                self._wake_threshold = 0
            if self._threads is not None:
                self._threads.wake(self)

    def _takes_events(self) -> bool:
        return self._state is _State.OPEN

    def _take_back(self, counter: AtomicCounter | None) -> None:
        """The newest event, which may by now be another thread's: one event too many is as good as another."""
        try:
            self._queue.pop()
        except IndexError:
            return  # the sender was faster
        if counter is not None:
            counter.increment()

    # The sender's side. `next_send` and `send_batch` are never run at the same time.

    def next_send(self, now: float) -> float | None:
        """See `Sendable`."""
        if self._state is _State.CLOSED:
            return None  # without the lock, which the one may hold whom the closing handler has interrupted
        with self._lock:
            if self._state not in (_State.OPEN, _State.CLOSING):
                return None
            if self._retained_until is not None and now < self._retained_until:
                return self._retained_until
            if self._queue and self._taken < self._flush_goal:
                return now
            if now < self._resting_until:
                self._set_wake_threshold(self._crowd)
                if len(self._queue) < self._crowd:
                    return self._resting_until
                self._resting_until = 0.0
            since = self._gathering_since
            if not self._queue and (since is None or now >= since + self._interval):
                self._gathering_since = None
                self._set_wake_threshold(1)
                if not self._queue:  # none came while the wake threshold was still another
                    return None
            if self._gathering_since is None:
                self._gathering_since = now
            self._set_wake_threshold(self._batch_size)
            if len(self._queue) >= self._batch_size:
                return now
            return self._gathering_since + self._interval

    def send_batch(self) -> None:
        """See `Sendable`."""
        with self._lock:
            self._set_wake_threshold(self._capacity + 1)
            batch = self._take_batch()
            deadline = self._deadline
        if not batch:
            return
        began = time.monotonic()
        logs: Sequence[Any] = batch
        result = ExportResult(ExportOutcome.FAILED)
        try:
            logs = self._prepared(batch)
            with self._lock:
                self._under_way = logs if self._under_way else []
            result = safe_export(self._exporter, logs, deadline, self._account.errors)
        except BaseException as error:  # an exporter's SystemExit, say: it ends nothing in a thread of ours
            self._account.errors.increment()
            result = failed_export(error)
            raise
        finally:
            self._exported(result, result.batch_outcome(logs), time.monotonic() - began)

    def preempt(self, long_waits_only: bool) -> None:
        """See `Sendable`."""
        self._preempted = True
        preempt(self._exporter, long_waits_only, self._account.errors)

    def _set_wake_threshold(self, length: int) -> None:
        if self._state is _State.OPEN:
            self._wake_threshold = length

    def _take_batch(self) -> list[_Event]:
        size = self._batch_size
        if self._state is not _State.OPEN:  # what came later is taken back by who brought it
            size = min(size, self._flush_goal - self._taken)
        batch = self._take(size)
        self._under_way = batch
        self._in_flight = len(batch)
        self._preempted = False
        self._gathering_since = None
        self._retained_until = None
        return batch

    def _take(self, count: int) -> list[_Event]:
        events: list[_Event] = []
        # It may be shorter, since a late caller takes its event back meanwhile.
        with contextlib.suppress(IndexError):
            events.extend(starmap(self._queue.popleft, repeat((), count)))
        self._taken += len(events)
        return events

    def _exported(self, result: ExportResult, ended: BatchOutcome, seconds: float) -> None:
        """Put a batch that is back into the account, and what was not sent of it where it may be sent later."""
        unsent, outcome = ended.unsent, result.outcome
        with self._lock:
            if not self._under_way:
                return  # the close has given up on this batch and counted it
            self._under_way = []
            may_wait = self._state is _State.OPEN and not self._at_exit
            cut_short = outcome is ExportOutcome.CANCELLED and self._preempted
            self.is_degraded = outcome is ExportOutcome.FAILED or cut_short or seconds > PROMPT_SECONDS
            if not unsent:
                self.usual_seconds = seconds
                if self._in_flight == self._batch_size:
                    self._expect_more()
            retained = outcome is ExportOutcome.DROPPED and self._config.circuit_open == "retain"
            kept = bool(unsent) and (cut_short or (retained and may_wait))
            if kept:
                self._requeue(unsent)
                if retained:
                    self._retained_until = time.monotonic() + min(self._interval, _RETAINED_SECONDS)
            to_spool = bool(unsent) and not kept and self._spool is not None
            if not to_spool:
                self._settle(ended, outcome, 0, kept)
        # Before the barriers open: a caller who has waited for this batch may ask at once.
        self._diagnose(result, ended, kept)
        if to_spool:
            spooled = self._to_spool(unsent)
            with self._lock:
                if self._state is not _State.CLOSED:  # else the close has waited long enough for the disk
                    self._settle(ended, outcome, spooled, kept=False)
        self._tell_drops()
        self._open_barriers()

    def _diagnose(self, result: ExportResult, ended: BatchOutcome, kept: bool) -> None:
        """Remember why a batch was not delivered, and tell when delivery begins to fail and when it works again."""
        outcome, diagnostics = result.outcome, self._diagnostics
        if outcome is ExportOutcome.DROPPED:
            if diagnostics.last_failure is None:  # else that is what has opened the circuit
                diagnostics.failed(result.reason, _NO_REASON[outcome])
            return
        went_wrong = ended.rejected or (ended.unsent and not kept)
        reason = diagnostics.failed(result.reason, _NO_REASON[outcome]) if went_wrong else ""
        # Events that are refused one by one say something about the events, not about the endpoint.
        one_by_one = outcome is ExportOutcome.REJECTED and result.rejected >= ended.rejected
        if went_wrong and (result or one_by_one):
            diagnostics.tell("refused", f"events were refused: {reason}")
        elif went_wrong:
            self._failed_exports += 1
            diagnostics.tell("delivery", f"delivery fails: {reason}")
        if result and self._failed_exports:
            diagnostics.tell("recovery", f"delivery works again, after {self._failed_exports} failed exports")
            self._failed_exports = 0

    def _tell_drops(self, *, last: bool = False) -> None:
        for what, count in self._account.drops().items():
            self._diagnostics.tell_count(what, count, what, last=last)

    def _errors_of_exporter(self) -> int:
        exporter = self._exporter
        return exporter.errors if isinstance(exporter, CircuitBreakerTelemetryExporter) else 0

    def _expect_more(self) -> None:
        """A full batch has been sent: the next gathers already, so that its first event need not wake the sender."""
        now = time.monotonic()
        follows_closely = now - self._last_full_batch < _REST_SECONDS
        self._last_full_batch = now
        # What is there already may have come in a rest.
        self._gathering_since = now - self._rest if self._queue else now
        if follows_closely and len(self._queue) < self._batch_size:
            self._resting_until = now + self._rest

    def _settle(self, ended: BatchOutcome, outcome: ExportOutcome, spooled: int, kept: bool) -> None:
        self._in_flight = 0
        self._account.exported(ended, outcome, spooled, kept)

    def _requeue(self, events: Sequence[TelemetryFrontendLog]) -> None:
        self._queue.extendleft(reversed(events))
        self._taken -= len(events)
        while len(self._queue) > self._capacity:
            self._take_back(self._account.dropped_full)
        end = self._taken + len(self._queue)
        self._flush_goal = min(self._flush_goal, end)
        for barrier in list(self._barriers):
            barrier.goal = min(barrier.goal, end)

    def _to_spool(self, events: Sequence[_Event]) -> int:
        """Write down what could not be delivered; returns how many events are safe. Does I/O: not with the lock."""
        if self._spool is None or self._replay is None or not events:
            return 0
        spooled = self._spool.append(logs_of(events))
        if spooled and self._threads is not None:
            self._replay.look_soon()
            self._threads.wake(self._replay)
        return spooled

    # Waiting for the ended.

    def _send_now(self) -> None:
        """Have all that is queued sent without delay."""
        if self._threads is None and self._state is _State.OPEN:
            self._threads = self._attach()
        with self._lock:
            self._flush_goal = max(self._flush_goal, self._taken + len(self._queue))
        if self._threads is not None and self._queue:
            self._threads.wake(self)

    def _raise_barrier(
        self, tell: Callable[[], None] | None = None, *, nothing_in_flight: bool = False
    ) -> _Barrier:
        """What stands until all that is to be sent now is settled, or with `nothing_in_flight` the batch under way.

        A client that is open sends all that is queued; one that closes does so already, and nothing that comes later.
        """
        if self._state is _State.OPEN:
            self._send_now()
        with self._lock:
            barrier = _Barrier(_NOTHING_IN_FLIGHT if nothing_in_flight else self._flush_goal, tell)
            self._barriers.add(barrier)
        self._open_barriers()
        return barrier

    def _is_settled(self, goal: int) -> bool:
        if goal == _NOTHING_IN_FLIGHT:
            return not self._in_flight
        # Events are sent in their order. The second half is for a goal that counted an event which was then
        # taken back, so that it would not be reached before others come.
        return self._taken - self._in_flight >= goal or not (self._queue or self._in_flight)

    def _wait_at(self, barrier: _Barrier, deadline: float | None) -> bool:
        try:
            if self._threads is None:  # there is nobody to send
                return barrier.reached.is_set()
            with released(self._lock):
                return barrier.reached.wait(None if deadline is None else deadline - time.monotonic())
        finally:
            self._barriers.discard(barrier)

    def _open_barriers(self) -> None:
        """Let those go on whose goal is reached. Without the lock: it may call into an event loop, and log."""
        with self._lock:
            reached = [barrier for barrier in list(self._barriers) if self._is_settled(barrier.goal)]
            self._barriers.difference_update(reached)
        for barrier in reached:
            barrier.open()

    def _sweep(self) -> None:
        """Count what is left in the queue of a closed client."""
        while self._queue:
            self._take_back(self._account.dropped_closed)

    def __enter__(self) -> TelemetryClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> TelemetryClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


hand_over_statements_to(TelemetryClient)


def _seconds(timeout: float | None) -> float | None:
    """A timeout that can be waited for: not below zero, nor beyond what a lock takes. What is no number is none."""
    if not isinstance(timeout, (int, float)) or timeout != timeout:
        return None
    return min(max(0.0, timeout), _LONGEST_WAIT_SECONDS)


def _set_result(future: asyncio.Future[bool], value: bool) -> None:
    if not future.done():  # it may have been cancelled
        future.set_result(value)


def _ignore_closed_loop(error: Exception) -> None:
    """The event loop has ended before what it waited for: nobody is there to be told."""


def _chain(
    host: str, config: TelemetryConfiguration, exporter: TelemetryExporter | None, auth: Auth | None
) -> AbleExporter:
    inner = exporter if exporter is not None else DatabricksTelemetryExporter(host, config, auth=auth)
    if isinstance(inner, CircuitBreakerTelemetryExporter) or not config.circuit_breaker_enabled:
        return with_abilities(inner)
    return CircuitBreakerTelemetryExporter(inner, host, config)
