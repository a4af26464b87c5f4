"""Where the events of one client are: queued, in flight, or at their end.

    queued -- take_batch --> in flight -- batch_returned --> delivered, rejected, failed, dropped
       ^                         |                       \\-> to the spool -- batch_spooled --> spooled or lost
       +------- requeued --------+

One lock guards all of it. Every method is one step: it holds the lock for a few lines, does no I/O and waits for
nothing. Adding an event takes no lock: see `queue`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final

from adbc_telemetry.config import TelemetryConfiguration
from adbc_telemetry.core.native import RLock
from adbc_telemetry.export.base import BatchOutcome, ExportOutcome, ExportResult
from adbc_telemetry.pipeline.account import Account
from adbc_telemetry.pipeline.barriers import Barrier, FlushBarriers
from adbc_telemetry.pipeline.batch_timing import BatchTiming
from adbc_telemetry.pipeline.lifecycle import Lifecycle
from adbc_telemetry.pipeline.queue import Event, EventQueue


class Unsent(Enum):
    """What becomes of the events of a batch that were neither delivered nor rejected."""

    REQUEUED = "requeued"
    """They are at the front of the queue again."""
    TO_SPOOL = "to spool"
    """The caller writes them to the spool, and reports to `batch_spooled`."""
    LOST = "lost"
    """They are counted; also where there were none."""


class BatchInFlight:
    """The batch that is being sent. Guarded by the client's lock.

    state      `events`    `count`
    none       empty       0
    sending    the batch   its length
    claimed    empty       its length: one task decides about its end, be it the worker or the close
    """

    def __init__(self) -> None:
        self.events: Sequence[Event] = []
        self.count = 0

    def begin(self, events: Sequence[Event]) -> None:
        """From none to sending."""
        self.events = events
        self.count = len(events)

    def become(self, logs: Sequence[Any]) -> None:
        """The events as the exporter gets them, so that the spool does not build their logs again."""
        if self.events:
            self.events = logs

    def claim(self) -> Sequence[Event]:
        """From sending to claimed: the events, or none where another task has claimed them."""
        events, self.events = self.events, []
        return events

    def end(self) -> None:
        """From claimed to none."""
        self.count = 0


_GROWTH: Final = 10
_USUAL_BATCH_SIZE: Final = TelemetryConfiguration().batch_size
# Larger batches that the user has not asked for take a load that lasts.
_PATIENCE_SECONDS: Final = 1.0


def batch_sizes(config: TelemetryConfiguration) -> tuple[int, int, float]:
    """The size at which a batch is sent, the largest one, and for how many seconds a client is busy before it grows."""
    largest = config.max_batch_size
    if largest is None:
        usual = min(config.batch_size, config.max_queue_size)
        # A size that the user has named is a bound.
        growth = _GROWTH if config.batch_size == _USUAL_BATCH_SIZE else 1
        return usual, min(growth * usual, config.max_queue_size), _PATIENCE_SECONDS
    largest = min(largest, config.max_queue_size)
    return min(config.batch_size, largest), largest, 0.0


class EventFlow:
    """The events of one client, and all that decides about them.

    Args:
        config: of the client.
        lifecycle: of the client.
    """

    def __init__(self, config: TelemetryConfiguration, lifecycle: Lifecycle) -> None:
        # Guards all below. Reentrant: a signal handler may flush on the thread that holds it.
        self.lock = RLock()
        self.lifecycle = lifecycle
        self.account = Account()
        self.batch_size, largest, patience = batch_sizes(config)
        self.queue = EventQueue(config.max_queue_size, self.account)
        self.timing = BatchTiming(
            self.batch_size,
            config.max_queue_size,
            config.flush_interval_ms / 1000,
            largest=largest,
            patience=patience,
        )
        self.barriers = FlushBarriers()
        self.in_flight = BatchInFlight()
        self._holds = config.circuit_open == "retain"
        self._spools = config.spool_dir is not None
        self._at_exit = False
        self._cut_off = False  # whether the deadline of the close has cost events

    # Sending.

    def next_send(self, now: float) -> float | None:
        """When the next batch is due; None while there is nothing to send."""
        # Don't take the lock: a signal handler may be closing the client on the thread that holds it.
        if self.lifecycle.is_closed:
            return None
        with self.lock:
            if not self.lifecycle.sends:
                return None
            queue = self.queue
            while True:
                length = len(queue)
                flush = queue.taken < self.barriers.goal
                at, wake_at = self.timing.next_look(now, length, flush=flush)
                queue.wake_at(wake_at)
                # Events that came before the threshold changed have woken no sender: look again.
                if len(queue) <= length or (at is not None and at <= now):
                    return at

    def take_batch(self) -> tuple[list[Event], float | None]:
        """The next batch, and the deadline of the close if it has begun. The batch is in flight from now on."""
        with self.lock:
            self.queue.wake_when_over_full()
            size = self.timing.size(time.monotonic())
            if self._at_exit or not self.lifecycle.is_open:
                size = self.batch_size  # the deadline may cut off the last request: let that cost few events
            if not self.lifecycle.is_open:  # events that came after the close are dropped by their callers
                size = min(size, self.barriers.goal - self.queue.taken)
            batch = self.queue.take(size)
            self.in_flight.begin(batch)
            self.timing.batch_taken()
            return batch, self.lifecycle.deadline

    def logs_built(self, logs: Sequence[Any]) -> None:
        """The batch in flight has been made ready for the exporter."""
        with self.lock:
            self.in_flight.become(logs)

    def batch_returned(self, batch: BatchOutcome, result: ExportResult, *, preempted: bool) -> Unsent | None:
        """The exporter is done with the batch in flight.

        Args:
            batch: how its events ended.
            result: its outcome says how those ended that were neither delivered nor rejected.
            preempted: whether the sender asked the export to end early.

        Returns:
            What becomes of the rest; None where the close has given up on the batch and counted it.
        """
        with self.lock:
            if not self.in_flight.claim():
                return None
            now = time.monotonic()
            can_wait = self.lifecycle.is_open and not self._at_exit
            held = result.outcome is ExportOutcome.DROPPED and self._holds and can_wait
            cut_short = result.outcome is ExportOutcome.CANCELLED and preempted
            unsent = Unsent.LOST
            if batch.unsent:
                self.timing.batch_failed()
            if not batch.unsent:
                if self.in_flight.count >= self.batch_size:
                    self.timing.full_batch_sent(now, len(self.queue))
            elif held or cut_short:
                unsent = Unsent.REQUEUED
                self._requeue(batch.unsent)
                if held:
                    self.timing.hold(now)
            elif self._spools:
                return Unsent.TO_SPOOL
            deadline = self.lifecycle.deadline
            if batch.unsent and unsent is Unsent.LOST and deadline is not None and now >= deadline:
                # The close's own wait may not have noticed that the time was up: the exporter was faster.
                self._cut_off |= result.outcome is ExportOutcome.CANCELLED
            self.in_flight.end()
            self.account.exported(batch, result, spooled=0, requeued=unsent is Unsent.REQUEUED)
            return unsent

    def batch_spooled(self, batch: BatchOutcome, result: ExportResult, spooled: int) -> None:
        """`spooled` of the unsent events of the batch are in the spool; the others are lost."""
        with self.lock:
            if (
                not self.lifecycle.is_closed
            ):  # else the close did not wait any longer for the disk, and counted them
                self.in_flight.end()
                self.account.exported(batch, result, spooled=spooled, requeued=False)

    def _requeue(self, events: Sequence[Event]) -> None:
        self.queue.requeue(events)
        self.barriers.queue_ends_at(self.queue.end)

    # Flushing.

    def is_empty(self) -> bool:
        """Whether no event is queued or in flight."""
        return not (self.queue or self.in_flight.count)

    def flush_all(self) -> None:
        """Have all queued events sent without delay."""
        with self.lock:
            self.barriers.send_up_to(self.queue.end)

    def raise_barrier(self, notify: Callable[[], None] | None = None) -> Barrier:
        """See `FlushBarriers.raise_barrier`."""
        with self.lock:
            return self.barriers.raise_barrier(notify)

    def raise_in_flight_barrier(self) -> Barrier:
        """See `FlushBarriers.raise_in_flight_barrier`."""
        with self.lock:
            return self.barriers.raise_in_flight_barrier()

    def open_reached_barriers(self) -> None:
        """Let flushes go on whose events have come to their end."""
        with self.lock:
            reached = self.barriers.take_reached(
                taken=self.queue.taken, queued=len(self.queue), in_flight=self.in_flight.count
            )
        for barrier in reached:
            barrier.open()

    # Closing.

    def give_up(self) -> None:
        """No event will ever be sent: keep none."""
        with self.lock:
            if self.lifecycle.give_up():
                self.queue.refuse()
                self.queue.drop_all()

    def begin_close(self, deadline: float) -> bool:
        """Take no more events, and have the queued ones sent. True for the first call on an open client."""
        with self.lock:
            if not self.lifecycle.begin_close():
                return False
            self.queue.refuse()
            self.barriers.send_up_to(self.queue.end)
            # Last: from here on, a signal handler or another thread may finish the close.
            self.lifecycle.allow_finish(deadline)
            return True

    def close_idle(self) -> bool:
        """Close a client that sends nothing."""
        with self.lock:
            return self.lifecycle.close_idle()

    def begin_no_batch(self) -> None:
        """The close is out of time: no further batch is begun."""
        with self.lock:
            self.barriers.send_no_more_than(self.queue.taken)

    def take_rest(self) -> tuple[Sequence[Event], list[Event]]:
        """What the close is left with: the batch that the exporter does not let go of, and the queued events."""
        with self.lock:
            return self.in_flight.claim(), self.queue.take(len(self.queue))

    def rest_spooled(self, *, abandoned: int, abandoned_spooled: int, left: int, left_spooled: int) -> None:
        """Of the two parts of the rest, so many events are in the spool; the others are lost."""
        with self.lock:
            self.account.abandoned(abandoned, abandoned_spooled)
            self.account.left_at_close(left, left_spooled)
            self.in_flight.count -= abandoned

    def end(self, *, complete: bool) -> None:
        """The end of the close. A batch that is still being written to a disk that hangs is lost."""
        with self.lock:
            self.account.abandoned(self.in_flight.count, 0)
            self.in_flight.end()
            self.lifecycle.end(complete=complete and not self._cut_off)
            self.queue.drop_all()

    def begin_exit(self) -> bool:
        """The process ends: send each event at once, and hold none. False where the client is not open."""
        with self.lock:
            if not self.lifecycle.is_open:
                return False
            self._at_exit = True
            self.timing.never_delay()
            return True
