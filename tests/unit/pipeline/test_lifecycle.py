"""The life of a client: every step from every state."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from adbc_telemetry.pipeline.lifecycle import ClientState, Lifecycle

State = ClientState


def in_state(state: ClientState) -> Lifecycle:
    life = Lifecycle(enabled=state is not State.DISABLED)

    def allow_finish() -> None:
        life.allow_finish(0.0)

    steps: dict[ClientState, list[Callable[[], object]]] = {
        State.DISABLED: [],
        State.OPEN: [],
        State.UNABLE: [life.give_up],
        State.CLOSING: [life.begin_close, allow_finish],
        State.FINISHING: [life.begin_close, allow_finish, life.claim_finish],
        State.CLOSED: [life.begin_close, allow_finish, life.claim_finish, lambda: life.end(complete=True)],
    }
    for step in steps[state]:
        step()
    assert life.state is state
    return life


@pytest.mark.parametrize("state", State)
def test_only_an_open_client_begins_to_close(state: ClientState) -> None:
    life = in_state(state)
    assert life.begin_close() is (state is State.OPEN)
    assert life.state is (State.CLOSING if state is State.OPEN else state)


@pytest.mark.parametrize("state", State)
def test_only_an_open_client_gives_up(state: ClientState) -> None:
    life = in_state(state)
    assert life.give_up() is (state is State.OPEN)
    assert life.is_unable is (state in (State.OPEN, State.UNABLE))


@pytest.mark.parametrize("state", State)
def test_a_client_that_sends_nothing_closes_in_one_step(state: ClientState) -> None:
    life = in_state(state)
    idle = state in (State.DISABLED, State.UNABLE)
    assert life.close_idle() is idle
    assert life.closed.is_set() is idle
    assert life.is_ending is (state is not State.OPEN)


@pytest.mark.parametrize("state", State)
def test_one_task_finishes_a_close_that_has_begun_and_no_other_does(state: ClientState) -> None:
    life = in_state(state)
    assert life.claim_finish() is (state is State.CLOSING)
    assert life.claim_finish() is False
    assert life.state is (State.FINISHING if state is State.CLOSING else state)


def test_a_signal_handler_knows_that_it_has_interrupted_the_finishing_task() -> None:
    life = in_state(State.CLOSING)
    assert not life.is_finished_by_this_task
    life.claim_finish()
    assert life.is_finished_by_this_task


@pytest.mark.parametrize("complete", [True, False])
def test_the_end_keeps_whether_the_close_was_complete(complete: bool) -> None:
    life = in_state(State.FINISHING)
    life.end(complete=complete)
    assert life.is_closed
    assert life.complete is complete


def test_a_client_that_is_unable_to_send_has_lost_events() -> None:
    assert not in_state(State.UNABLE).complete


def test_batches_are_sent_until_the_end_of_the_close() -> None:
    sending = {state for state in State if in_state(state).sends}
    assert sending == {State.OPEN, State.CLOSING, State.FINISHING}


@pytest.mark.parametrize("state", State)
def test_in_a_forked_child_a_close_under_way_is_over(state: ClientState) -> None:
    child = in_state(state).in_forked_child()
    ending = state in (State.CLOSING, State.FINISHING, State.CLOSED)
    assert child.state is (State.CLOSED if ending else state)
    assert child.closed.is_set() is ending
