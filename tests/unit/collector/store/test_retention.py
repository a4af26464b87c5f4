"""Whole files are deleted, the oldest first."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

pytest.importorskip("starlette")

from adbc_telemetry.collector.store import moving
from adbc_telemetry.collector.store.layout import StoreFolder, create_store
from adbc_telemetry.collector.store.retention import Retention, files_to_delete
from support.stores import events_in, parquet_files, running_store, stored_logs, until

NOW = 1_800_000_000.0


def make_file(folder: StoreFolder, first: int, *, age: float, size: int) -> Path:
    path = folder.data_file(first, "2026-11-26").path
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (NOW - age, NOW - age))
    return path


def test_files_whose_newest_event_is_too_old_are_deleted(tmp_path: Path) -> None:
    folder = create_store(tmp_path / "store")
    old = make_file(folder, 1, age=101, size=10)
    make_file(folder, 2, age=99, size=10)
    assert files_to_delete(folder, Retention(max_seconds=100), NOW) == [old]


def test_the_oldest_files_are_deleted_while_the_store_is_too_large(tmp_path: Path) -> None:
    folder = create_store(tmp_path / "store")
    files = [make_file(folder, number, age=0, size=100) for number in range(1, 5)]
    assert files_to_delete(folder, Retention(max_bytes=250), NOW) == files[:2]
    folder.segment(9, "2026-11-26").path.write_bytes(b"x" * 100)  # the journal counts too
    assert files_to_delete(folder, Retention(max_bytes=250), NOW) == files[:3]


def test_a_running_store_deletes_what_is_too_old_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "FIRST_FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(moving, "RETENTION_SECONDS", 0.05)
    path = tmp_path / "store"

    async def scenario() -> None:
        async with running_store(path, Retention(max_seconds=1000)) as store:
            await store.add(stored_logs(3))
            await until(lambda: len(parquet_files(path)) == 1, "the events are in a Parquet file")
            (file,) = parquet_files(path)
            os.utime(file, (0, 0))
            await until(lambda: parquet_files(path) == [], "the file is deleted")
            await store.add(stored_logs(2))
        assert len(events_in(path)) == 2

    asyncio.run(scenario())
