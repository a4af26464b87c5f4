"""The steps of a checkup in their order.

A step looks at one thing and says what it has found. When a step on the way to the endpoint fails, the later ones on
that way are skipped: they would only fail for the same reason. The steps that look at this machine alone always run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from adbc_telemetry.check import local, network, service
from adbc_telemetry.check.findings import Finding, Status
from adbc_telemetry.check.target import Target


class Step(NamedTuple):
    """One thing to look at.

    Attributes:
        name: as it is printed.
        look: looks at it.
        on_the_way: whether an event gets past here only if this is in order.
    """

    name: str
    look: Callable[[Target], Finding]
    on_the_way: bool = True


def _steps() -> tuple[Step, ...]:
    calls = service.Service()
    return (
        Step("configuration", local.configuration),
        Step("settings", local.settings, on_the_way=False),
        Step("endpoint", local.endpoint),
        Step("proxy", network.proxy),
        Step("name", network.name),
        Step("connection", network.connection),
        Step("TLS", network.tls),
        Step("authentication", calls.authentication),
        Step("flags", calls.flags),
        Step("test event", calls.event),
        Step("answer", calls.answer),
        Step("breaker", calls.breaker, on_the_way=False),
        Step("spool", local.spool, on_the_way=False),
        Step("versions", local.versions, on_the_way=False),
    )


class StepReport(NamedTuple):
    """A step that has been taken, or skipped."""

    name: str
    finding: Finding
    took_ms: float

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        status, sentence, diagnosis = self.finding
        found: dict[str, Any] = {
            "step": self.name,
            "status": status.value,
            "took_ms": round(self.took_ms, 1),
            "found": sentence,
        }
        if diagnosis is not None:
            found |= {
                "diagnosis": diagnosis.label,
                "cause": diagnosis.value.cause,
                "remedy": diagnosis.value.remedy,
            }
        return found


class CheckupReport(NamedTuple):
    """All steps."""

    endpoint: str | None
    steps: list[StepReport]

    @property
    def arrives(self) -> bool:
        """Whether an event has arrived."""
        return all(step.finding.status is not Status.FAILED for step in self.steps)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "endpoint": self.endpoint,
            "arrives": self.arrives,
            "steps": [step.as_json() for step in self.steps],
        }


_SKIPPED: Final = Finding(Status.SKIPPED, "not tried, because of what has failed before")


class Checkup:
    """Looks for the reason why events do not arrive.

    Args:
        target: what to check.
        before: called with each step's name before it is taken.
        after: called with what each step has found.
    """

    def __init__(
        self,
        target: Target,
        *,
        before: Callable[[str], object] = lambda name: None,
        after: Callable[[StepReport], object] = lambda report: None,
    ) -> None:
        self._target = target
        self._before = before
        self._after = after

    def run(self) -> CheckupReport:
        """Take all steps."""
        reports = []
        blocked = False
        for step in _steps():
            self._before(step.name)
            began = time.perf_counter()
            finding = _SKIPPED if blocked and step.on_the_way else step.look(self._target)
            report = StepReport(step.name, finding, (time.perf_counter() - began) * 1000)
            blocked = blocked or (step.on_the_way and finding.status is Status.FAILED)
            reports.append(report)
            self._after(report)
        return CheckupReport(self._target.shown, reports)
