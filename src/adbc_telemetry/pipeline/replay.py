"""The replay: sends what is in the spool of a host, batch by batch, next to the host's client.

A replay is always in one of three states:

    paused     until a time: at first now; after a batch that was not delivered the flush interval; when the spool was
               empty a minute, because other processes may leave events in it at any time
    sending    one batch, in a worker
    stopped    for good; the next process sends what is left

When it closes it goes on until the spool is empty, a batch is not delivered, or the deadline comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final

from adbc_telemetry.core.native import RLock
from adbc_telemetry.core.reentrant import AtomicCounter, ReentrantEvent
from adbc_telemetry.export.base import AbleExporter, ExportOutcome, ExportResult, preempt, safe_export
from adbc_telemetry.pipeline.scheduler import PROMPT_SECONDS
from adbc_telemetry.pipeline.spool import Spool, SpoolSegment
from adbc_telemetry.schema import TelemetryFrontendLog

_LOOK_SECONDS: Final = 60.0


class _State(Enum):
    PAUSED = 0
    SENDING = 1
    STOPPED = 2


class ReplayCounts:
    """What a replay has come to. The replay's lock guards it, apart from the atomic counter.

    Attributes:
        delivered: events of the spool that were delivered, whichever process had left them there.
        refused: events of the spool that were refused.
        errors: counts the exceptions of the exporter.
    """

    def __init__(self) -> None:
        self.delivered = 0
        self.refused = 0
        self.errors = AtomicCounter()


class Replay:
    """Replays the spool of one host through the exporter of its client. A `scheduler.Sendable`.

    Args:
        spool: where the events are.
        exporter: where they go.
        batch_size: the largest number of events sent together.
        pause: seconds between attempts while the endpoint does not take them.

    Attributes:
        counts: what it has come to.
        observe: told how long each export took and what it came to; see `accounts.Accounts.exported`.
    """

    def __init__(self, spool: Spool, exporter: AbleExporter, batch_size: int, pause: float) -> None:
        self.observe: Callable[[float, ExportResult], None] | None = None
        self._spool = spool
        self._exporter = exporter
        self._batch_size = batch_size
        self._pause = pause
        self.usual_seconds = 0.0
        self._start()

    def _start(self) -> None:
        self._lock = RLock()  # guards all fields below
        self._stopped = ReentrantEvent()
        self._state = _State.PAUSED
        self._next_send = 0.0  # the end of the pause
        self._deadline: float | None = None  # of the close
        self._segment: SpoolSegment | None = None  # the one that batches are taken from
        self.is_degraded = False
        self.counts = ReplayCounts()

    def after_fork_in_child(self) -> None:
        """The segment stays the parent's; the child claims one of its own."""
        segment = self._segment
        if segment is not None:
            # Closes the child's descriptor only. The parent's keeps the lock.
            segment.release()
        self._start()

    def look_soon(self) -> None:
        """The spool has new events: try to send them after a pause."""
        with self._lock:
            self._next_send = min(self._next_send, time.monotonic() + self._pause)

    def begin_close(self, deadline: float) -> None:
        """Go on sending until `deadline` (`time.monotonic()`) at most; stop at once in a pause."""
        with self._lock:
            self._deadline = deadline
            if self._state is _State.PAUSED and self._next_send > time.monotonic():
                self._stop()

    def wait_closed(self, deadline: float) -> bool:
        """Wait until it has stopped, or until `deadline` (`time.monotonic()`); return whether it has."""
        return self._stopped.wait(deadline - time.monotonic())

    def stop(self) -> None:
        """Send no further batch. The events of one under way stay in the spool unless they are delivered after all."""
        with self._lock:
            self._deadline = time.monotonic()
            if self._state is _State.PAUSED:
                self._stop()

    def next_send(self, now: float) -> float | None:
        """See `Sendable`."""
        with self._lock:
            return self._next_send if self._state is _State.PAUSED else None

    def send_batch(self) -> None:
        """See `Sendable`."""
        with self._lock:
            if self._state is not _State.PAUSED:
                return
            self._state = _State.SENDING
            deadline = self._deadline
        pause: float | None = None  # None stops: after an error of the disk, a batch might be sent twice
        try:
            pause = self._send_next(deadline)
        except BaseException as error:
            self._spool.failed("replayed", error)
            self._spool.tell()
            raise
        finally:
            with self._lock:
                self._state = _State.PAUSED
                now = time.monotonic()
                self._next_send = now + (pause or 0.0)
                closing = self._deadline is not None and (pause or now >= self._deadline)
                if pause is None or closing:
                    self._stop()

    def preempt(self, long_waits_only: bool) -> None:
        """See `Sendable`."""
        preempt(self._exporter, long_waits_only, self.counts.errors)

    def _send_next(self, deadline: float | None) -> float:
        """Send the next batch of the oldest segment.

        Returns:
            How many seconds to pause before the batch after it.

        Raises:
            OSError: of the disk.
        """
        segment = self._segment = self._segment or self._spool.claim()
        if segment is None:
            return _LOOK_SECONDS
        batch = segment.last(self._batch_size)
        began = time.monotonic()
        result = safe_export(self._exporter, batch, deadline, self.counts.errors)
        seconds = time.monotonic() - began
        if self.observe is not None:
            self.observe(seconds, result)
        outcome = result.batch_outcome(batch)
        with self._lock:
            self.counts.delivered += outcome.delivered
            self.counts.refused += outcome.rejected
        if outcome.unsent:
            # An open circuit says nothing about how long an export takes.
            self.is_degraded = result.outcome is not ExportOutcome.DROPPED
            self._requeue(segment, batch, outcome.unsent)
            pause = self._pause
        else:
            self.is_degraded = seconds > PROMPT_SECONDS
            self.usual_seconds = seconds
            if not segment.cut(len(batch)):
                self._segment = None
            pause = 0.0
        self._tell(result)
        return pause

    def _requeue(
        self,
        segment: SpoolSegment,
        batch: Sequence[TelemetryFrontendLog],
        unsent: Sequence[TelemetryFrontendLog],
    ) -> None:
        """Leave `unsent` in the spool, and only those: write them anew, then cut the batch off.

        If they cannot be written, the whole batch stays: sent twice is better than lost.
        """
        self._segment = None
        if len(unsent) == len(batch) or self._spool.append(unsent) < len(unsent) or segment.cut(len(batch)):
            segment.release()

    def _tell(self, result: ExportResult) -> None:
        """Remember why events of the spool were not taken, and log how many were."""
        diagnostics = self._spool.diagnostics
        # An export that was not tried, or was preempted, is no failure: its events are still in the spool.
        if result.outcome in (ExportOutcome.FAILED, ExportOutcome.REJECTED) or result.rejected:
            reason = diagnostics.failed(result.reason, "events of the spool were not taken")
            diagnostics.tell("spool delivery", f"delivery from the spool fails: {reason}")
        diagnostics.tell_count("spool refused", self.counts.refused, "of the spool refused")
        diagnostics.tell_count("spool delivered", self.counts.delivered, "of the spool delivered")

    def _stop(self) -> None:
        """The only way to `STOPPED`. Called with the lock."""
        self._state = _State.STOPPED
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.release()
        self._stopped.set()
