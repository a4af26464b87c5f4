"""The collector's side of the queries: one question at a time, in a process of its own; answers are shared."""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from adbc_telemetry.collector.queries.answers import PANELS, By, FileFormat, Panel, Report
from adbc_telemetry.collector.queries.filters import Filter
from adbc_telemetry.collector.workers import WorkerError, WorkerProcess

_PROCESS: Final = "adbc_telemetry.collector.queries.process"
_NICENESS: Final = 5
_MOST_WAITING: Final = 64
_KEPT_ANSWERS: Final = 128
_FRESH_SECONDS: Final = 1.0
_TIMEOUT: Final = 60.0
_EXPORT_TIMEOUT: Final = 600.0
_MOST_UNSENT_EXPORTS: Final = 4
_PREPARE_SECONDS: Final = 5.0


class QueriesUnavailable(Exception):
    """A question cannot be answered now. The message says why; the same question may be asked again later."""

    retry_after: int = 5
    """Seconds."""


class QueryService:
    """Answers questions about a store. Use it on one event loop, and close it.

    Args:
        path: the folder of a store, or a Delta table.
        prepare: count the events of new Parquet files before they are asked for, so that the first question
            does not wait for it.
        storage_options: for a table in an object store, as `deltalake` takes them.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        prepare: bool = True,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        self._worker = WorkerProcess(
            _PROCESS, [os.fspath(path)], niceness=_NICENESS, secrets=dict(storage_options or {})
        )
        self._prepare = prepare
        self._waiting = 0
        self._exporting = False
        self.unsent_exports = 0
        """Files that are being sent; counted by the one who sends them."""
        self._answers: OrderedDict[object, tuple[float, asyncio.Task[Any]]] = OrderedDict()
        self._preparing: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process that answers, or None while there is none."""
        return self._worker.pid

    async def start(self) -> None:
        """Begin to prepare. Without it, the service answers too."""
        if self._prepare and self._preparing is None:
            self._preparing = asyncio.create_task(self._prepare_always())

    async def panel(self, name: str, filter: Filter) -> Panel:
        """A panel of the page.

        Raises:
            QueriesUnavailable: too many questions wait, or this one took too much time or memory.
            KeyError: there is no such panel.
        """
        if name not in PANELS:
            raise KeyError(name)
        panel: Panel = await self._ask(Panel, "panel", name=name, filter=filter.in_whole_minutes())
        return panel

    async def event(self, event_id: str, filter: Filter) -> dict[str, Any] | None:
        """One event with all of its columns, or None if there is no such event.

        Raises:
            QueriesUnavailable: as in `panel`.
        """
        found: dict[str, Any] | None = await self._ask(
            dict[str, Any] | None, "event", event_id=event_id, filter=filter.in_whole_minutes()
        )
        return found

    async def report(self, filter: Filter, by: By | None = None) -> Report:
        """The report of a range, its operations or the groups named.

        Raises:
            QueriesUnavailable: as in `panel`.
        """
        report: Report = await self._ask(Report, "report", filter=filter, by=by)
        return report

    async def export(self, target: Path, file_format: FileFormat) -> None:
        """Write all events into a file. Questions wait meanwhile.

        Raises:
            QueriesUnavailable: an export is under way, or the file cannot be written.
        """
        # Readers that are slow, or mean to be, must not fill the disk with files that wait for them.
        if self._exporting or self.unsent_exports >= _MOST_UNSENT_EXPORTS:
            raise QueriesUnavailable("An export is under way; ask again later.")
        self._exporting = True
        try:
            await self._worker.call(
                type(None), "export", timeout=_EXPORT_TIMEOUT, target=str(target), file_format=file_format
            )
        except WorkerError:
            raise QueriesUnavailable(
                "The export took too much time or room; export the store's folder instead."
            ) from None
        finally:
            self._exporting = False

    async def close(self) -> None:
        """End the process, and what is under way with it."""
        if self._preparing is not None:
            self._preparing.cancel()
        await asyncio.get_running_loop().run_in_executor(None, self._worker.close)
        tasks = [task for _, task in self._answers.values()]
        if self._preparing is not None:
            tasks.append(self._preparing)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, result_type: Any, method: str, **parameters: Any) -> Any:
        """The answer to a question; who asks the same meanwhile, or within a second, shares it."""
        key = (method, *parameters.values())
        asked, task = self._answers.get(key, (0.0, None))
        if task is None or (task.done() and time.monotonic() - asked > _FRESH_SECONDS):
            if self._waiting >= _MOST_WAITING:
                raise QueriesUnavailable("Too many questions wait; ask again later.")
            task = asyncio.create_task(self._call(result_type, method, parameters))
            self._answers[key] = (time.monotonic(), task)
            while len(self._answers) > _KEPT_ANSWERS:
                self._answers.popitem(last=False)
        self._answers.move_to_end(key)
        # Who asked may go away: the others wait for the same answer.
        try:
            return await asyncio.shield(task)
        finally:
            # An event may take megabytes, and is hardly ever asked for twice.
            if method == "event" and task.done():
                self._answers.pop(key, None)

    async def _call(self, result_type: Any, method: str, parameters: dict[str, Any]) -> Any:
        self._waiting += 1
        try:
            return await self._worker.call(result_type, method, timeout=_TIMEOUT, **parameters)
        except WorkerError:
            raise QueriesUnavailable(
                "The question took too much time or memory; ask about a shorter range."
            ) from None
        finally:
            self._waiting -= 1

    async def _prepare_always(self) -> None:
        while True:
            try:
                left = await self._worker.call(bool, "prepare", timeout=_TIMEOUT)
            except WorkerError:
                left = False
            await asyncio.sleep(0 if left else _PREPARE_SECONDS)
