"""When a client sends its next batch, and how large that may be: a function of the time and of the queue's length.

    state      what it means                                        due                          wake threshold
    idle       no event waits, none is expected                     never                        1
    gathering  a batch fills, or is expected to                     when full, or the interval   the size of a batch
                                                                    after the first event
    resting    full batches follow each other closely: send         after the rest, or when a    a crowd
               several at a time                                    crowd has come
    holding    events wait for the circuit, which is open           after the hold               none

Resting saves changes of thread: each costs a busy program as much as several statements do.

A batch is due at its usual size, and may be larger: of a busy client it takes what has come meanwhile, up to the
largest size. After a batch that was not delivered the usual size holds again: a failed request is to cost few events.

No clock, no lock and no thread is in here. `flow` calls it under the client's lock.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

# Full batches that follow each other within this time start a rest, which takes as long.
_REST_SECONDS: Final = 0.05
# A rest ends early when so many batches have come, or when the queue is a tenth full.
_CROWD_BATCHES: Final = 10
# How often a client with held events asks the circuit again. Asking costs next to nothing.
_HOLD_SECONDS: Final = 0.25


# Full batches that follow each other within this time are those of a busy client.
_BUSY_SECONDS: Final = 0.25


class TimingState(Enum):
    """What the next batch waits for."""

    IDLE = "idle"
    GATHERING = "gathering"
    RESTING = "resting"
    HOLDING = "holding"


class NextLook(NamedTuple):
    """When the sender looks at the queue again.

    Attributes:
        at: the time (`time.monotonic()`) to send the next batch, now if it is not later; None for never.
        wake_at: the length of the queue at which a new event makes the sender look earlier.
    """

    at: float | None
    wake_at: int


class BatchTiming:
    """Decides when the next batch is due.

    Args:
        batch_size: events in a full batch.
        capacity: events that may wait in the queue.
        interval: seconds that an event waits for others.
        largest: events in the largest batch of a busy client; None for `batch_size`.
        patience: seconds that a client has to be busy before its batches may grow.
    """

    def __init__(
        self,
        batch_size: int,
        capacity: int,
        interval: float,
        *,
        largest: int | None = None,
        patience: float = 0.0,
    ) -> None:
        self._batch_size = batch_size
        self._largest = batch_size if largest is None else largest
        self._patience = patience
        self._busy_since = 0.0  # since when full batches have followed each other
        self._failing = False  # whether the last batch was not delivered
        self._capacity = capacity
        self._crowd = max(batch_size, min(_CROWD_BATCHES * batch_size, capacity // 10))
        self._interval = interval
        self._rest = min(_REST_SECONDS, interval) if batch_size > 1 else 0.0  # with batch_size=1, never delay
        self._state = TimingState.IDLE
        self._since = 0.0  # gathering and resting: when the next batch began to fill
        self._until = 0.0  # resting and holding: the end of it
        self._last_full_batch = float("-inf")  # when it had been sent

    @property
    def state(self) -> TimingState:
        """What the next batch waits for."""
        return self._state

    def next_look(self, now: float, length: int, *, flush: bool) -> NextLook:
        """When to send the next batch.

        Args:
            now: the time, as all times here `time.monotonic()`.
            length: of the queue.
            flush: whether a flush wants the oldest events sent at once.
        """
        if self._state is TimingState.HOLDING:
            if now < self._until:
                return NextLook(self._until, self._capacity + 1)
            self._state = TimingState.IDLE
        if flush and length:
            return NextLook(now, self._capacity + 1)
        if self._state is TimingState.RESTING:
            if now < self._until and length < self._crowd:
                return NextLook(self._until, self._crowd)
            self._state = TimingState.GATHERING
        if self._state is TimingState.GATHERING and not length and now >= self._since + self._interval:
            self._state = TimingState.IDLE  # the expected events did not come
        if self._state is TimingState.IDLE:
            if not length:
                return NextLook(None, 1)
            self._state, self._since = TimingState.GATHERING, now
        return NextLook(now if length >= self._batch_size else self._since + self._interval, self._batch_size)

    def size(self, now: float) -> int:
        """How many events the batch that is taken now may have."""
        if self._failing:
            return self._batch_size
        is_busy = now - self._last_full_batch < _BUSY_SECONDS and now - self._busy_since >= self._patience
        return self._largest if is_busy or not self._patience else self._batch_size

    def batch_taken(self) -> None:
        """A batch has left the queue."""
        self._state = TimingState.IDLE

    def full_batch_sent(self, now: float, length: int) -> None:
        """A full batch was sent well: expect more, so that the first event of the next need not wake the sender."""
        self._failing = False
        follows_closely = now - self._last_full_batch < _REST_SECONDS
        if now - self._last_full_batch >= _BUSY_SECONDS:
            self._busy_since = now
        self._last_full_batch = now
        self._since = now - self._rest if length else now  # events that wait already may have come in a rest
        rests = follows_closely and length < self._batch_size
        self._state = TimingState.RESTING if rests else TimingState.GATHERING
        self._until = now + self._rest

    def batch_failed(self) -> None:
        """A batch was not delivered: the next ones have the usual size, until a full one is."""
        self._failing = True

    def hold(self, now: float) -> None:
        """The batch is back in the queue, until the circuit lets it through."""
        self._state = TimingState.HOLDING
        self._until = now + min(self._interval, _HOLD_SECONDS)

    def never_delay(self) -> None:
        """Send each event at once from now on: the process ends."""
        self._interval = self._rest = 0.0
