"""The service: a process of its own, answers that are shared, and a bounded queue."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("duckdb")

from adbc_telemetry.collector.queries import service as module
from adbc_telemetry.collector.queries.filters import Filter
from adbc_telemetry.collector.queries.service import QueriesUnavailable, QueryService
from adbc_telemetry.collector.workers import WorkerProcess
from support.event_stores import NOON, EventStore, an_event

pytestmark = pytest.mark.slow


@pytest.fixture
def store(tmp_path: Path) -> EventStore:
    store = EventStore(tmp_path / "store")
    store.add_file([an_event(event_id="one"), an_event(error="TimeoutError")])
    return store


def run(store: EventStore, use: Callable[[QueryService], Awaitable[Any]], *, prepare: bool = False) -> Any:
    async def main() -> Any:
        service = QueryService(store.path, prepare=prepare)
        await service.start()
        try:
            return await asyncio.wait_for(use(service), 60)
        finally:
            await service.close()

    return asyncio.run(main())


class Calls:
    """Counts the questions that reach the process, and can hold them back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = 0
        self.gate = asyncio.Event()
        self.gate.set()
        real = WorkerProcess.call

        async def call(worker: Any, *arguments: Any, **parameters: Any) -> Any:
            self.number += 1
            await self.gate.wait()
            return await real(worker, *arguments, **parameters)

        monkeypatch.setattr(WorkerProcess, "call", call)


def test_answers_come_from_another_process_that_gives_way(store: EventStore) -> None:
    async def use(service: QueryService) -> None:
        panel = await service.panel("summary", Filter())
        assert panel.rows[0][:2] == [2, 1]
        assert service.pid not in (None, os.getpid())
        if hasattr(os, "getpriority"):
            assert os.getpriority(os.PRIO_PROCESS, service.pid or 0) >= 5
        report = await service.report(Filter(), "error")
        assert [group.values for group in report.groups or []] == [[None], ["TimeoutError"]]
        event = await service.event("one", Filter(since=NOON))
        assert event is not None
        assert event["event_id"] == "one"
        assert await service.event("none", Filter()) is None
        with pytest.raises(KeyError):
            await service.panel("no such panel", Filter())

    run(store, use)


def test_45_who_ask_the_same_share_one_answer(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)

    async def use(service: QueryService) -> None:
        panels = await asyncio.gather(*(service.panel("summary", Filter()) for _ in range(45)))
        assert {panel.rows[0][0] for panel in panels} == {2}

    run(store, use)
    assert calls.number == 1


def test_who_goes_away_takes_no_answer_from_the_others(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)

    async def use(service: QueryService) -> None:
        calls.gate.clear()
        first = asyncio.create_task(service.panel("summary", Filter()))
        await asyncio.sleep(0)
        second = asyncio.create_task(service.panel("summary", Filter()))
        await asyncio.sleep(0)
        first.cancel()
        calls.gate.set()
        assert (await second).rows[0][0] == 2

    run(store, use)


def test_too_many_different_questions_are_refused(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    monkeypatch.setattr(module, "_MOST_WAITING", 3)

    async def use(service: QueryService) -> None:
        calls.gate.clear()
        waiting = [asyncio.create_task(service.panel("summary", Filter(host=str(n)))) for n in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(QueriesUnavailable) as refused:
            await service.panel("summary", Filter(host="one more"))
        assert refused.value.retry_after > 0
        calls.gate.set()
        await asyncio.gather(*waiting)
        assert (await service.panel("summary", Filter(host="one more"))).rows[0][0] == 0

    run(store, use)


def test_a_process_that_dies_is_replaced(store: EventStore) -> None:
    async def use(service: QueryService) -> None:
        await service.panel("summary", Filter())
        assert service.pid is not None
        process = psutil.Process(service.pid)
        os.kill(service.pid, signal.SIGTERM)
        process.wait(20)
        assert (await service.panel("hosts", Filter())).rows[0][1] == 2

    run(store, use)


def test_a_question_that_takes_too_long_is_ended(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(service: QueryService) -> None:
        await service.panel("summary", Filter())
        psutil.Process(service.pid).suspend()  # so that it does not answer, however fast it is
        with monkeypatch.context() as patch:
            patch.setattr(module, "_TIMEOUT", 0.1)
            with pytest.raises(QueriesUnavailable):
                await service.panel("hosts", Filter(host="slow"))
        assert (await service.panel("hosts", Filter())).rows[0][1] == 2

    run(store, use)


def test_files_are_counted_before_they_are_asked_for(store: EventStore) -> None:
    store.add_file([an_event()])  # the newest one is left out

    async def use(service: QueryService) -> None:
        while not list(store.folder.rollups.iterdir()):
            await asyncio.sleep(0.01)

    run(store, use, prepare=True)


def test_close_ends_the_process_and_what_is_under_way(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []

    async def use(service: QueryService) -> None:
        await service.panel("summary", Filter())
        pids.append(service.pid or 0)

    run(store, use, prepare=True)
    assert not psutil.pid_exists(pids[0])
