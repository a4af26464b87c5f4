"""The replay: sends what lies in the spool of a host, batch by batch, beside the host's client.

    waiting    until a time: at first now, after a batch that was not delivered the flush interval, and when there
               was nothing left a minute, since other processes may leave something behind at any time
    sending    one batch, in a worker
    stopped    nothing more is sent; what is left waits for the next process

Closing, it goes on to the end of the spool, or to the first batch that is not delivered, or to the deadline.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
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
    WAITING = 0
    SENDING = 1
    STOPPED = 2


class Replay:
    """Replays the spool of one host through the exporter of its client. See `schedule.Sendable`.

    Args:
        spool: where the events are.
        exporter: where they go.
        batch_size: events sent together at the most.
        pause: seconds between attempts while the endpoint does not take them.
    """

    def __init__(self, spool: Spool, exporter: AbleExporter, batch_size: int, pause: float) -> None:
        self._spool = spool
        self._exporter = exporter
        self._batch_size = batch_size
        self._pause = pause
        self.usual_seconds = 0.0
        self._start()

    def _start(self) -> None:
        self._lock = RLock()  # guards all below
        self._stopped = ReentrantEvent()
        self._state = _State.WAITING
        self._next = 0.0
        self._deadline: float | None = None  # of the close
        self._segment: SpoolSegment | None = None
        self.is_degraded = False
        self.delivered = 0  # events found in the spool, whoever had left them there
        self.refused = 0
        self.errors = AtomicCounter()

    def after_fork_in_child(self) -> None:
        """The segment stays the parent's; the child looks for its own."""
        segment = self._segment
        if segment is not None:
            segment.release()  # this descriptor; the lock is the parent's as long as it has its own
        self._start()

    def look_soon(self) -> None:
        """There is something in the spool again: try to send it after a pause."""
        with self._lock:
            self._next = min(self._next, time.monotonic() + self._pause)

    def begin_close(self, deadline: float) -> None:
        """Send on until `deadline` (`time.monotonic()`) at the most."""
        with self._lock:
            self._deadline = deadline
            if self._state is _State.WAITING and self._next > time.monotonic():
                self._stop()

    def wait_closed(self, deadline: float) -> bool:
        """Whether it has stopped, by `deadline` (`time.monotonic()`)."""
        return self._stopped.wait(deadline - time.monotonic())

    def stop(self) -> None:
        """Send no further batch. One that is under way stays in the spool, unless it is delivered after all."""
        with self._lock:
            self._deadline = time.monotonic()
            if self._state is _State.WAITING:
                self._stop()

    def next_send(self, now: float) -> float | None:
        """See `Sendable`."""
        with self._lock:
            return self._next if self._state is _State.WAITING else None

    def send_batch(self) -> None:
        """See `Sendable`."""
        with self._lock:
            if self._state is not _State.WAITING:
                return
            self._state = _State.SENDING
            deadline = self._deadline
        pause: float | None = None  # after an error of the disk nothing is sent again: it could be sent twice
        try:
            pause = self._send_next(deadline)
        except BaseException as error:
            self._spool.failed("replayed", error)
            self._spool.tell()
            raise
        finally:
            with self._lock:
                self._state = _State.WAITING
                now = time.monotonic()
                self._next = now + (pause or 0.0)
                closing = self._deadline is not None and (pause or now >= self._deadline)
                if pause is None or closing:
                    self._stop()

    def preempt(self, long_waits_only: bool) -> None:
        """See `Sendable`."""
        preempt(self._exporter, long_waits_only, self.errors)

    def _send_next(self, deadline: float | None) -> float:
        """Send a batch of the oldest segment; returns after how many seconds to go on.

        Raises:
            OSError: of the disk.
        """
        segment = self._segment = self._segment or self._spool.claim()
        if segment is None:
            return _LOOK_SECONDS
        batch = segment.last(self._batch_size)
        began = time.monotonic()
        result = safe_export(self._exporter, batch, deadline, self.errors)
        seconds = time.monotonic() - began
        ended = result.batch_outcome(batch)
        with self._lock:
            self.delivered += ended.delivered
            self.refused += ended.rejected
        if ended.unsent:
            self.is_degraded = result.outcome is not ExportOutcome.DROPPED
            self._requeue(segment, batch, ended.unsent)
            self._tell(result)
            return self._pause
        self.is_degraded = seconds > PROMPT_SECONDS
        self.usual_seconds = seconds
        if not segment.cut(len(batch)):
            self._segment = None
        self._tell(result)
        return 0.0

    def _tell(self, result: ExportResult) -> None:
        """Remember why events of the spool were not taken, and log how many were."""
        diagnostics = self._spool.diagnostics
        # An export that was not tried, or was interrupted, says nothing: its events are still in the spool.
        if result.outcome in (ExportOutcome.FAILED, ExportOutcome.REJECTED) or result.rejected:
            reason = diagnostics.failed(result.reason, "events of the spool were not taken")
            diagnostics.tell("spool delivery", f"delivery from the spool fails: {reason}")
        diagnostics.tell_count("spool refused", self.refused, "of the spool refused")
        diagnostics.tell_count("spool delivered", self.delivered, "of the spool delivered")

    def _requeue(
        self,
        segment: SpoolSegment,
        batch: Sequence[TelemetryFrontendLog],
        unsent: Sequence[TelemetryFrontendLog],
    ) -> None:
        """Leave to later what was not sent, and only that if it can be written down; twice is better than never."""
        self._segment = None
        if len(unsent) == len(batch) or self._spool.append(unsent) < len(unsent) or segment.cut(len(batch)):
            segment.release()

    def _stop(self) -> None:
        self._state = _State.STOPPED
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.release()
        self._stopped.set()
