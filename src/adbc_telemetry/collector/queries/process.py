"""The process that answers questions, apart from the intake. Its argument is the store or the table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from adbc_telemetry.collector import workers
from adbc_telemetry.collector.queries.answers import By, FileFormat, Panel, Report
from adbc_telemetry.collector.queries.filters import Filter
from adbc_telemetry.collector.queries.questions import Questions


class _Process:
    """The questions as messages carry them."""

    def __init__(self, path: str) -> None:
        self._questions = Questions(path, workers.secrets())

    def panel(self, name: str, filter: dict[str, Any]) -> Panel:
        return self._questions.panel(name, msgspec.convert(filter, Filter))

    def event(self, event_id: str, filter: dict[str, Any]) -> dict[str, Any] | None:
        return self._questions.event(event_id, msgspec.convert(filter, Filter))

    def report(self, filter: dict[str, Any], by: By | None) -> Report:
        return self._questions.report(msgspec.convert(filter, Filter), by)

    def export(self, target: str, file_format: FileFormat) -> None:
        self._questions.export(Path(target), file_format)

    def prepare(self) -> bool:
        return self._questions.prepare()


if __name__ == "__main__":
    workers.serve(_Process(sys.argv[1]))
