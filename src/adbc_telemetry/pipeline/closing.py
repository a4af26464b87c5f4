"""The one close of a client, and the end of its process.

A close goes through three steps; see `lifecycle` for the states.

    begin     no event is taken any more; the sender sends the queued ones by the deadline
    wait      every caller waits, until all is sent or the deadline comes
    finish    one caller cancels what is under way, and spools or counts the rest

The process may end without a close. Then all is sent in the same way, but the client stays open: exit handlers that
run later may still enqueue.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Final

from adbc_telemetry.export.base import expire, hold_nothing_open, safe_close
from adbc_telemetry.pipeline.batch_delivery import BatchDelivery

# What a close may take beyond its timeout to see a cancelled request end and the threads go.
_GRACE_SECONDS: Final = 0.1
# What it may take beyond that for a batch that is being written to the spool.
_SPOOLING_SECONDS: Final = 0.5


class Closing:
    """Closes one client. All deadlines are `time.monotonic()` values.

    Args:
        delivery: of the client.
    """

    def __init__(self, delivery: BatchDelivery) -> None:
        self._delivery = delivery

    def begin(self, deadline: float) -> None:
        """Take no more events and have the rest sent by `deadline`; returns at once. The first call counts."""
        if sys.is_finalizing():  # a thread may have ended while it held the lock
            return
        delivery, flow = self._delivery, self._delivery.flow
        unable = flow.lifecycle.is_unable
        if flow.close_idle():
            if unable:
                safe_close(delivery.exporter, flow.account.errors)
            return
        if not delivery.has_threads:
            deadline = time.monotonic()  # nothing sends, so there is nothing to wait for
        if not flow.begin_close(deadline):
            return
        delivery.wake_if_queued()
        if delivery.replay is not None:
            delivery.replay.begin_close(deadline)
        expire(delivery.exporter, deadline, flow.account.errors)

    def finish(self, deadline: float | None = None) -> bool:
        """Wait until all is sent, or until the deadline of the close, and count the rest.

        Every caller that waits to the end may finish, and only one does: the caller that began the close may be
        interrupted. A caller with an earlier `deadline` of its own leaves it to the others.

        Returns:
            Whether the close is over and has lost nothing for want of time.
        """
        lifecycle = self._delivery.flow.lifecycle
        if not (lifecycle.closed.is_set() or lifecycle.deadline is None or sys.is_finalizing()):
            self._wait_and_finish(lifecycle.deadline, deadline)
        return lifecycle.closed.is_set() and lifecycle.complete

    def _wait_and_finish(self, last: float, deadline: float | None) -> None:
        delivery, lifecycle = self._delivery, self._delivery.flow.lifecycle
        delivery.wake_if_queued()  # a signal handler may come here before `begin` has done so
        until = last if deadline is None else min(deadline, last)
        sent = delivery.wait_at(delivery.request_flush(), until)
        replayed = sent and delivery.wait_for_replay(until)
        if not replayed and time.monotonic() < last:
            return
        if not lifecycle.claim_finish():
            if not lifecycle.is_finished_by_this_task:
                lifecycle.closed.wait(2 * _GRACE_SECONDS)
            return
        try:
            self._finish(sent, last + _GRACE_SECONDS)
        finally:
            lifecycle.closed.set()

    def _finish(self, sent: bool, grace: float) -> None:
        delivery, flow = self._delivery, self._delivery.flow
        flow.begin_no_batch()
        if delivery.replay is not None:
            delivery.replay.stop()
        safe_close(delivery.exporter, flow.account.errors)  # cancels a request that is under way
        delivery.wait_for_batch_in_flight(grace)
        abandoned, left = flow.take_rest()
        flow.rest_spooled(
            abandoned=len(abandoned),
            abandoned_spooled=delivery.to_spool(abandoned),
            left=len(left),
            left_spooled=delivery.to_spool(left),
        )
        delivery.wait_for_batch_in_flight(grace + _SPOOLING_SECONDS)
        flow.end(complete=sent)
        if abandoned:
            delivery.report.abandoned()
        delivery.report.dropped(flow.account.drops(), last=True)
        flow.open_reached_barriers()
        delivery.detach(grace)

    # The end of the process; see `shutdown`.

    def begin_exit(self, deadline: float) -> None:
        """Have all queued events sent by `deadline`, and later ones at once; returns at once."""
        delivery = self._delivery
        if not delivery.flow.begin_exit():
            return
        delivery.send_all_now()
        if delivery.replay is not None:
            delivery.replay.begin_close(deadline)
        # A little later, so that a last request that takes all of the time does not look as if it was in time.
        expire(delivery.exporter, deadline + _GRACE_SECONDS, delivery.flow.account.errors)

    def finish_exit(self, deadline: float) -> bool:
        """Wait for what `begin_exit` has begun, until `deadline`.

        Returns:
            Whether the client needs no close now: it is closed, or can stay open until the process is gone.
        """
        delivery, lifecycle = self._delivery, self._delivery.flow.lifecycle
        if not lifecycle.is_open:
            self.finish()
            return True
        sent = delivery.wait_at(delivery.request_flush(), deadline)
        in_time = sent and delivery.wait_for_replay(deadline)
        if not (in_time and hold_nothing_open(delivery.exporter)):
            return False
        expire(
            delivery.exporter, math.inf, delivery.flow.account.errors
        )  # not the requests that are still to come
        return True

    def begin_at_exit(self) -> None:
        """The client is made while the process ends: treat it as `finish_exit` treats clients that stay open."""
        self._delivery.flow.begin_exit()
        hold_nothing_open(self._delivery.exporter)
