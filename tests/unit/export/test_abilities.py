"""What an exporter may be able to do beyond `export` and `close`, and the adapter for one that can do no more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from adbc_telemetry import (
    CircuitBreakerTelemetryExporter,
    DatabricksTelemetryExporter,
    ExportOutcome,
    ExportResult,
    InMemoryTelemetryExporter,
    JsonLinesTelemetryExporter,
    TelemetryConfiguration,
)
from adbc_telemetry.core.reentrant import AtomicCounter
from adbc_telemetry.export.base import (
    AbleExporter,
    expire,
    hold_nothing_open,
    preempt,
    safe_close,
    safe_export,
    takes_statements,
    with_abilities,
)
from adbc_telemetry.schema import TelemetryFrontendLog
from support.logs import make_logs

CONFIG = TelemetryConfiguration()


class Foreign:
    """An exporter with `export` and `close` alone."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        self.calls.append(("export", len(logs), deadline))
        return ExportResult(ExportOutcome.DELIVERED)

    def close(self) -> None:
        self.calls.append("close")


class AbleForeign(Foreign):
    """One that inherits nothing of ours, and has every ability all the same."""

    takes_statements = True

    def expire(self, deadline: float) -> None:
        self.calls.append(("expire", deadline))

    def preempt(self, long_waits_only: bool) -> None:
        self.calls.append(("preempt", long_waits_only))

    def hold_nothing_open(self) -> bool:
        self.calls.append("hold nothing open")
        return True


class Raising:
    """A foreign exporter that raises whatever it is asked."""

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        raise RuntimeError

    def close(self) -> None:
        raise RuntimeError

    @property
    def expire(self) -> Any:
        raise RuntimeError

    def preempt(self, long_waits_only: bool) -> None:
        raise RuntimeError


class Subclass(DatabricksTelemetryExporter):
    """Does more at its close than its parent knows."""


def use(exporter: AbleExporter, errors: AtomicCounter) -> ExportResult:
    """Ask everything of an exporter that the client may ask."""
    result = safe_export(exporter, make_logs(2), 7.0, errors)
    expire(exporter, 8.0, errors)
    preempt(exporter, True, errors)
    safe_close(exporter, errors)
    return result


def test_an_exporter_with_export_and_close_alone_is_asked_nothing_else() -> None:
    foreign, errors = Foreign(), AtomicCounter()
    exporter = with_abilities(foreign)
    assert use(exporter, errors).outcome is ExportOutcome.DELIVERED
    assert foreign.calls == [("export", 2, 7.0), "close"]
    assert not takes_statements(exporter)
    assert not hold_nothing_open(exporter)
    assert errors.value() == 0


def test_a_foreign_exporter_may_be_told_to_end_early_and_makes_no_other_promise() -> None:
    foreign, errors = AbleForeign(), AtomicCounter()
    exporter = with_abilities(foreign)
    use(exporter, errors)
    assert foreign.calls == [("export", 2, 7.0), ("expire", 8.0), ("preempt", True), "close"]
    assert not takes_statements(exporter)
    assert not hold_nothing_open(exporter)
    assert "hold nothing open" not in foreign.calls


def test_each_exception_of_a_foreign_exporter_is_counted_and_goes_no_further() -> None:
    errors = AtomicCounter()
    result = use(with_abilities(Raising()), errors)
    assert (result.outcome, result.reason) == (ExportOutcome.FAILED, "RuntimeError")
    assert errors.value() == 4


@pytest.mark.parametrize("answer", [None, "delivered", ExportResult(ExportOutcome.FAILED, "2")])  # type: ignore[arg-type]
def test_an_answer_of_another_type_is_a_failed_export(answer: Any) -> None:
    class Odd(Foreign):
        def export(self, *_: object, **__: object) -> Any:
            return answer

    errors = AtomicCounter()
    result = safe_export(with_abilities(Odd()), make_logs(1), None, errors)
    assert (result.outcome, result.reason, errors.value()) == (ExportOutcome.FAILED, "TypeError", 1)


def test_an_exporter_of_ours_is_used_as_it_is() -> None:
    for exporter in (InMemoryTelemetryExporter(), Subclass("host", CONFIG)):
        assert with_abilities(exporter) is exporter


def test_our_exporters_can_hold_nothing_open_and_those_of_the_service_take_statements(tmp_path: Path) -> None:
    service = DatabricksTelemetryExporter("host", CONFIG)
    behind_a_breaker = CircuitBreakerTelemetryExporter(service, "host")
    assert takes_statements(service)
    assert takes_statements(behind_a_breaker)
    for exporter in (InMemoryTelemetryExporter(), JsonLinesTelemetryExporter(tmp_path / "f")):
        assert not takes_statements(exporter)
        assert hold_nothing_open(exporter)
    assert hold_nothing_open(service)
    assert hold_nothing_open(behind_a_breaker)


def test_a_subclass_gets_logs_and_is_not_told_to_hold_nothing_open() -> None:
    class OfABreaker(CircuitBreakerTelemetryExporter):
        pass

    subclass = Subclass("host", CONFIG)
    exporters = [
        subclass,
        CircuitBreakerTelemetryExporter(subclass, "host"),
        OfABreaker(DatabricksTelemetryExporter("host", CONFIG), "host"),
    ]
    for exporter in exporters:
        assert not takes_statements(exporter)
        assert not hold_nothing_open(exporter)
    assert subclass._transport._holds_open


def test_a_breaker_hands_what_it_is_told_to_the_exporter_behind_it() -> None:
    foreign = AbleForeign()
    errors = AtomicCounter()
    use(CircuitBreakerTelemetryExporter(foreign, "host"), errors)
    assert foreign.calls == [("export", 2, 7.0), ("expire", 8.0), ("preempt", True), "close"]


def test_a_breaker_counts_the_exceptions_of_the_exporter_behind_it() -> None:
    errors = AtomicCounter()
    breaker = CircuitBreakerTelemetryExporter(Raising(), "host")
    assert use(breaker, errors).outcome is ExportOutcome.FAILED
    assert (breaker.errors, errors.value()) == (4, 0)
