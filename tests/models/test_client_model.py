"""The client against a model of its account: any order of events, answers, flushes, closes and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run

from adbc_telemetry import (
    CircuitBreakerManager,
    ExportOutcome,
    ExportResult,
    TelemetryClient,
    TelemetryConfiguration,
)
from adbc_telemetry.export import breaker as breaker_module
from models.account import Account
from models.circuit import CLOSED, Circuit, FakeClock
from models.held import Call, HeldExport, HeldExporter
from models.scale import scaled
from support.logs import make_log
from support.waiting import wait_until


@dataclass(frozen=True)
class Answer:
    """An export's answer: events delivered and rejected, and the outcome of the rest; or an invalid result."""

    outcome: ExportOutcome
    delivered: int = 0
    rejected: int = 0
    nonsense: Any = ExportResult

    def result(self, size: int) -> ExportResult:
        delivered = min(self.delivered, size)
        rejected = min(self.rejected, size - delivered)
        return ExportResult(outcome=self.outcome, delivered=delivered, rejected=rejected)


ANSWERS = st.one_of(
    st.builds(Answer, st.sampled_from(ExportOutcome)),
    st.builds(Answer, st.sampled_from(ExportOutcome), st.integers(0, 4), st.integers(0, 4)),
    st.builds(
        Answer, st.just(ExportOutcome.FAILED), nonsense=st.sampled_from([RuntimeError("broken"), None, 7])
    ),
)
FATES = ["delivered", "rejected", "failed", "dropped_queue_full", "dropped_circuit_open", "dropped_closed"]


class ClientMachine(RuleBasedStateMachine):
    """A rule answers each export, so that the model knows at each step where every event is."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(breaker_module, "time", self.clock)
        self.seen = 0  # exports that the model has seen
        self.calls: list[
            tuple[Call, set[str] | None]
        ] = []  # running calls and the events that each waits for; None: a close
        self.complete: bool | None = None  # what the close returned
        self.steps = 0
        self.late = 0  # closes of a closed client

    @initialize(
        batch_size=st.integers(1, 4),
        capacity=st.integers(1, 8),
        retain=st.booleans(),
        prompt=st.booleans(),
        stubborn=st.booleans(),
        circuit=st.none() | st.tuples(st.integers(1, 3), st.integers(1, 16)),
        stays_open_for=st.sampled_from([30, 100, 15, 3]),
    )
    def make(
        self,
        batch_size: int,
        capacity: int,
        retain: bool,
        prompt: bool,
        stubborn: bool,
        circuit: tuple[int, int] | None,
        stays_open_for: int,
    ) -> None:
        # Without it, most examples would test closed clients.
        self.stays_open_for = stays_open_for
        threshold, eighths = circuit or (1, 1)
        prompt = (
            prompt or retain
        )  # the flush interval limits how often a client asks whether the circuit has closed
        config = TelemetryConfiguration(
            enabled=True,
            batch_size=batch_size,
            max_queue_size=capacity,
            circuit_open="retain" if retain else "drop",
            circuit_breaker_enabled=circuit is not None,
            circuit_breaker_threshold=threshold,
            circuit_breaker_timeout_ms=eighths * 125,
            flush_interval_ms=2 if prompt else 3_600_000,
            close_timeout_ms=60_000,
        )
        self.exporter = HeldExporter(stubborn)
        self.client = TelemetryClient("host", config, exporter=self.exporter)
        self.model = Account(
            batch_size, capacity, retain, prompt, Circuit(threshold, eighths / 8) if circuit else None
        )

    # Rules: what the test does to the client.

    @rule(count=st.integers(1, 12), answers=st.lists(ANSWERS, max_size=2))
    def enqueue(self, count: int, answers: list[Answer]) -> None:
        """Enqueue a burst, and answer the first exports that it causes."""
        for _ in range(count):
            event = f"{self.model.enqueued}"
            self.client.enqueue(make_log(event))
            self.model.enqueue(event)
            self.follow()
        self.answer(answers)

    @precondition(lambda self: self.held is not None)
    @rule(answers=st.lists(ANSWERS, min_size=1, max_size=4))
    def answer(self, answers: list[Answer]) -> None:
        """End the running export, even an abandoned one, and the exports that follow."""
        for answer in answers:
            if self.held is None:
                break
            result = answer.result(len(self.held.ids))
            if not self.model.closed:
                self.model.answer(result, self.clock.now)
            self.held.answer(result if answer.nonsense is ExportResult else answer.nonsense)
            self.follow()

    @precondition(lambda self: self.held is not None)
    @rule(times=st.integers(2, 6))
    def recover(self, times: int) -> None:
        """Deliver all outstanding events."""
        self.answer([Answer(ExportOutcome.DELIVERED)] * times)

    @precondition(lambda self: self.model.outstanding() or self.steps < 3)
    @rule(timeout=st.sampled_from([0, 0, 0.01]))
    def flush_with_a_timeout(self, timeout: float) -> None:
        waits = bool(self.model.outstanding())
        self.model.flush()
        flushed = self.client.flush(timeout)
        self.follow()
        if not waits:
            assert flushed is True
        elif self.model.outstanding():
            assert flushed is False

    @precondition(lambda self: self.model.outstanding() and len(self.calls) < 4)
    @rule()
    def flush_in_another_thread(self) -> None:
        waits_for = self.model.outstanding()
        self.model.flush()
        self.calls.append((Call(self.client.flush), waits_for))
        self.follow()

    @precondition(lambda self: self.steps >= self.stays_open_for and len(self.calls) < 4 and self.late < 4)
    @rule(at_once=st.booleans(), before=st.integers(0, 6), after=st.integers(0, 3))
    def close(self, at_once: bool, before: int, after: int) -> None:
        """Close, mostly with events outstanding, and enqueue some events too late."""
        self.enqueue(before, [])
        self.late += self.model.closed
        if at_once:
            self.close_at_once()
        else:
            self.model.closing = True
            self.calls.append((Call(self.client.close), None))
            self.follow()
        self.enqueue(after, [])

    @precondition(lambda self: self.model.circuit is not None and self.model.circuit.state is not CLOSED)
    @rule(eighths=st.integers(1, 20))
    def time_passes(self, eighths: int) -> None:
        """Move the circuit's clock; a client that waits for the circuit asks again by itself."""
        self.clock.now += eighths / 8
        self.follow()

    def close_at_once(self) -> None:
        """Close with timeout 0; a running close with more time continues."""
        others, outstanding = self.model.closing, bool(self.model.outstanding())
        self.model.closing = True
        known = len(self.exporter.exports)
        complete = self.client.close(0)
        if self.model.closed:
            assert complete is self.complete
        elif outstanding and others:
            self.follow()
            assert complete is False or not self.model.outstanding()
        else:
            assert complete is not outstanding
            self.complete = complete
            # In its last moment, the close may still send a batch or drop it at an open circuit.
            late = [event for held in self.exporter.exports[known:] for event in held.ids]
            self.seen = len(self.exporter.exports)
            assert late == list(self.model.queue)[: len(late)]
            if not self.model.in_flight and self.model.circuit is not None:
                dropped = self.client.stats().dropped_circuit_open
                self.model.dropped(dropped - self.model.fates["dropped_circuit_open"])
            self.model.give_up(len(late))

    # Invariants, and the steps that the client takes by itself.

    @property
    def held(self) -> HeldExport | None:
        exports = self.exporter.exports
        return exports[-1] if exports and not exports[-1].answered else None

    def follow(self) -> None:
        """Take the client's automatic steps in the model, and check that the client takes them."""
        model = self.model
        while not model.closed and model.due():
            if model.let_through(self.clock.now):
                wait_until(lambda: len(self.exporter.exports) > self.seen, what=self.told("not sent"))
                model.send(self.exporter.exports[self.seen].ids)
                self.seen += 1
            elif model.retain and not model.closing:
                break  # the circuit is open, and its events wait
            else:
                wait_until(self.all_due_are_dropped, what=self.told("not dropped"))
                model.dropped(self.client.stats().dropped_circuit_open - model.fates["dropped_circuit_open"])
        if model.closing and not model.outstanding() and self.complete is None:
            self.complete = True
            model.closed = True

    def all_due_are_dropped(self) -> bool:
        stats = self.client.stats()
        dropped = stats.dropped_circuit_open - self.model.fates["dropped_circuit_open"]
        return not stats.in_flight and not self.model.would_be_due(dropped)

    def told(self, what: str) -> Any:
        return lambda: f"{what}: {self.client.stats()}, {self.model}"

    @invariant()
    def the_account_closes_at_any_moment(self) -> None:
        self.steps += 1
        stats = self.client.stats()
        assert stats.closes, stats

    @invariant()
    def the_account_matches_the_model(self) -> None:
        model = self.model
        expected = {
            **{fate: model.fates[fate] for fate in FATES},
            "enqueued": model.enqueued,
            "queued": len(model.queue),
            "in_flight": len(model.in_flight),
        }

        def seen() -> dict[str, int]:
            stats = self.client.stats()
            return {name: getattr(stats, name) for name in expected}

        # It takes a moment until the client counts an answer or requeues a batch at an open circuit.
        wait_until(lambda: seen() == expected, 5, lambda: f"{seen()}, but the model says {expected}")

    @invariant()
    def only_batches_of_the_model_are_sent(self) -> None:
        assert len(self.exporter.exports) == self.seen
        assert self.exporter.closed is self.model.closed or self.calls

    @invariant()
    def a_call_returns_exactly_when_its_events_are_finished(self) -> None:
        for call, waits_for in list(self.calls):
            if self.model.closed or (waits_for is not None and waits_for <= self.model.over):
                call.join()
                assert call.result is (self.complete if waits_for is None else True)
                self.calls.remove((call, waits_for))
            else:
                assert not call.over, f"returned too soon: {call.result}"

    def teardown(self) -> None:
        try:
            if hasattr(self, "client"):
                self.exporter.let_go()
                self.client.close()
                for call, _ in self.calls:
                    call.join()
                assert self.client.stats().closes
        finally:
            self.patch.undo()
            CircuitBreakerManager.get_instance().remove_circuit_breaker("host")


def test_a_clients_account_matches_its_model() -> None:
    run(ClientMachine, settings=scaled(100, 40))
