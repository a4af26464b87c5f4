"""The model of a client (promises 3 to 5, 8 and 11): where each event is, and the outcome of each finished one."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from adbc_telemetry import ExportOutcome, ExportResult
from models.circuit import Circuit

LOSS = {
    ExportOutcome.DELIVERED: "delivered",
    ExportOutcome.REJECTED: "rejected",
    ExportOutcome.FAILED: "failed",
    ExportOutcome.CANCELLED: "failed",
    ExportOutcome.DROPPED: "dropped_circuit_open",
}


@dataclass
class Account:
    """The model. Each event is queued, in the batch in flight, or finished; events finish in order."""

    batch_size: int
    capacity: int
    retain: bool
    prompt: bool  # the flush interval is short, so that no event waits for a full batch
    circuit: Circuit | None
    queue: deque[str] = field(default_factory=deque)
    in_flight: list[str] = field(default_factory=list)
    over: set[str] = field(default_factory=set)
    fates: Counter[str] = field(default_factory=Counter)
    enqueued: int = 0
    urgent: set[str] = field(default_factory=set)  # a flush waits for them
    closing: bool = False
    closed: bool = False
    phase: int | None = None  # the circuit's phase when it let the batch in flight through

    def enqueue(self, event: str) -> None:
        self.enqueued += 1
        if self.closing:
            self._end([event], "dropped_closed")
        elif len(self.queue) >= self.capacity:
            self._end([event], "dropped_queue_full")
        else:
            self.queue.append(event)

    def outstanding(self) -> set[str]:
        return {*self.queue, *self.in_flight}

    def flush(self) -> None:
        self.urgent |= set(self.queue)

    def due(self) -> bool:
        """Whether a batch must be sent now: it is full, a flush waits for it, or the client is closing."""
        return not self.in_flight and self.would_be_due(0)

    def would_be_due(self, without: int) -> bool:
        """Whether a batch would be due without the oldest `without` events."""
        left = list(self.queue)[without:]
        full = len(left) >= min(self.batch_size, self.capacity)
        asked = self.closing or not self.urgent.isdisjoint(left)
        return bool(left) and (full or asked or self.prompt)

    def let_through(self, now: float) -> bool:
        """Whether the circuit lets the next batch through; called once per batch."""
        if self.circuit is None:
            return True
        self.phase = self.circuit.ask(now)
        return self.phase is not None

    def send(self, batch: list[str]) -> None:
        """`batch` was sent. The client promises the order of events and a largest batch size, no more."""
        assert not self.in_flight, "two batches of one client in flight at once"
        assert not self.closed, "sent after the close"
        assert 0 < len(batch) <= self.batch_size
        assert batch == list(self.queue)[: len(batch)]
        for _ in batch:
            self.queue.popleft()
        self.in_flight = batch

    def dropped(self, count: int) -> None:
        """An open circuit dropped the oldest `count` events."""
        self._end([self.queue.popleft() for _ in range(count)], "dropped_circuit_open")

    def answer(self, result: ExportResult, now: float) -> None:
        """The batch in flight has a result."""
        batch, self.in_flight = self.in_flight, []
        if self.circuit is not None and self.phase is not None:
            says_nothing = result.outcome is ExportOutcome.CANCELLED or (
                result.outcome is ExportOutcome.REJECTED and result.rejected >= len(batch)
            )
            self.circuit.report(self.phase, None if says_nothing else bool(result), now)
        told = result.delivered + result.rejected
        self._end(batch[: result.delivered], "delivered")
        self._end(batch[result.delivered : told], "rejected")
        if result.outcome is ExportOutcome.DROPPED and self.retain and not self.closing:
            self.queue.extendleft(reversed(batch[told:]))
            while len(self.queue) > self.capacity:
                self._end([self.queue.pop()], "dropped_queue_full")
        else:
            self._end(batch[told:], LOSS[result.outcome])

    def give_up(self, sent_last: int) -> None:
        """The close timed out. `sent_last` events left the queue in its last moment."""
        self.closed = True
        self.in_flight += [self.queue.popleft() for _ in range(sent_last)]
        self._end(self.in_flight, "failed")
        self._end(list(self.queue), "dropped_closed")
        self.in_flight = []
        self.queue.clear()

    def _end(self, events: list[str], fate: str) -> None:
        assert self.over.isdisjoint(events)
        self.over.update(events)
        self.fates[fate] += len(events)
