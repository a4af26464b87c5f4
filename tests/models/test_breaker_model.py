"""Two hosts' breakers against a model each: any order of exports, outcomes, late outcomes and time."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run

from adbc_telemetry import CircuitBreakerManager, TelemetryConfiguration
from adbc_telemetry.export import breaker as breaker_module
from adbc_telemetry.export.breaker import CircuitBreaker, Permit
from models.circuit import CLOSED, Circuit, FakeClock
from models.scale import scaled

HOSTS = ["one.example", "two.example"]
MANAGER = CircuitBreakerManager.get_instance()


@dataclass
class Side:
    """A breaker, its model, and the running exports as pairs of the breaker's permit and the model's phase."""

    breaker: CircuitBreaker
    model: Circuit
    under_way: list[tuple[Permit, int]] = field(default_factory=list)


class BreakerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(breaker_module, "time", self.clock)
        self.sides: list[Side] = []

    @initialize(settings=st.tuples(*[st.tuples(st.integers(1, 4), st.integers(1, 40))] * len(HOSTS)))
    def make(self, settings: tuple[tuple[int, int], ...]) -> None:
        for host, (threshold, eighths) in zip(HOSTS, settings, strict=True):
            config = TelemetryConfiguration(
                circuit_breaker_threshold=threshold, circuit_breaker_timeout_ms=eighths * 125
            )
            breaker = MANAGER.get_circuit_breaker(host, config)
            self.sides.append(Side(breaker, Circuit(threshold, eighths / 8)))

    @rule(index=st.integers(0, 1))
    def ask(self, index: int) -> None:
        side = self.sides[index]
        permit, phase = side.breaker.ask(), side.model.ask(self.clock.now)
        assert (permit is None) == (phase is None), f"{permit}, but the model says {phase}"
        if permit is not None and phase is not None:
            side.under_way.append((permit, phase))

    @precondition(lambda self: any(side.under_way for side in self.sides))
    @rule(data=st.data(), success=st.sampled_from([True, False, None]), newest=st.booleans())
    def report(self, data: st.DataObject, success: bool | None, newest: bool) -> None:
        side = data.draw(st.sampled_from([side for side in self.sides if side.under_way]))
        last = len(side.under_way) - 1
        index = (
            last if newest else data.draw(st.integers(0, last))
        )  # an older export may belong to an earlier phase
        permit, phase = side.under_way.pop(index)
        side.breaker.report(permit, success)
        side.model.report(phase, success, self.clock.now)

    @rule(index=st.integers(0, 1), success=st.booleans(), times=st.integers(1, 5))
    def export(self, index: int, success: bool, times: int) -> None:
        """Complete exports in a row: the usual case, which reaches states that single steps rarely reach."""
        for _ in range(times):
            self.ask(index)
            side = self.sides[index]
            if side.under_way:
                permit, phase = side.under_way.pop()
                side.breaker.report(permit, success)
                side.model.report(phase, success, self.clock.now)

    @rule(eighths=st.integers(1, 40))
    def time_passes(self, eighths: int) -> None:
        self.clock.now += eighths / 8

    @rule(index=st.integers(0, 1), early=st.booleans())
    def the_timeout_of_a_circuit_is_almost_over(self, index: int, early: bool) -> None:
        model = self.sides[index].model
        if model.state is not CLOSED:
            self.clock.now = max(
                self.clock.now, model.opened + model.open_seconds - (0.125 if early else 0.0)
            )

    @invariant()
    def states_match_the_model(self) -> None:
        for side in self.sides:
            assert side.breaker.state is side.model.state

    def teardown(self) -> None:
        self.patch.undo()
        for host in HOSTS:
            MANAGER.remove_circuit_breaker(host)


def test_the_breakers_of_two_hosts_match_their_models() -> None:
    run(BreakerMachine, settings=scaled(100, 50))
