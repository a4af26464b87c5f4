"""The barriers of flush: positions in the queue, and when they are reached."""

from __future__ import annotations

from adbc_telemetry.pipeline.barriers import Barrier, FlushBarriers


def take_reached(barriers: FlushBarriers, taken: int, queued: int, in_flight: int) -> list[Barrier]:
    return barriers.take_reached(taken=taken, queued=queued, in_flight=in_flight)


def barrier_at(barriers: FlushBarriers, position: int) -> Barrier:
    barriers.send_up_to(position)
    return barriers.raise_barrier()


def test_a_barrier_is_reached_when_all_events_before_it_have_ended() -> None:
    barriers = FlushBarriers()
    barrier = barrier_at(barriers, 5)
    assert take_reached(barriers, taken=5, queued=3, in_flight=1) == []
    assert take_reached(barriers, taken=5, queued=3, in_flight=0) == [barrier]
    assert take_reached(barriers, taken=5, queued=3, in_flight=0) == [], "each is reached once"


def test_later_events_do_not_hold_up_an_earlier_barrier() -> None:
    barriers = FlushBarriers()
    earlier, later = barrier_at(barriers, 5), barrier_at(barriers, 8)
    assert take_reached(barriers, taken=8, queued=0, in_flight=3) == [earlier]
    assert take_reached(barriers, taken=8, queued=0, in_flight=0) == [later]


def test_a_goal_that_counts_a_dropped_event_is_reached_when_nothing_is_left() -> None:
    barriers = FlushBarriers()
    barrier = barrier_at(barriers, 6)
    assert take_reached(barriers, taken=5, queued=0, in_flight=0) == [barrier]


def test_goals_beyond_the_end_of_the_queue_come_down_with_it() -> None:
    barriers = FlushBarriers()
    barrier = barrier_at(barriers, 6)
    barriers.queue_ends_at(4)
    assert barriers.goal == 4
    assert take_reached(barriers, taken=4, queued=2, in_flight=0) == [barrier]


def test_a_barrier_for_the_batch_in_flight_is_reached_whatever_is_queued() -> None:
    barriers = FlushBarriers()
    barrier = barriers.raise_in_flight_barrier()
    barriers.queue_ends_at(0)
    assert take_reached(barriers, taken=5, queued=9, in_flight=2) == []
    assert take_reached(barriers, taken=3, queued=11, in_flight=0) == [barrier]


def test_a_lowered_barrier_is_forgotten() -> None:
    barriers = FlushBarriers()
    barriers.lower(barrier_at(barriers, 1))
    barriers.lower(Barrier(3, None))
    assert take_reached(barriers, taken=9, queued=0, in_flight=0) == []


def test_an_open_barrier_tells_once_and_stays_reached() -> None:
    told: list[bool] = []
    barrier = Barrier(0, lambda: told.append(True))
    barrier.open()
    assert barrier.reached.wait(0)
    assert told == [True]


def test_the_goal_never_goes_back_by_itself() -> None:
    barriers = FlushBarriers()
    barriers.send_up_to(5)
    barriers.send_up_to(3)
    assert barriers.goal == 5
    barriers.send_no_more_than(2)
    assert barriers.goal == 2
