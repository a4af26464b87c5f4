"""Report, export and page over a table: as over a folder, and as other tools read it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("deltalake")
pytest.importorskip("duckdb")
pytest.importorskip("starlette")
polars = pytest.importorskip("polars")

import pyarrow.parquet as pq  # noqa: E402
import urllib3  # noqa: E402
from deltalake import DeltaTable, TableFeatures  # noqa: E402

from adbc_telemetry.cli import main  # noqa: E402
from adbc_telemetry.collector.delta import reading  # noqa: E402
from adbc_telemetry.collector.delta.rows import Log, make_rows  # noqa: E402
from adbc_telemetry.collector.delta.table import EventTable, Move  # noqa: E402
from adbc_telemetry.collector.delta.upkeep import Upkeep  # noqa: E402
from adbc_telemetry.collector.intake import read_log  # noqa: E402
from adbc_telemetry.collector.queries.filters import Filter  # noqa: E402
from adbc_telemetry.collector.queries.questions import Questions  # noqa: E402
from adbc_telemetry.collector.queries.report import build_report  # noqa: E402
from adbc_telemetry.collector.server import Collector  # noqa: E402
from adbc_telemetry.collector.store.compaction import connect  # noqa: E402
from support.event_stores import NOON, EventStore, an_event  # noqa: E402
from support.tables import a_table, columns_by_duckdb  # noqa: E402

COLUMNS = ["event_id", "session_id", "operation_type", "operation_latency_ms", "error_name", "host"]
EVENTS = [
    an_event(
        event_id=f"event-{number:02}",
        session=f"session-{number % 3}",
        at=NOON + number,
        ms=number,
        error="E" if number % 5 == 0 else None,
        host=None if number % 2 else "a.example",
    )
    for number in range(40)
]


class Writing:
    """A table that grows by commits."""

    def __init__(self, path: Path) -> None:
        self.table: EventTable = a_table(path)
        self._offset: int | None = None

    def add(self, events: Sequence[dict[str, Any]], received: Sequence[float]) -> None:
        read = [read_log(json.dumps(event)) for event in events]
        logs = [Log(int(at * 1e6), log.text, log.canonical) for log, at in zip(read, received, strict=True)]
        end = (self._offset or 0) + len(logs)
        with connect("200MB", threads=1) as connection:
            self.table.commit(make_rows(logs, connection), {0: Move(self._offset, end)})
        self._offset = end


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files whose times overlap, as those of two sinks do."""
    path = tmp_path_factory.mktemp("reading") / "table"
    writing = Writing(path)
    writing.add(EVENTS[::2], [NOON + number for number in range(0, 40, 2)])
    writing.add(EVENTS[1::2], [NOON + number for number in range(1, 40, 2)])
    return path


def test_duckdb_polars_and_deltalake_read_the_same(path: Path) -> None:
    by_duckdb = columns_by_duckdb(path, COLUMNS)
    by_polars = polars.read_delta(str(path)).select(COLUMNS).rows()
    by_deltalake = [
        tuple(row.values()) for row in DeltaTable(str(path)).to_pyarrow_table(columns=COLUMNS).to_pylist()
    ]
    assert len(by_duckdb) == 40
    assert sorted(by_duckdb) == sorted(by_polars) == sorted(by_deltalake)


def test_the_report_is_that_of_a_folder_with_the_same_events(path: Path, tmp_path: Path) -> None:
    store = EventStore(tmp_path / "store")
    store.add_segment(EVENTS)
    for by in (None, "host", "error"):
        assert build_report(path, by=by) == build_report(store.path, by=by)
    some = Filter(error="*", since=NOON + 10)
    assert build_report(path, some).events == build_report(store.path, some).events == 6


def test_the_newest_events_are_those_of_all_files(path: Path) -> None:
    panel = Questions(path).panel("newest", Filter())
    ids = [row[panel.columns.index("event_id")] for row in panel.rows]
    assert ids == [f"event-{number:02}" for number in range(39, -1, -1)]


def test_a_table_that_grows_and_is_compacted_is_read_anew(tmp_path: Path) -> None:
    writing = Writing(tmp_path / "table")
    writing.add(EVENTS[:5], [NOON] * 5)
    questions = Questions(tmp_path / "table")
    assert questions.report(Filter(), None).events == 5
    writing.add(EVENTS[5:9], [NOON] * 4)
    assert questions.report(Filter(), None).events == 9
    table = DeltaTable(str(tmp_path / "table"))
    table.optimize.compact()
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True)
    assert len(table.file_uris()) == 1
    assert questions.report(Filter(), None).events == 9


def test_upkeep_compacts_deletes_old_days_and_keeps_events(tmp_path: Path) -> None:
    import time

    writing = Writing(tmp_path / "table")
    now = time.time()
    writing.add(EVENTS[:3], [NOON] * 3)
    for number in range(3, 9):
        writing.add(EVENTS[number : number + 1], [now])
    assert len(DeltaTable(str(tmp_path / "table")).file_uris()) == 7
    assert Upkeep(str(tmp_path / "table")).run()
    assert len(DeltaTable(str(tmp_path / "table")).file_uris()) in (2, 3)  # it may be midnight
    assert build_report(tmp_path / "table").events == 9
    assert Upkeep(str(tmp_path / "table"), retention=86_400.0).run()
    assert build_report(tmp_path / "table").events == 6
    writing.table.reload()
    assert writing.table.offset(0) == 9
    writing.add(EVENTS[9:10], [now])
    assert build_report(tmp_path / "table").events == 7


def test_upkeep_that_fails_says_so_and_does_not_raise(tmp_path: Path) -> None:
    assert not Upkeep(str(tmp_path / "missing")).run()


def test_files_of_an_object_store_are_read_through_deltalake(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = reading.TableSource(path.as_uri())
    monkeypatch.setattr(source, "_is_local", False)  # no store of that kind is here
    with connect("200MB", threads=1) as connection:
        found = source.read(
            connection,
            lambda snapshot: connection.execute(
                f"SELECT count(DISTINCT event_id) FROM ({snapshot.events_sql()})"
            ).fetchone(),
        )
    assert found == (40,)


def test_a_table_with_features_of_other_writers_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_table(tmp_path / "table")
    DeltaTable(str(tmp_path / "table")).alter.add_feature(
        TableFeatures.DeletionVectors, allow_protocol_versions_increase=True
    )
    assert main(["report", str(tmp_path / "table")]) == 2
    assert "read it with Spark or Databricks" in capsys.readouterr().err


@pytest.fixture
def served(path: Path) -> Iterator[str]:
    with Collector(str(path), read_only=True) as running:
        yield running.url


def test_the_page_and_its_api_are_served_over_a_table(served: str) -> None:
    def get(at: str) -> urllib3.BaseHTTPResponse:
        return urllib3.request("GET", served + at, retries=False, timeout=60.0)

    assert b"<title>" in get("/").data
    assert get("/healthz").status == 200
    assert get("/api/summary").json()["rows"][0][:2] == [40, 8]
    assert get("/api/event?id=event-07").json()["session_id"] == "session-1"
    assert get("/api/status").json()["store"]["problems"] == []
    answer = urllib3.request("POST", f"{served}/telemetry-unauth", body=b'{"protoLogs": ["{}"]}')
    assert answer.status == 503


def test_the_commands_read_a_table(
    path: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["report", str(path), "--json", "--by", "host"]) == 0
    assert json.loads(capfdbinary.readouterr().out)["events"] == 40
    assert main(["export", path.as_uri(), "--to", str(tmp_path / "all.parquet")]) == 0
    assert sorted(pq.read_table(tmp_path / "all.parquet")["event_id"].to_pylist()) == [
        event["frontend_log_event_id"] for event in EVENTS
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["report", "file:///no/such/table"], "no Delta table that can be read"),
        (["serve", "nothing://there", "--port", "0"], "no Delta table that can be read"),
        (["report", "s3://bucket/x", "--storage-option", "secret"], "a --storage-option is not KEY=VALUE"),
    ],
)
def test_what_is_no_table_is_told_in_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert "secret" not in told
