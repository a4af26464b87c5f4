"""Which segments are compacted into which file, when a worker's answer is lost or the clock is set back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")

from adbc_telemetry.collector.store import commits, compaction, moving
from adbc_telemetry.collector.store.compaction import Compactor
from adbc_telemetry.collector.store.layout import StoreFolder, create_store
from adbc_telemetry.collector.workers import WorkerError
from support.stores import events_in, parquet_files, running_store, stored_log, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "FIRST_FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(moving, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(moving, "RETRY_SECONDS", 0.3)


def assert_each_once(path: Path, expected: int) -> None:
    ids = [event_id for (event_id,) in events_in(path, "event_id")]
    assert len(ids) == len(set(ids)) == expected


def test_a_compaction_whose_answer_was_lost_is_not_done_again_into_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the answer is waited for, enough segments gather for a file of their own."""
    path = tmp_path / "store"

    async def main() -> None:
        async with running_store(path) as store:
            await store.add([stored_log("first")])
            await until(lambda: len(parquet_files(path)) == 1, "the first file")
            call = store._compactor.call
            lost = False

            async def losing(result_type: Any, method: str, **parameters: Any) -> Any:
                nonlocal lost
                answer = await call(result_type, method, **parameters)
                if method == "compact" and not lost:
                    lost = True
                    monkeypatch.setattr(commits, "SEGMENT_BYTES", 1)
                    raise WorkerError("the process ended, or took too long")
                return answer

            monkeypatch.setattr(store._compactor, "call", losing)
            await store.add([stored_log("merged")])
            await until(lambda: lost, "the lost answer")
            for number in range(8):
                await store.add([stored_log(f"later-{number}")])
            await until(lambda: len(parquet_files(path)) > 1, "the second file")
            await until(lambda: store.health().problems == [], "the end of the trouble")
            assert_each_once(path, 10)

    asyncio.run(main())
    assert_each_once(path, 10)


def test_a_clock_that_is_set_back_over_midnight_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    monkeypatch.setattr(moving, "FIRST_FLUSH_SECONDS", 60.0)

    async def main() -> None:
        async with running_store(path) as store:
            for day in ("2026-01-02", "2026-01-01", "2026-01-02", "2026-01-02"):
                monkeypatch.setattr(commits, "_today", lambda day=day: day)
                await store.add([stored_log()])

    asyncio.run(main())
    assert list((path / "journal").iterdir()) == []
    assert_each_once(path, 4)


def test_what_is_too_large_for_the_memory_is_compacted_by_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "_PIECE_BYTES", 300)
    path = tmp_path / "store"
    folder = create_store(path)
    compactor = Compactor(str(path))
    target = folder.data_file(1, "2026-01-01").path
    for numbers in ([1, 2], [3]):
        compactor.compact([(number, str(_segment(folder, number))) for number in numbers], str(target))
        for number in numbers:
            folder.segment(number, "2026-01-01").path.unlink()
        monkeypatch.setattr(compactor, "_copy_journal", _out_of_memory_once(compactor._copy_journal))
    assert_each_once(path, 15)
    assert compactor.describe(str(target)) == (15, 3)
    assert list(folder.tmp.iterdir()) == []


def _segment(folder: StoreFolder, number: int) -> Path:
    path = folder.segment(number, "2026-01-01").path
    lines = [
        f'{{"received_us":1,"log":"{{\\"frontend_log_event_id\\":\\"{number}-{i}\\"}}"}}\n' for i in range(5)
    ]
    path.write_text("".join(lines))
    return path


def _out_of_memory_once(copy: Any) -> Any:
    import duckdb

    failed = False

    def copying(*arguments: Any) -> Any:
        nonlocal failed
        if not failed:
            failed = True
            raise duckdb.OutOfMemoryException
        return copy(*arguments)

    return copying
