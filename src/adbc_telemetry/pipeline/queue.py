"""The queue of one client: events that wait to be sent, oldest first.

Adding an event takes no lock: `TelemetryClient.enqueue` appends it and compares the length with the wake threshold.
Only an event that reaches the threshold costs more: it calls `admit`.

    state       wake threshold   what `admit` does with the newest event
    accepting   1 or more        wakes the sender; or drops the event, when it is one too many
    refusing    0                drops the event: the client is disabled, closed or unable to send

The threshold of an accepting queue is the length at which the sender wants to be woken; see `batch_timing`.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from enum import Enum
from itertools import repeat, starmap
from typing import TypeAlias

from adbc_telemetry.core.reentrant import AtomicCounter
from adbc_telemetry.events.statement import LoggedStatement
from adbc_telemetry.pipeline.account import Account
from adbc_telemetry.schema import TelemetryFrontendLog

Event: TypeAlias = TelemetryFrontendLog | LoggedStatement
"""What waits in a queue: a log, or the statement from which the sender's side builds the log."""


class QueueState(Enum):
    """Whether a queue takes new events."""

    ACCEPTING = "accepting"
    REFUSING = "refusing"


class EventQueue:
    """A deque with a bound and a wake threshold. Each change is a single step, so it needs no lock.

    Args:
        capacity: how many events may wait.
        account: counts the events that are dropped.

    Attributes:
        events: the events. `enqueue` appends to it directly.
        wake_threshold: the length from which a new event calls `admit`.
        taken: how many events have left the queue at its old end. Written under the client's lock.
    """

    __slots__ = ("_account", "_counts_refused", "_state", "capacity", "events", "taken", "wake_threshold")

    def __init__(self, capacity: int, account: Account) -> None:
        self.events: deque[Event] = deque()
        self.capacity = capacity
        self.wake_threshold = 1
        self.taken = 0
        self._account = account
        self._state = QueueState.ACCEPTING
        self._counts_refused = True

    @property
    def state(self) -> QueueState:
        """Whether the queue takes new events."""
        return self._state

    def __len__(self) -> int:
        return len(self.events)

    @property
    def end(self) -> int:
        """The position after the newest event, counted from the first event ever."""
        return self.taken + len(self.events)

    # The caller's side.

    def admit(self) -> bool:
        """Decide about the newest event, at the wake threshold.

        Returns:
            Whether the sender has to be woken.
        """
        if self._state is QueueState.REFUSING:
            self._drop_newest(self._account.dropped_closed if self._counts_refused else None)
            return False
        if len(self.events) > self.capacity:
            self._drop_newest(self._account.dropped_full)
            return False
        # Until the sender has looked, further events need not wake it again.
        self.wake_when_over_full()
        return True

    # The sender's side.

    def wake_at(self, length: int) -> None:
        """Have the event that makes the queue `length` long wake the sender. A refusing queue stays at 0."""
        if self._state is QueueState.ACCEPTING:
            self.wake_threshold = length
            # `refuse` may have run between the two lines, on another thread or in a signal handler.
            if self.state is QueueState.REFUSING:
                self.wake_threshold = 0

    def wake_when_over_full(self) -> None:
        """Let no event wake the sender, which looks by itself. An event beyond the capacity is still dropped."""
        self.wake_at(self.capacity + 1)

    def take(self, count: int) -> list[Event]:
        """Take the `count` oldest events out, or all where there are fewer."""
        events: list[Event] = []
        # `admit` may drop an event meanwhile, so the length is not known in advance.
        with contextlib.suppress(IndexError):
            events.extend(starmap(self.events.popleft, repeat((), count)))
        self.taken += len(events)
        return events

    def requeue(self, events: Sequence[Event]) -> None:
        """Put events back at the old end. For want of room the newest are dropped."""
        self.events.extendleft(reversed(events))
        self.taken -= len(events)
        while len(self.events) > self.capacity:
            self._drop_newest(self._account.dropped_full)

    def refuse(self, *, counted: bool = True) -> None:
        """Take no event from now on.

        Args:
            counted: whether events that come later are counted as dropped.
        """
        self._counts_refused = counted
        self._state = QueueState.REFUSING
        self.wake_threshold = 0

    def drop_all(self) -> None:
        """Drop what is left in a refusing queue."""
        while self.events:
            self._drop_newest(self._account.dropped_closed)

    def _drop_newest(self, counter: AtomicCounter | None) -> None:
        """Drop the newest event. It may be another thread's by now: one event too many is as good as another."""
        try:
            self.events.pop()
        except IndexError:
            return  # the sender was faster
        if counter is not None:
            counter.increment()
