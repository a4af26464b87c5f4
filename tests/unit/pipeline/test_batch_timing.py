"""When batches are due: a function of the time and of the length of the queue."""

from __future__ import annotations

import pytest

from adbc_telemetry.pipeline.batch_timing import BatchTiming, NextLook, TimingState

BATCH, CAPACITY, INTERVAL, REST, CROWD = 5, 1000, 2.0, 0.05, 50


def make_timing(batch_size: int = BATCH, capacity: int = CAPACITY, interval: float = INTERVAL) -> BatchTiming:
    return BatchTiming(batch_size, capacity, interval)


def look(timing: BatchTiming, now: float, length: int, *, flush: bool = False) -> NextLook:
    return timing.next_look(now, length, flush=flush)


def send_full_batch(timing: BatchTiming, now: float, left: int = 0) -> None:
    assert look(timing, now, BATCH + left).at == now
    timing.batch_taken()
    timing.full_batch_sent(now, left)


def resting(now: float = 100.0) -> BatchTiming:
    """One that has just sent two full batches."""
    timing = make_timing()
    send_full_batch(timing, now)
    send_full_batch(timing, now)
    assert timing.state is TimingState.RESTING
    return timing


def test_an_idle_client_waits_for_its_first_event() -> None:
    timing = make_timing()
    assert look(timing, 100.0, 0) == NextLook(None, 1)
    assert timing.state is TimingState.IDLE


def test_the_first_event_waits_for_others_for_the_flush_interval() -> None:
    timing = make_timing()
    assert look(timing, 100.0, 1) == NextLook(102.0, BATCH)
    assert look(timing, 101.0, 4) == NextLook(102.0, BATCH)
    assert timing.state is TimingState.GATHERING


def test_a_full_batch_is_due_at_once() -> None:
    timing = make_timing()
    look(timing, 100.0, 1)
    assert look(timing, 100.5, BATCH) == NextLook(100.5, BATCH)


def test_part_of_a_batch_is_due_after_the_interval() -> None:
    timing = make_timing()
    look(timing, 100.0, 1)
    due = look(timing, 102.5, 3).at
    assert due is not None
    assert due <= 102.5


def test_a_flush_is_due_at_once() -> None:
    timing = make_timing()
    assert look(timing, 100.0, 1, flush=True).at == 100.0


def test_a_flush_of_an_empty_queue_sends_nothing() -> None:
    assert look(make_timing(), 100.0, 0, flush=True) == NextLook(None, 1)


def test_after_part_of_a_batch_the_client_is_idle() -> None:
    timing = make_timing()
    look(timing, 100.0, 1)
    timing.batch_taken()
    assert look(timing, 100.0, 0) == NextLook(None, 1)


def test_after_a_full_batch_the_first_event_of_the_next_does_not_wake_the_sender() -> None:
    timing = make_timing()
    send_full_batch(timing, 100.0)
    assert look(timing, 100.0, 0) == NextLook(102.0, BATCH)


def test_when_the_expected_events_do_not_come_the_client_goes_idle() -> None:
    timing = make_timing()
    send_full_batch(timing, 100.0)
    assert look(timing, 102.0, 0) == NextLook(None, 1)
    assert timing.state is TimingState.IDLE


def test_full_batches_that_follow_closely_start_a_rest() -> None:
    assert look(resting(100.0), 100.0, 0) == NextLook(100.0 + REST, CROWD)


def test_full_batches_that_follow_slowly_start_none() -> None:
    timing = make_timing()
    send_full_batch(timing, 100.0)
    send_full_batch(timing, 100.1)
    assert timing.state is TimingState.GATHERING


def test_no_rest_starts_while_another_full_batch_waits() -> None:
    timing = make_timing()
    send_full_batch(timing, 100.0)
    send_full_batch(timing, 100.0, left=BATCH)
    assert look(timing, 100.0, BATCH).at == 100.0


def test_a_crowd_ends_the_rest() -> None:
    timing = resting(100.0)
    assert look(timing, 100.01, CROWD - 1).at == 100.0 + REST
    assert look(timing, 100.02, CROWD).at == 100.02


def test_a_crowd_is_a_tenth_of_the_queue_at_the_most() -> None:
    timing = make_timing(capacity=100)
    send_full_batch(timing, 100.0)
    send_full_batch(timing, 100.0)
    assert look(timing, 100.0, 0).wake_at == 10


def test_a_flush_ends_the_rest() -> None:
    assert look(resting(100.0), 100.01, 1, flush=True).at == 100.01


def test_the_rest_ends_by_itself_and_full_batches_are_sent() -> None:
    timing = resting(100.0)
    assert look(timing, 100.0 + REST, BATCH).at == 100.0 + REST
    assert timing.state is TimingState.GATHERING


def test_with_batches_of_one_event_nothing_is_delayed() -> None:
    timing = make_timing(batch_size=1)
    for now in (100.0, 100.001, 100.002):
        assert look(timing, now, 1).at == now
        timing.batch_taken()
        timing.full_batch_sent(now, 0)


@pytest.mark.parametrize(("interval", "hold"), [(INTERVAL, 0.25), (0.1, 0.1)])
@pytest.mark.parametrize("flush", [False, True])
def test_held_events_wait_for_the_circuit_also_when_flushed(
    flush: bool, interval: float, hold: float
) -> None:
    timing = make_timing(interval=interval)
    timing.hold(100.0)
    assert look(timing, 100.0, BATCH, flush=flush) == NextLook(100.0 + hold, CAPACITY + 1)
    assert look(timing, 100.0 + hold, BATCH, flush=flush).at == 100.0 + hold


def test_at_exit_every_event_is_due_at_once() -> None:
    timing = resting(100.0)
    timing.never_delay()
    look(timing, 100.0 + REST, 1)
    timing.batch_taken()
    assert look(timing, 101.0, 1).at == 101.0


# How large a batch may be.

LARGEST, PATIENCE = 50, 1.0


def growing(patience: float = PATIENCE) -> BatchTiming:
    return BatchTiming(BATCH, CAPACITY, INTERVAL, largest=LARGEST, patience=patience)


def test_a_batch_has_the_usual_size_until_the_load_has_lasted() -> None:
    timing = growing()
    sizes = []
    for step in range(8):
        now = 100.0 + step * 0.2
        sizes.append(timing.size(now))
        timing.batch_taken()
        timing.full_batch_sent(now, BATCH)
    assert sizes == [BATCH] * 5 + [LARGEST] * 3


def test_a_pause_ends_the_load() -> None:
    timing = growing()
    for step in range(8):
        timing.full_batch_sent(100.0 + step * 0.2, BATCH)
    assert timing.size(101.5) == LARGEST
    assert timing.size(101.7) == BATCH
    timing.full_batch_sent(101.7, BATCH)
    assert timing.size(101.7) == BATCH
    assert timing.size(101.9) == BATCH


def test_without_patience_a_batch_may_be_large_at_once() -> None:
    assert growing(patience=0.0).size(100.0) == LARGEST


def test_after_a_failure_the_usual_size_holds_until_a_full_batch_is_delivered() -> None:
    timing = growing(patience=0.0)
    timing.batch_failed()
    assert timing.size(100.0) == BATCH
    timing.full_batch_sent(100.0, 0)
    assert timing.size(100.0) == LARGEST


def test_the_usual_size_is_the_largest_where_nothing_else_is_said() -> None:
    timing = make_timing()
    for step in range(100):
        timing.full_batch_sent(100.0 + step * 0.1, BATCH)
    assert timing.size(110.0) == BATCH
