"""The queue of a client: bound, wake threshold, and the events that it drops."""

from __future__ import annotations

from adbc_telemetry.pipeline.account import Account
from adbc_telemetry.pipeline.queue import EventQueue, QueueState
from adbc_telemetry.schema import TelemetryFrontendLog


def make_queue(capacity: int = 3) -> tuple[EventQueue, Account]:
    account = Account()
    return EventQueue(capacity, account), account


def make_logs(count: int) -> list[TelemetryFrontendLog]:
    return [TelemetryFrontendLog(frontend_log_event_id=str(number)) for number in range(count)]


def enqueue(queue: EventQueue, *events: TelemetryFrontendLog) -> int:
    """As `TelemetryClient.enqueue` does it; how often the sender was woken."""
    woken = 0
    for event in events:
        queue.events.append(event)
        if len(queue.events) >= queue.wake_threshold:
            woken += queue.admit()
    return woken


def test_only_the_first_event_wakes_the_sender_until_it_has_looked() -> None:
    queue, _ = make_queue(capacity=10)
    assert enqueue(queue, *make_logs(5)) == 1


def test_the_event_that_reaches_the_threshold_wakes_the_sender_again() -> None:
    queue, _ = make_queue(capacity=10)
    enqueue(queue, *make_logs(1))
    queue.wake_at(4)
    assert enqueue(queue, *make_logs(2)) == 0
    assert enqueue(queue, *make_logs(1)) == 1


def test_one_event_too_many_is_dropped_and_the_oldest_are_kept() -> None:
    queue, account = make_queue(capacity=3)
    logs = make_logs(5)
    enqueue(queue, *logs)
    assert list(queue.events) == logs[:3]
    assert account.dropped_full.value() == 2


def test_taking_moves_the_start_of_the_queue_and_keeps_its_end() -> None:
    queue, _ = make_queue(capacity=10)
    logs = make_logs(5)
    enqueue(queue, *logs)
    assert queue.end == 5
    assert queue.take(2) == logs[:2]
    assert (queue.taken, len(queue), queue.end) == (2, 3, 5)
    assert queue.take(99) == logs[2:]
    assert queue.take(-1) == []


def test_requeued_events_are_the_oldest_again_and_in_their_order() -> None:
    queue, _ = make_queue(capacity=10)
    logs = make_logs(4)
    enqueue(queue, *logs)
    queue.requeue(queue.take(3))
    assert list(queue.events) == logs
    assert queue.taken == 0


def test_requeued_events_displace_the_newest_where_there_is_no_room() -> None:
    queue, account = make_queue(capacity=3)
    logs = make_logs(5)
    enqueue(queue, *logs[:3])
    batch = queue.take(2)
    enqueue(queue, *logs[3:])
    queue.requeue(batch)
    assert list(queue.events) == logs[:3]
    assert account.dropped_full.value() == 2


def test_a_refusing_queue_drops_and_counts_every_new_event() -> None:
    queue, account = make_queue()
    queue.refuse()
    assert queue.state is QueueState.REFUSING
    assert enqueue(queue, *make_logs(2)) == 0
    assert not queue.events
    assert account.dropped_closed.value() == 2


def test_the_queue_of_a_disabled_client_counts_nothing() -> None:
    queue, account = make_queue()
    queue.refuse(counted=False)
    enqueue(queue, *make_logs(2))
    assert not queue.events
    assert account.dropped_closed.value() == 0


def test_a_refusing_queue_stays_one() -> None:
    queue, _ = make_queue()
    queue.refuse()
    queue.wake_at(5)
    queue.wake_when_over_full()
    assert queue.wake_threshold == 0


def test_a_close_during_a_change_of_the_threshold_wins() -> None:
    class ClosedInBetween(EventQueue):
        __slots__ = ()

        @property
        def state(self) -> QueueState:
            self.refuse()
            return super().state

    queue = ClosedInBetween(3, Account())
    queue.wake_at(2)
    assert queue.wake_threshold == 0


def test_what_is_left_in_a_refusing_queue_is_dropped_and_counted() -> None:
    queue, account = make_queue()
    enqueue(queue, *make_logs(3))
    queue.refuse()
    queue.drop_all()
    assert not queue.events
    assert account.dropped_closed.value() == 3
