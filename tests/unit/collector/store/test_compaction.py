"""The compacting process's work, in this process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

duckdb = pytest.importorskip("duckdb")
np = pytest.importorskip("numpy")
pytest.importorskip("starlette")

from adbc_telemetry.collector.store.compaction import Compactor  # noqa: E402
from adbc_telemetry.collector.store.layout import StoreFolder, create_store  # noqa: E402
from adbc_telemetry.collector.store.lines import line_of_array, lines_of_logs  # noqa: E402
from adbc_telemetry.collector.store.recent_ids import hash_id  # noqa: E402
from support.stores import Log  # noqa: E402

DAY = "2026-11-26"
MEGABYTE = 1_000_000
SEGMENT = 16 * MEGABYTE


@pytest.fixture
def folder(tmp_path: Path) -> StoreFolder:
    return create_store(tmp_path / "store")


def _log(event_id: str, **fields: object) -> str:
    return json.dumps({"frontend_log_event_id": event_id, "entry": {"sql_driver_log": fields}})


def full_segment(folder: StoreFolder, number: int) -> tuple[int, str]:
    """Logs of a megabyte each, the largest that the intake takes."""
    segment = folder.segment(number, DAY)
    with open(segment.path, "wb") as file:
        for index in range(SEGMENT // MEGABYTE):
            log = _log(f"{number}-{index}", session_id=os.urandom(MEGABYTE // 2).hex())
            file.write(line_of_array(json.dumps([log]).encode(), 1_764_000_000_000_000))
    return number, str(segment.path)


@pytest.mark.slow  # writes some hundred megabytes
def test_the_largest_logs_are_compacted_within_the_memory_limit(folder: StoreFolder) -> None:
    compactor = Compactor(str(folder.path))
    target = str(folder.data_file(1, DAY).path)
    segments = [full_segment(folder, number) for number in range(1, 10)]
    assert compactor.compact(segments[:8], target) == (128, False)
    assert compactor.compact(segments[8:], target) == (144, False)
    assert compactor.describe(target) == (144, 9)


def test_segments_that_a_file_holds_already_are_passed_over(folder: StoreFolder) -> None:
    compactor = Compactor(str(folder.path))
    target = str(folder.data_file(1, DAY).path)
    segments = []
    for number in (1, 2):
        segment = folder.segment(number, DAY)
        segment.path.write_bytes(
            line_of_array(json.dumps([_log(str(number))]).encode(), 1_764_000_000_000_000)
        )
        segments.append((number, str(segment.path)))
    assert compactor.compact(segments[:1], target) == (1, False)
    assert compactor.compact(segments[:1], target) == (1, False)
    assert compactor.compact(segments, target) == (2, False)
    assert compactor.compact(segments, target) == (2, False)
    assert duckdb.execute(f"SELECT event_id FROM '{target}' ORDER BY 1").fetchall() == [("1",), ("2",)]


def test_ids_are_collected_from_a_journal_of_the_largest_logs(folder: StoreFolder) -> None:
    """DuckDB has no room for many such logs at once."""
    segment = folder.segment(1, DAY)
    large = _log("large", session_id="x" * MEGABYTE)
    lines = [line_of_array(json.dumps([large, _log(str(number))]).encode(), 1) for number in range(100)]
    lines += lines_of_logs([Log("one", _log("one")), Log("two", "no JSON", _log("two").encode())], 1)
    segment.path.write_bytes(b"".join(lines) + b'{"received_us": 1, "log": "torn')
    target = folder.tmp / "ids"
    assert Compactor(str(folder.path)).collect_ids(0, str(target)) == 202
    found = set(np.fromfile(target, dtype=np.uint64).tolist())
    assert found == {hash_id(each) for each in ("large", "one", "two", *map(str, range(100)))}
