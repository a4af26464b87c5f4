"""An exporter whose exports wait until the test answers them, so that the test steps a client."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from adbc_telemetry import ExportOutcome, ExportResult
from adbc_telemetry.core.reentrant import ReentrantEvent
from adbc_telemetry.schema import TelemetryFrontendLog
from support.logs import ids_of
from support.waiting import wait_until


class HeldExport:
    def __init__(self, ids: list[str]) -> None:
        self.ids = ids
        self.answered = False
        self._answers: SimpleQueue[Any] = SimpleQueue()

    def answer(self, answer: Any) -> None:
        self.answered = True
        self._answers.put(answer)

    def wait(self) -> Any:
        return self._answers.get(timeout=60)


class HeldExporter:
    """Keeps `exports` in order of arrival. A stubborn exporter does not end them when it is closed."""

    def __init__(self, stubborn: bool) -> None:
        self.exports: list[HeldExport] = []
        self.closed = False
        self._lets_go = False
        self._stubborn = stubborn

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        held = HeldExport(ids_of(list(logs)))
        self.exports.append(held)
        if self._lets_go:
            self._answer_all()
        answer = held.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    def close(self) -> None:
        self.closed = True
        if not self._stubborn:
            self.let_go()

    def let_go(self) -> None:
        """End the held exports and all later ones."""
        self._lets_go = True
        self._answer_all()

    def _answer_all(self) -> None:
        for held in self.exports:
            if not held.answered:
                held.answer(ExportResult(outcome=ExportOutcome.CANCELLED))


class Call:
    """A call in its own thread. The constructor returns once the call waits or has returned."""

    def __init__(self, target: Callable[[], Any]) -> None:
        self.result: Any = None
        self._thread = threading.Thread(target=self._run, args=(target,), name="test-call")
        self._thread.start()
        wait_until(lambda: self.over or self._waits())

    def _run(self, target: Callable[[], Any]) -> None:
        self.result = target()

    def _waits(self) -> bool:
        """Whether the thread is inside `ReentrantEvent.wait`, so that the code before the wait has run."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return frame is not None and frame.f_code is ReentrantEvent.wait.__code__

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def join(self) -> None:
        self._thread.join(10)
        assert self.over, "a call hangs"
