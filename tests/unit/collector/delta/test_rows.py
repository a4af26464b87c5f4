"""Rows of the table are those that the folder's Parquet files have."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

pytest.importorskip("deltalake")
pytest.importorskip("duckdb")

from adbc_telemetry.collector.delta.rows import Log, make_rows
from adbc_telemetry.collector.delta.schema import SCHEMA
from adbc_telemetry.collector.intake import read_log
from adbc_telemetry.collector.store.columns import COLUMNS
from adbc_telemetry.collector.store.compaction import connect
from support.event_stores import NOON, EventStore, an_event

DRIVERS = Path(__file__).parents[3] / "data" / "drivers"


def test_rows_are_those_of_the_folder(tmp_path: Path) -> None:
    store = EventStore(tmp_path / "store")
    events = [
        an_event(event_id=f"event-{number}", error=error, ms=number)
        for number, error in enumerate([None, "E", ""])
    ]
    store.add_segment(events)
    texts = [json.dumps(event) for event in events]
    with connect("200MB", threads=1) as connection:
        logs = [Log(int((NOON + 60) * 1e6), read.text, read.canonical) for read in map(read_log, texts)]
        found = make_rows(logs, connection)
        assert found.schema == SCHEMA
        assert found["day"].to_pylist() == [date(2026, 3, 1)] * 3
        connection.register("rows", found)
        names = ", ".join(f'"{column.name}"' for column in COLUMNS if column.name != "log")
        of_table = connection.execute(f"SELECT {names} FROM rows ORDER BY event_id").fetchall()
        segments = [str(path) for path in (tmp_path / "store" / "journal").iterdir()]
        from adbc_telemetry.collector.store.lines import journal_sql

        of_folder = connection.execute(
            f"SELECT {names} FROM ({journal_sql(segments, skip_damage=False)}) ORDER BY event_id"
        ).fetchall()
    assert of_table == of_folder
    assert len(of_table) == 3


def test_logs_of_all_drivers_become_rows() -> None:
    texts = [json.dumps(json.loads(path.read_text())["log"]) for path in sorted(DRIVERS.glob("*.json"))]
    assert texts
    logs = [Log(1_764_000_000_000_000, read.text, read.canonical) for read in map(read_log, texts)]
    with connect("200MB", threads=1) as connection:
        found = make_rows(logs, connection)
    assert found.num_rows == len(texts)
    assert None not in found["event_id"].to_pylist()
    assert sum(session is not None for session in found["session_id"].to_pylist()) > 0
