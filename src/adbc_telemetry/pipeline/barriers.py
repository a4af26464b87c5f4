"""The barriers of flush: each waits until all events up to a position in the queue are finished.

A position counts events from the first one ever enqueued. When the newest events are dropped for want of room, later
events take their positions; so a goal beyond the end of the queue comes down with the end.

    state     what it means
    raised    its events are queued or in flight
    reached   they are finished; it stays reached
"""

from __future__ import annotations

from collections.abc import Callable

from adbc_telemetry.core.reentrant import ReentrantEvent


class Barrier:
    """What one flush waits for.

    Args:
        goal: all events before this position are finished. None: no event is in flight.
        notify: called once, when the barrier is reached.
    """

    __slots__ = ("goal", "notify", "reached")

    def __init__(self, goal: int | None, notify: Callable[[], None] | None) -> None:
        self.goal = goal
        self.notify = notify
        self.reached = ReentrantEvent()

    def open(self) -> None:
        """Let the flush go on."""
        self.reached.set()
        if self.notify is not None:
            self.notify()


class FlushBarriers:
    """The barriers that flushes wait at. Guarded by the client's lock.

    Attributes:
        goal: the sender sends all events before this position without delay.
    """

    def __init__(self) -> None:
        self.goal = 0
        self._raised: set[Barrier] = set()

    def send_up_to(self, position: int) -> None:
        """Have all events before `position` sent without delay."""
        self.goal = max(self.goal, position)

    def send_no_more_than(self, position: int) -> None:
        """Let no event from `position` on count as asked for."""
        self.goal = position

    def raise_barrier(self, notify: Callable[[], None] | None = None) -> Barrier:
        """A barrier for all events that are to be sent without delay."""
        return self._add(Barrier(self.goal, notify))

    def raise_in_flight_barrier(self) -> Barrier:
        """A barrier for the batch in flight alone."""
        return self._add(Barrier(None, None))

    def _add(self, barrier: Barrier) -> Barrier:
        self._raised.add(barrier)
        return barrier

    def lower(self, barrier: Barrier) -> None:
        """Forget a barrier, reached or not. A single step, so it needs no lock."""
        self._raised.discard(barrier)

    def queue_ends_at(self, end: int) -> None:
        """Events were dropped at the end of the queue: bring the goals beyond it down."""
        self.goal = min(self.goal, end)
        for barrier in list(self._raised):
            if barrier.goal is not None:
                barrier.goal = min(barrier.goal, end)

    def take_reached(self, *, taken: int, queued: int, in_flight: int) -> list[Barrier]:
        """The barriers that are reached now, to be opened without the lock: `notify` may call into an event loop.

        Args:
            taken: how many events have left the queue.
            queued, in_flight: how many events wait, and how many are being sent.
        """
        all_ended = not (queued or in_flight)  # a goal may count an event that was dropped after it
        ended = taken - in_flight  # events are sent in their order
        reached = [
            each
            for each in list(self._raised)
            if all_ended or (not in_flight if each.goal is None else ended >= each.goal)
        ]
        self._raised.difference_update(reached)
        return reached
