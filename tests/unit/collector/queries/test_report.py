"""The report of a folder."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")

from adbc_telemetry.collector.queries import report as module
from adbc_telemetry.collector.queries.answers import ErrorRow, GroupRow, OperationRow
from adbc_telemetry.collector.queries.filters import Filter
from adbc_telemetry.collector.queries.report import build_report
from adbc_telemetry.collector.store.layout import StoreError
from support.event_stores import NOON, EventStore, an_event


def approximately(milliseconds: float) -> Any:
    return pytest.approx(milliseconds, abs=0.05)


@pytest.fixture
def store(tmp_path: Path) -> EventStore:
    store = EventStore(tmp_path / "store")
    store.add_file([an_event(ms=ms, session="one") for ms in (10, 20, 31)])
    store.add_segment(
        [
            an_event(
                operation="CREATE_SESSION", driver="another", error="TimeoutError", ms=None, session="two"
            ),
            an_event(at=NOON + 30.5, driver=None, host="b.example", ms=5, session="two"),
        ]
    )
    return store


def test_a_report_counts_what_the_store_holds(store: EventStore) -> None:
    report = build_report(store.path)
    assert (report.events, report.errors, report.sessions, report.statements, report.drivers) == (
        5,
        1,
        2,
        5,
        2,
    )
    assert report.first == datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
    assert report.last == datetime(2026, 3, 1, 12, 0, 30, 500_000, tzinfo=timezone.utc)
    assert report.operations == [
        OperationRow(
            operation_type="EXECUTE_STATEMENT",
            statement_type="QUERY",
            count=4,
            errors=0,
            p50_ms=15,
            p95_ms=approximately(29.35),
            p99_ms=approximately(30.67),
        ),
        OperationRow(
            operation_type="CREATE_SESSION",
            statement_type="QUERY",
            count=1,
            errors=1,
            p50_ms=None,
            p95_ms=None,
            p99_ms=None,
        ),
    ]
    assert report.top_errors == [ErrorRow(error_name="TimeoutError", count=1)]
    assert report.exact


def test_a_range_is_exact_to_the_second(store: EventStore) -> None:
    assert build_report(store.path, Filter(since=NOON + 30)).events == 1
    assert build_report(store.path, Filter(until=NOON + 30)).events == 4
    assert build_report(store.path, Filter(since=NOON + 31)).events == 0


@pytest.mark.parametrize("is_exact", [True, False])
def test_groups_are_what_the_report_is_grouped_by(
    store: EventStore, monkeypatch: pytest.MonkeyPatch, is_exact: bool
) -> None:
    if not is_exact:
        monkeypatch.setattr(module, "EXACT_EVENTS", 2)
    report = build_report(store.path, by="version")
    assert report.exact is is_exact
    assert report.columns == ["driver_name", "driver_version"]
    assert report.groups == [
        GroupRow(
            values=["a driver", "1.0"],
            count=3,
            errors=0,
            p50_ms=20,
            p95_ms=approximately(29.9),
            p99_ms=approximately(30.8),
        ),
        GroupRow(values=[None, "1.0"], count=1, errors=0, p50_ms=5, p95_ms=5, p99_ms=5),
        GroupRow(values=["another", "1.0"], count=1, errors=1, p50_ms=None, p95_ms=None, p99_ms=None),
    ]
    assert [group.values for group in build_report(store.path, by="error").groups or []] == [
        [None],
        ["TimeoutError"],
    ]


def test_large_stores_are_reported_from_rollups(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = build_report(store.path)
    monkeypatch.setattr(module, "EXACT_EVENTS", 2)
    large = build_report(store.path)
    assert not large.exact
    for name in ("events", "errors", "sessions", "statements", "drivers", "first", "last", "top_errors"):
        assert getattr(large, name) == getattr(exact, name)


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        build_report(tmp_path)
