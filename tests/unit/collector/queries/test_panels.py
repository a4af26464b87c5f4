"""Panels, against the same figures counted in SQL over all events."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")

from adbc_telemetry.collector.queries.answers import Panel
from adbc_telemetry.collector.queries.events import where
from adbc_telemetry.collector.queries.filters import Filter
from adbc_telemetry.collector.queries.panels import time_text
from adbc_telemetry.collector.queries.questions import Questions
from adbc_telemetry.collector.store.compaction import connect
from adbc_telemetry.collector.store.snapshot import Snapshot, read_consistently
from support.event_stores import NOON, EventStore, an_event

HOUR = 3600


def random_events(rng: random.Random, number: int, *, spread: int = 3 * HOUR) -> list[dict[str, Any]]:
    return [
        an_event(
            # Some carry no time of their own, and count when they arrived.
            at=None if rng.random() < 0.1 else NOON - rng.randrange(spread),
            operation=rng.choice(["EXECUTE_STATEMENT", "CREATE_SESSION", None]),
            driver=rng.choice(["one", "two", None, ""]),
            version=rng.choice(["1", "2"]),
            host=rng.choice(["a.example", "b.example"]),
            error=rng.choice([None, None, "TimeoutError", "OperationalError"]),
            ms=rng.choice([None, 0, 5, 99, 100, 101, rng.randrange(100_000)]),
        )
        for _ in range(number)
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EventStore:
    rng = random.Random(7)
    store = EventStore(tmp_path_factory.mktemp("queries") / "store")
    store.add_file(random_events(rng, 700))
    store.add_file(random_events(rng, 300))
    # Few kinds of events, so that rows stand for several.
    store.add_file([an_event(at=NOON - rng.randrange(120), ms=rng.randrange(3)) for _ in range(200)])
    store.add_segment(random_events(rng, 150))
    return store


@pytest.fixture(scope="module")
def questions(store: EventStore) -> Questions:
    return Questions(store.path)


def counted(store: EventStore, filter: Filter, columns: str, rest: str = "") -> list[tuple[Any, ...]]:
    connection = connect("500MB", threads=1)
    condition, parameters = where(filter)

    def query(snapshot: Snapshot) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = connection.execute(
            f"SELECT {columns} FROM ({snapshot.events_sql()}) WHERE {condition} {rest}", parameters
        ).fetchall()
        return found

    return read_consistently(store.folder, connection, query)


def column(panel: Panel, *names: str) -> list[tuple[Any, ...]]:
    places = [panel.columns.index(name) for name in names]
    return [tuple(row[place] for place in places) for row in panel.rows]


ALL_FILTERS = [
    Filter(since=since, until=until, operation=operation, driver=driver, host=host, error=error)
    for since in (None, NOON - HOUR, NOON - 7 * 60)
    for until in (None, NOON - 60, NOON + HOUR)
    for operation in (None, "", "CREATE_SESSION", "unheard of")
    for driver in (None, "one", "")
    for host in (None, "a.example")
    for error in (None, "*", "", "TimeoutError")
]
FILTERS = [Filter(), *random.Random(3).sample(ALL_FILTERS, 30)]
MINUTE = "epoch_us(coalesce(timestamp, received_at)) // 60000000"
FIGURES = "count(*), count(nullif(error_name, ''))"


@pytest.mark.parametrize("filter", FILTERS, ids=str)
def test_counts_are_exact_under_each_filter(store: EventStore, questions: Questions, filter: Filter) -> None:
    ((events, errors),) = column(questions.panel("summary", filter), "events", "errors")
    assert [(events, errors)] == counted(store, filter, FIGURES)
    for name, columns in (
        ("operations", ("operation_type", "statement_type")),
        ("drivers", ("driver_name", "driver_version")),
        ("hosts", ("host",)),
    ):
        expected = counted(
            store,
            filter,
            f"{', '.join(f'nullif({each}, {chr(39) * 2})' for each in columns)}, {FIGURES}",
            "GROUP BY ALL",
        )
        found = column(questions.panel(name, filter), *columns, "events", "errors")
        assert sorted(found, key=repr) == sorted(expected, key=repr)
    found = column(questions.panel("errors", filter), "error_name", "events", "last")
    expected = counted(
        store, filter, f"error_name, count(*), max({MINUTE})", "AND error_name <> '' GROUP BY ALL"
    )
    assert sorted(found) == sorted((name, number, time_text(minute)) for name, number, minute in expected)


@pytest.mark.parametrize("filter", FILTERS, ids=str)
def test_percentiles_are_within_one_percent(store: EventStore, questions: Questions, filter: Filter) -> None:
    found = column(questions.panel("operations", filter), "operation_type", "p50_ms", "p95_ms", "p99_ms")
    expected = {
        operation: percentiles
        for operation, *percentiles in counted(
            store,
            filter,
            "nullif(operation_type, ''), "
            + ", ".join(f"quantile_cont(operation_latency_ms, {share})" for share in (0.5, 0.95, 0.99)),
            "GROUP BY ALL",
        )
    }
    for operation, *percentiles in found:
        assert percentiles == pytest.approx(expected[operation], rel=0.0101, abs=0.06)


@pytest.mark.parametrize("filter", FILTERS, ids=str)
def test_the_timeline_holds_each_event_once(store: EventStore, questions: Questions, filter: Filter) -> None:
    timeline = questions.panel("timeline", filter)
    assert timeline.step_seconds is not None
    found = {
        time: (events, errors)
        for time, events, errors in column(timeline, "time", "events", "errors")
        if events
    }
    step = timeline.step_seconds // 60
    expected = counted(store, filter, f"{MINUTE} // {step} * {step}, {FIGURES}", "GROUP BY ALL")
    assert found == {time_text(minute): tuple(figures) for minute, *figures in expected}


@pytest.mark.parametrize("filter", FILTERS, ids=str)
def test_the_slowest_events_are_the_slowest(store: EventStore, questions: Questions, filter: Filter) -> None:
    found = column(questions.panel("slowest", filter), "operation_latency_ms")
    assert found == counted(
        store,
        filter,
        "operation_latency_ms",
        "AND operation_latency_ms IS NOT NULL ORDER BY operation_latency_ms DESC LIMIT 20",
    )


@pytest.mark.parametrize("filter", FILTERS, ids=str)
def test_the_newest_events_are_those_that_arrived_last(
    store: EventStore, questions: Questions, filter: Filter
) -> None:
    found = column(questions.panel("newest", filter), "event_id")
    ((events, _),) = counted(store, filter, FIGURES)
    assert len(set(found)) == len(found) == min(50, events)


def test_events_that_arrive_are_counted_at_once(tmp_path: Path) -> None:
    store = EventStore(tmp_path / "store")
    questions = Questions(store.path)
    assert questions.panel("summary", Filter()).rows[0][0] == 0
    segment = store.add_segment([an_event(), an_event()])
    assert questions.panel("summary", Filter()).rows[0][0] == 2
    with segment.open("a") as file:  # a line that is not complete yet
        file.write('{"received_us": 1, "log": "{')
    assert questions.panel("summary", Filter()).rows[0][0] == 2
    store.add_file([an_event()])
    assert questions.panel("summary", Filter()).rows[0][0] == 1, "its segment is the last one in a file"


def test_an_event_is_found_by_its_id_with_its_log_as_it_came(store: EventStore, tmp_path: Path) -> None:
    event = an_event(event_id="20260730101112-abc", error="TimeoutError")
    store = EventStore(tmp_path / "store")
    store.add_file([an_event(), event])
    found = Questions(store.path).event("20260730101112-abc", Filter(since=NOON, until=NOON + 60))
    assert found is not None
    assert (found["error_name"], found["timestamp"]) == ("TimeoutError", "2026-03-01T12:00:00.000Z")
    assert '"TimeoutError"' in found["log"]
    assert Questions(store.path).event("another", Filter()) is None


def test_clocks_that_are_far_off_do_not_break_the_timeline(tmp_path: Path) -> None:
    store = EventStore(tmp_path / "store")
    store.add_file([an_event(at=0), an_event(at=253_402_300_799), an_event()])
    questions = Questions(store.path)
    assert questions.panel("summary", Filter()).rows[0][0] == 3
    assert len(questions.panel("timeline", Filter()).rows) <= 130
