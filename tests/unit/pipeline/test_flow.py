"""Where the events of a client are, step by step and without threads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest

from adbc_telemetry import TelemetryConfiguration
from adbc_telemetry.export.base import BatchOutcome, ExportOutcome, ExportResult
from adbc_telemetry.pipeline.flow import EventFlow, Unsent
from adbc_telemetry.pipeline.lifecycle import ClientState, Lifecycle
from adbc_telemetry.protocols import ClientStats
from adbc_telemetry.schema import TelemetryFrontendLog

DELIVERED, FAILED = ExportOutcome.DELIVERED, ExportOutcome.FAILED
DROPPED, CANCELLED = ExportOutcome.DROPPED, ExportOutcome.CANCELLED


def make_flow(**settings: Any) -> EventFlow:
    config = TelemetryConfiguration(enabled=True, **{"batch_size": 3, "max_queue_size": 10, **settings})
    return EventFlow(config, Lifecycle(enabled=True))


def enqueue(flow: EventFlow, count: int) -> None:
    for _ in range(count):
        flow.queue.events.append(TelemetryFrontendLog())
        if len(flow.queue.events) >= flow.queue.wake_threshold:
            flow.queue.admit()


def stats(flow: EventFlow) -> ClientStats:
    told = flow.account.stats(
        taken=flow.queue.taken,
        queued=len(flow.queue),
        in_flight=flow.in_flight.count,
        replayed=0,
        spool_lost=0,
        further_errors=0,
        last_failure=None,
    )
    assert told.closes
    return told


def give_back(
    flow: EventFlow, outcome: ExportOutcome, unsent: Sequence[Any] = (), *, preempted: bool = False
) -> Unsent | None:
    delivered = flow.in_flight.count - len(unsent)
    batch = BatchOutcome(delivered=delivered, rejected=0, unsent=list(unsent))
    return flow.batch_returned(batch, ExportResult(outcome), preempted=preempted)


def unsent_batch(events: Sequence[Any]) -> BatchOutcome:
    return BatchOutcome(delivered=0, rejected=0, unsent=list(events))


def test_a_batch_goes_from_the_queue_over_in_flight_to_its_end() -> None:
    flow = make_flow()
    enqueue(flow, 4)
    batch, deadline = flow.take_batch()
    assert (len(batch), deadline) == (3, None)
    assert (stats(flow).queued, stats(flow).in_flight) == (1, 3)
    assert give_back(flow, DELIVERED) is Unsent.LOST
    assert (stats(flow).delivered, stats(flow).in_flight) == (3, 0)


def test_events_that_could_not_be_sent_are_counted_as_failed() -> None:
    flow = make_flow()
    enqueue(flow, 3)
    batch, _ = flow.take_batch()
    assert give_back(flow, FAILED, batch[1:]) is Unsent.LOST
    assert (stats(flow).delivered, stats(flow).failed) == (1, 2)


def test_while_the_circuit_is_open_events_are_dropped() -> None:
    flow = make_flow()
    enqueue(flow, 3)
    batch, _ = flow.take_batch()
    assert give_back(flow, DROPPED, batch) is Unsent.LOST
    assert stats(flow).dropped_circuit_open == 3


def test_or_they_are_held_in_the_queue() -> None:
    flow = make_flow(circuit_open="retain")
    enqueue(flow, 3)
    batch, _ = flow.take_batch()
    assert give_back(flow, DROPPED, batch) is Unsent.REQUEUED
    assert stats(flow).queued == 3
    now = time.monotonic()
    at = flow.next_send(now)
    assert at is not None
    assert at > now, "the circuit is asked again after a while"


@pytest.mark.parametrize("ending", ["close", "exit"])
def test_at_the_end_no_event_is_held(ending: str) -> None:
    flow = make_flow(circuit_open="retain")
    enqueue(flow, 3)
    batch, _ = flow.take_batch()
    assert flow.begin_close(0.0) if ending == "close" else flow.begin_exit()
    assert give_back(flow, DROPPED, batch) is Unsent.LOST
    assert stats(flow).dropped_circuit_open == 3


@pytest.mark.parametrize("preempted", [True, False])
def test_a_cancelled_batch_is_requeued_when_the_sender_has_preempted_it(preempted: bool) -> None:
    flow = make_flow()
    enqueue(flow, 3)
    batch, _ = flow.take_batch()
    unsent = give_back(flow, CANCELLED, batch, preempted=preempted)
    assert unsent is (Unsent.REQUEUED if preempted else Unsent.LOST)
    assert list(flow.queue.events) == (batch if preempted else [])


def test_with_a_spool_the_caller_writes_unsent_events_down() -> None:
    flow = make_flow(spool_dir="somewhere")
    enqueue(flow, 3)
    batch, _ = flow.take_batch()
    assert give_back(flow, FAILED, batch) is Unsent.TO_SPOOL
    assert stats(flow).in_flight == 3, "until they are written"
    flow.batch_spooled(unsent_batch(batch), ExportResult(FAILED), 2)
    assert (stats(flow).spooled, stats(flow).failed, stats(flow).in_flight) == (2, 1, 0)


def test_a_batch_that_the_close_has_given_up_on_is_counted_once() -> None:
    flow = make_flow()
    enqueue(flow, 5)
    batch, _ = flow.take_batch()
    flow.begin_close(0.0)
    abandoned, left = flow.take_rest()
    assert (list(abandoned), len(left)) == (batch, 2)
    flow.rest_spooled(abandoned=3, abandoned_spooled=1, left=2, left_spooled=0)
    assert give_back(flow, DELIVERED) is None, "the exporter lets go of it late"
    flow.end(complete=False)
    assert (stats(flow).failed, stats(flow).spooled, stats(flow).dropped_closed) == (2, 1, 2)
    assert flow.lifecycle.state is ClientState.CLOSED


def test_a_batch_that_is_written_to_a_hanging_disk_is_counted_once() -> None:
    flow = make_flow(spool_dir="somewhere")
    enqueue(flow, 3)
    batch, _ = flow.take_batch()
    give_back(flow, FAILED, batch)
    flow.begin_close(0.0)
    assert flow.take_rest() == ([], [])
    flow.end(complete=False)
    flow.batch_spooled(unsent_batch(batch), ExportResult(FAILED), 3)
    assert (stats(flow).failed, stats(flow).spooled) == (3, 0)


def test_a_closing_client_sends_what_came_before_the_close() -> None:
    flow = make_flow()
    enqueue(flow, 2)
    assert flow.begin_close(5.0)
    enqueue(flow, 2)
    now = time.monotonic()
    assert flow.next_send(now) == now
    batch, deadline = flow.take_batch()
    assert (len(batch), deadline) == (2, 5.0)
    assert (stats(flow).dropped_closed, flow.begin_close(9.0)) == (2, False)


def test_out_of_time_no_further_batch_begins() -> None:
    flow = make_flow()
    enqueue(flow, 3)
    flow.begin_close(0.0)
    flow.begin_no_batch()
    assert flow.take_batch()[0] == []


def test_a_flush_waits_for_its_events_and_for_no_later_ones() -> None:
    flow = make_flow()
    enqueue(flow, 2)
    flow.flush_all()
    barrier = flow.raise_barrier()
    enqueue(flow, 5)
    flow.take_batch()
    flow.open_reached_barriers()
    assert not barrier.reached.is_set()
    give_back(flow, DELIVERED)
    flow.open_reached_barriers()
    assert barrier.reached.is_set()


def test_an_interpreter_without_threads_keeps_no_event() -> None:
    flow = make_flow()
    enqueue(flow, 2)
    flow.give_up()
    enqueue(flow, 1)
    assert stats(flow).dropped_closed == 3
    assert flow.next_send(time.monotonic()) is None
    assert flow.close_idle()


def test_a_closed_client_is_asked_without_its_lock() -> None:
    flow = make_flow()
    flow.begin_close(0.0)
    flow.lifecycle.claim_finish()
    flow.end(complete=True)

    class Held:
        def __enter__(self) -> None:
            raise AssertionError("the lock is taken")

        def __exit__(self, *exc_info: object) -> None: ...

    flow.lock = Held()  # type: ignore[assignment]
    assert flow.next_send(time.monotonic()) is None


def test_events_that_come_while_the_threshold_changes_are_not_overlooked() -> None:
    flow = make_flow()
    enqueue(flow, 1)
    changed = flow.queue.wake_at

    class Late:
        """An event arrives just before the threshold comes down, so it wakes no sender."""

        left = 1

        def __call__(self, length: int) -> None:
            if self.left:
                self.left = 0
                flow.queue.events.extend([TelemetryFrontendLog()] * 2)
            changed(length)

    wake_at = Late()
    queue = flow.queue

    class Queue:
        def __getattr__(self, name: str) -> Any:
            return wake_at if name == "wake_at" else getattr(queue, name)

        def __len__(self) -> int:
            return len(queue)

    flow.queue = Queue()  # type: ignore[assignment]
    now = time.monotonic()
    assert flow.next_send(now) == now
