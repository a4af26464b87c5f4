"""All events into one file: out of a folder, a running collector, or the database of an earlier version."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("starlette")

from adbc_telemetry.cli import main  # noqa: E402
from adbc_telemetry.collector.server import Collector  # noqa: E402
from support.stores import running_store, stored_log  # noqa: E402

FORMATS = ["parquet", "csv", "jsonl"]
READ = {"parquet": "read_parquet", "csv": "read_csv", "jsonl": "read_json"}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"

    async def fill() -> None:
        async with running_store(path) as running:
            await running.add([stored_log("a", operation_latency_ms=5), stored_log('b, with "quotes"\n')])

    asyncio.run(fill())
    return path


def rows(file: Path) -> list[tuple[object, ...]]:
    function = READ[file.suffix[1:]]
    query = f"SELECT event_id, operation_latency_ms, log FROM {function}('{file}') ORDER BY 1"
    found: list[tuple[object, ...]] = duckdb.execute(query).fetchall()
    return found


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_folder_is_exported_whole(
    store: Path, tmp_path: Path, file_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / f"events.{file_format}"
    assert main(["export", str(store), "--to", str(target)]) == 0
    assert capsys.readouterr().out == f"wrote {target}\n"
    (first, second) = rows(target)
    assert (first[:2], second[:2]) == (("a", 5), ('b, with "quotes"\n', None))
    log = first[2] if isinstance(first[2], dict) else json.loads(str(first[2]))
    assert log["entry"]["sql_driver_log"] == {"operation_latency_ms": 5}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([target.name, "store"])


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_running_collector_is_exported_by_its_url(store: Path, tmp_path: Path, file_format: str) -> None:
    target = tmp_path / f"events.{file_format}"
    with Collector(store) as collector:
        assert main(["export", collector.url, "--to", str(target)]) == 0
    assert [row[0] for row in rows(target)] == ["a", 'b, with "quotes"\n']


def test_a_database_of_version_0_1_is_read_once_more(tmp_path: Path) -> None:
    path, target = tmp_path / "telemetry.duckdb", tmp_path / "events.parquet"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            'CREATE TABLE logs (event_id UUID, "timestamp" TIMESTAMP, received_at TIMESTAMP, '
            "operation_latency_ms BIGINT, log JSON)"
        )
        connection.execute(
            "INSERT INTO logs VALUES ('b4de8db5-4d0d-4b0c-8a8c-3a0f3c2b0d11', '2026-01-02 03:04:05', "
            "'2026-01-02 03:04:06', 7, '{\"a\": 1}')"
        )
    assert main(["export", str(path), "--to", str(target)]) == 0
    assert rows(target) == [("b4de8db5-4d0d-4b0c-8a8c-3a0f3c2b0d11", 7, '{"a": 1}')]
    found = duckdb.execute(f"SELECT epoch_ms(timestamp) FROM '{target}'").fetchall()
    assert found == [(1_767_323_045_000,)]


@pytest.mark.parametrize(
    ("source", "to", "sentence"),
    [
        ("none", "events.parquet", "none does not exist"),
        ("store", "events.txt", "events.txt has no known ending; name it .parquet, .csv or .jsonl."),
        ("store", "taken.csv", "taken.csv exists already; give the name of a new file."),
        ("store", "no/folder.csv", "cannot write"),
        ("other.duckdb", "events.csv", "is a DuckDB file, but not of a collector"),
        ("taken.csv", "events.csv", "is not a folder, as a store is"),
    ],
)
def test_what_cannot_be_exported_ends_with_a_sentence(
    store: Path,
    tmp_path: Path,
    source: str,
    to: str,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "taken.csv").write_text("mine")
    duckdb.connect(str(tmp_path / "other.duckdb")).close()
    assert main(["export", str(tmp_path / source), "--to", str(tmp_path / to)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1
    assert (tmp_path / "taken.csv").read_text() == "mine"
    assert not any(path.name.endswith(".part") for path in tmp_path.rglob("*"))


def test_a_database_that_is_in_use_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.duckdb"
    hold = f"import duckdb; held = duckdb.connect({str(path)!r}); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        result = subprocess.run(
            [sys.executable, "-m", "adbc_telemetry", "export", str(path), "--to", str(tmp_path / "e.csv")],
            capture_output=True,
            text=True,
            check=False,
        )
        holder.communicate("\n")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"adbc-telemetry: {path} is in use by another process; stop that one first.\n"
