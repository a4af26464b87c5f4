"""The schedule: its four states, who gets a worker next, and for how long."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from adbc_telemetry.pipeline import scheduler
from adbc_telemetry.pipeline.scheduler import (
    MAX_DEGRADED_WORKERS,
    MAX_TASK_WORKERS,
    PROMPT_SECONDS,
    ClientState,
    Schedule,
    time_slice,
)
from support.clock import Clock

IDLE, DUE, WAITING, BUSY = ClientState.IDLE, ClientState.DUE, ClientState.WAITING, ClientState.BUSY


class FakeClient:
    """Wants to send `after` seconds from now, or has nothing to send."""

    def __init__(
        self, after: float | None = 0.0, *, degraded: bool = False, usual_seconds: float = 0.0
    ) -> None:
        self.at = None if after is None else Clock().now + after
        self.is_degraded = degraded
        self.usual_seconds = usual_seconds

    def next_send(self, now: float) -> float | None:
        return self.at

    def send_batch(self) -> None:
        raise AssertionError("the schedule sends nothing itself")

    def preempt(self, long_waits_only: bool) -> None:
        raise AssertionError("the schedule preempts no client itself")


class Dispatcher:
    """A schedule, and what it has given to workers so far."""

    def __init__(self) -> None:
        self.sending: list[FakeClient] = []
        self.running: list[Callable[[], object]] = []
        self.schedule = Schedule(send=self.sending.append, run=self.running.append)  # type: ignore[arg-type]

    def examine(self, *clients: FakeClient) -> None:
        for client in clients:
            self.schedule.examine(client)

    def states(self, *clients: FakeClient) -> list[ClientState]:
        return [self.schedule.state(client) for client in clients]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(scheduler, "time", clock)
    return clock


@pytest.fixture
def dispatcher(clock: Clock) -> Dispatcher:
    return Dispatcher()


def degraded(count: int) -> list[FakeClient]:
    return [FakeClient(degraded=True) for _ in range(count)]


# States.


def test_a_client_with_nothing_to_send_is_idle(dispatcher: Dispatcher) -> None:
    client = FakeClient(after=None)
    assert dispatcher.states(client) == [IDLE]
    dispatcher.examine(client)
    assert dispatcher.states(client) == [IDLE]
    assert dispatcher.sending == []
    assert dispatcher.schedule.seconds_to_next() is None


def test_a_client_that_wants_to_send_later_is_due_and_then_busy(dispatcher: Dispatcher, clock: Clock) -> None:
    client, later = FakeClient(after=3.0), FakeClient(after=5.0)
    dispatcher.examine(client, later)
    assert dispatcher.states(client, later) == [DUE, DUE]
    assert dispatcher.schedule.seconds_to_next() == 3.0
    clock.now += 2.9
    dispatcher.schedule.start_due()
    assert dispatcher.states(client, later) == [DUE, DUE]
    clock.now += 0.2
    dispatcher.schedule.start_due()
    assert dispatcher.states(client, later) == [BUSY, DUE]
    assert dispatcher.sending == [client]


def test_a_due_client_that_is_asked_again_may_have_changed_its_mind(
    dispatcher: Dispatcher, clock: Clock
) -> None:
    sooner, never = FakeClient(after=5.0), FakeClient(after=5.0)
    dispatcher.examine(sooner, never)
    sooner.at, never.at = clock.now + 1, None
    dispatcher.examine(sooner, never)
    assert dispatcher.states(sooner, never) == [DUE, IDLE]
    assert dispatcher.schedule.seconds_to_next() == 1.0


def test_a_busy_client_is_not_given_a_second_worker(dispatcher: Dispatcher) -> None:
    client = FakeClient()
    dispatcher.examine(client, client, client)
    assert dispatcher.sending == [client]
    assert dispatcher.schedule.under_way == 1


def test_a_client_whose_turn_is_over_is_asked_again(dispatcher: Dispatcher) -> None:
    client = FakeClient()
    dispatcher.examine(client)
    dispatcher.schedule.sent(client)
    assert dispatcher.states(client) == [BUSY]
    assert dispatcher.sending == [client, client]
    client.at = None
    dispatcher.schedule.sent(client)
    assert dispatcher.states(client) == [IDLE]
    assert dispatcher.schedule.under_way == 0


# Fairness.


def test_degraded_clients_hold_a_few_workers_and_wait_for_those_first_come_first_served(
    dispatcher: Dispatcher,
) -> None:
    clients = degraded(MAX_DEGRADED_WORKERS + 2)
    dispatcher.examine(*clients)
    busy, waiting = clients[:MAX_DEGRADED_WORKERS], clients[MAX_DEGRADED_WORKERS:]
    assert dispatcher.sending == busy
    assert dispatcher.states(*waiting) == [WAITING, WAITING]
    assert dispatcher.schedule.has_waiting
    for client in busy[:2]:
        dispatcher.schedule.sent(client)
    assert dispatcher.sending == clients
    assert dispatcher.states(*busy[:2]) == [WAITING, WAITING], "they have had their turn"


def test_a_waiting_client_keeps_its_place_however_often_it_is_examined(dispatcher: Dispatcher) -> None:
    clients = degraded(MAX_DEGRADED_WORKERS + 2)
    dispatcher.examine(*clients)
    *busy, first, second = clients
    dispatcher.examine(first)
    dispatcher.schedule.sent(busy[0])
    assert dispatcher.states(first, second) == [BUSY, WAITING]


def test_a_healthy_client_does_not_wait_for_degraded_ones(dispatcher: Dispatcher) -> None:
    dispatcher.examine(*degraded(MAX_DEGRADED_WORKERS + 2))
    healthy = FakeClient()
    dispatcher.examine(healthy)
    assert dispatcher.states(healthy) == [BUSY]


def test_the_turn_of_a_healthy_client_frees_no_worker_for_degraded_ones(dispatcher: Dispatcher) -> None:
    healthy, clients = FakeClient(), degraded(MAX_DEGRADED_WORKERS + 1)
    dispatcher.examine(healthy, *clients)
    healthy.at = None
    dispatcher.schedule.sent(healthy)
    assert dispatcher.states(clients[-1]) == [WAITING]


def test_a_client_that_becomes_degraded_while_it_is_busy_gives_no_worker_of_degraded_ones_back(
    dispatcher: Dispatcher,
) -> None:
    healthy = FakeClient()
    dispatcher.examine(healthy)
    healthy.is_degraded = True
    clients = degraded(MAX_DEGRADED_WORKERS + 1)
    dispatcher.examine(*clients)
    dispatcher.schedule.sent(healthy)
    assert dispatcher.states(clients[-1], healthy) == [WAITING, WAITING]


def test_a_waiting_client_is_not_forgotten_when_one_before_it_has_nothing_to_send_any_more(
    dispatcher: Dispatcher,
) -> None:
    busy, waiting = degraded(MAX_DEGRADED_WORKERS), degraded(3)
    dispatcher.examine(*busy, *waiting)
    waiting[0].at = None
    for client in busy:
        client.at = None
    dispatcher.schedule.sent(busy[0])
    dispatcher.schedule.sent(busy[1])
    assert dispatcher.states(*waiting) == [IDLE, BUSY, BUSY]


def test_tasks_run_in_order_in_a_few_workers(dispatcher: Dispatcher) -> None:
    tasks: list[Callable[[], object]] = [lambda n=n: n for n in range(MAX_TASK_WORKERS + 2)]  # type: ignore[misc]
    for task in tasks:
        dispatcher.schedule.run_task(task)
    assert dispatcher.running == tasks[:MAX_TASK_WORKERS]
    assert dispatcher.schedule.under_way == MAX_TASK_WORKERS
    dispatcher.schedule.task_done()
    assert dispatcher.running == tasks[: MAX_TASK_WORKERS + 1]
    for _ in range(MAX_TASK_WORKERS + 1):
        dispatcher.schedule.task_done()
    assert dispatcher.running == tasks
    assert dispatcher.schedule.under_way == 0


# How long a worker may be held.


@pytest.mark.parametrize(
    ("waiting", "usual_seconds", "seconds"),
    [
        (1, 0.0, PROMPT_SECONDS),  # few wait: no one is hurried
        (14, 0.0, PROMPT_SECONDS),
        (28, 0.0, 0.5),  # 28 others in 7 workers take their turns within two seconds
        (500, 0.0, 0.2),  # a healthy endpoint needs this much
        (500, 0.25, 0.75),  # three times what it usually takes
        (500, 60.0, PROMPT_SECONDS),
        (0, 0.0, PROMPT_SECONDS),
    ],
)
def test_a_time_slice_shrinks_with_the_number_of_those_who_wait(
    waiting: int, usual_seconds: float, seconds: float
) -> None:
    assert time_slice(FakeClient(usual_seconds=usual_seconds), waiting, workers=7) == seconds
