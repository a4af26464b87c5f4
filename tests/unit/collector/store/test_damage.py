"""A store that something has damaged: the collector starts, or says what to do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from adbc_telemetry.collector.store.layout import StoreError
from adbc_telemetry.collector.store.writer import Store
from support.stores import parquet_files, running_store, stored_log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    async def main() -> None:
        async with running_store(tmp_path / "store") as store:
            await store.add([stored_log("known")])

    asyncio.run(main())
    return tmp_path / "store"


def repeated(path: Path) -> int:
    """How many duplicates the store finds when its only event comes again."""

    async def main() -> int:
        async with running_store(path) as store:
            return (await store.add([stored_log("known")])).duplicates

    return asyncio.run(main())


@pytest.mark.parametrize("content", [b"", b"x" * 12, None])
def test_lost_or_damaged_ids_are_collected_from_the_events(path: Path, content: bytes | None) -> None:
    [file] = (path / "ids").iterdir()
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert repeated(path) == 1


@pytest.mark.parametrize("content", [b"", b"PAR1" + b"x" * 500])
def test_a_damaged_parquet_file_is_told_of_in_a_sentence(path: Path, content: bytes) -> None:
    parquet_files(path)[-1].write_bytes(content)
    with pytest.raises(StoreError, match="move damaged files out of it"):
        asyncio.run(Store(path).start())


def test_a_folder_that_cannot_be_tidied_is_told_of_in_a_sentence(path: Path) -> None:
    (path / "tmp" / "folder").mkdir()
    with pytest.raises(StoreError, match="cannot be used"):
        asyncio.run(Store(path).start())
