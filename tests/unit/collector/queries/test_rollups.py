"""Rollups: kept, made anew, and bounded whatever the events say."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

import numpy as np

from adbc_telemetry.collector.queries.buckets import BUCKETS, NO_LATENCY, lower_bound, percentiles
from adbc_telemetry.collector.queries.filters import MAX_VALUE, Filter
from adbc_telemetry.collector.queries.questions import Questions
from support.event_stores import NOON, EventStore, an_event


@pytest.fixture
def store(tmp_path: Path) -> EventStore:
    return EventStore(tmp_path / "store")


def events_of(questions: Questions, **filter: str) -> int:
    events: int = questions.panel("summary", Filter(**filter)).rows[0][0]  # type: ignore[arg-type]
    return events


def rollups(store: EventStore) -> list[str]:
    return sorted(path.name for path in store.folder.rollups.iterdir())


def test_a_rollup_takes_its_files_place(store: EventStore) -> None:
    file = store.add_file([an_event(), an_event()])
    assert events_of(Questions(store.path)) == 2
    (name,) = rollups(store)
    found = file.stat()
    # Not one byte of the file's events is read again.
    with file.open("r+b") as content:
        content.write(b"\0" * 100)
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert events_of(Questions(store.path)) == 2
    assert rollups(store) == [name]


def test_a_file_that_is_written_anew_gets_a_new_rollup(store: EventStore) -> None:
    first = store.add_file([an_event()])
    questions = Questions(store.path)
    assert events_of(questions) == 1
    (old,) = rollups(store)
    os.replace(store.add_file([an_event(), an_event()]), first)
    assert events_of(questions) == 2
    (new,) = rollups(store)
    assert new != old, "the rollup of the file that is gone is deleted"


def test_a_rollup_that_is_damaged_is_made_anew(store: EventStore) -> None:
    store.add_file([an_event()])
    assert events_of(Questions(store.path)) == 1
    (name,) = rollups(store)
    path = store.folder.rollups / name
    for content in (b"", b"no rollup", path.read_bytes()[:-30]):
        path.write_bytes(content)
        assert events_of(Questions(store.path)) == 1


def test_a_store_that_cannot_be_written_is_counted_in_memory(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, content: bytes) -> int:
        raise PermissionError

    monkeypatch.setattr(Path, "write_bytes", refuse)
    store.add_file([an_event()])
    questions = Questions(store.path)
    assert events_of(questions) == 1
    assert events_of(questions, host="a.example") == 1
    assert rollups(store) == []


def test_what_a_process_that_was_ended_left_behind_is_deleted(store: EventStore) -> None:
    old, young = (store.folder.rollups / name for name in ("1.npz.123", "2.npz.124"))
    for part in (old, young):
        part.write_bytes(b"")
    os.utime(old, (1, 1))
    assert events_of(Questions(store.path)) == 0
    assert rollups(store) == [young.name]


def test_preparing_leaves_the_newest_file_which_will_be_written_anew(store: EventStore) -> None:
    for _ in range(3):
        store.add_file([an_event()])
    questions = Questions(store.path)
    assert [questions.prepare() for _ in range(3)] == [True, True, False]
    assert len(rollups(store)) == 2


def test_values_beyond_a_thousand_are_one_and_their_events_are_counted(store: EventStore) -> None:
    store.add_file(
        [an_event(host=f"{number}.example") for number in range(1500)]
        + [an_event(host="often.example") for _ in range(50)]
    )
    questions = Questions(store.path)
    hosts = questions.panel("hosts", Filter()).rows
    assert ["often.example", 50] in [row[:2] for row in hosts]
    assert "(other)" in [row[0] for row in hosts]
    assert events_of(questions) == 1550
    assert events_of(questions, host="often.example") == 50


def test_a_sender_whose_names_are_all_different_holds_nothing_up(store: EventStore) -> None:
    names = [f"{number:05d}" * 40 for number in range(20_000)]
    store.add_file([an_event(host=name, driver=name, version=name, error=name) for name in names])
    begun = time.monotonic()
    questions = Questions(store.path)
    assert events_of(questions) == 20_000
    assert len(questions.panel("hosts", Filter()).rows) == 100
    assert time.monotonic() - begun < 20, "less than a second when the machine is idle"


def test_combinations_beyond_four_thousand_are_counted_too(store: EventStore) -> None:
    store.add_file(
        [
            an_event(host=f"{number % 70}.example", version=str(number // 70), driver="one", ms=number)
            for number in range(4900)
        ]
    )
    questions = Questions(store.path)
    assert [row[:3] for row in questions.panel("operations", Filter()).rows] == [
        ["EXECUTE_STATEMENT", "QUERY", 4900]
    ]
    assert {row[1] for row in questions.panel("hosts", Filter()).rows} == {70}
    assert questions.panel("summary", Filter()).rows[0][2] == pytest.approx(2449.5, rel=0.01)


def test_a_very_long_value_is_cut(store: EventStore) -> None:
    store.add_file([an_event(driver="ü" * 5000)])
    questions = Questions(store.path)
    assert questions.panel("drivers", Filter()).rows[0][0] == "ü" * MAX_VALUE
    assert events_of(questions, driver="ü" * 5000) == 1
    assert len(questions.panel("newest", Filter(driver="ü" * MAX_VALUE)).rows) == 1


def test_names_with_quotes_are_names(store: EventStore) -> None:
    name = "it's \"a\" driver'); --"
    store.add_file([an_event(driver=name), an_event(driver="(other)"), an_event(driver=None)])
    questions = Questions(store.path)
    assert {row[0] for row in questions.panel("drivers", Filter()).rows} == {name, "(other)", None}
    assert events_of(questions, driver=name) == 1


def test_no_bucket_is_wider_than_two_percent() -> None:
    assert BUCKETS == NO_LATENCY + 1
    assert [lower_bound(bucket) for bucket in (0, 1, 100, 101)] == [0, 1, 100, 100]
    for bucket in range(101, NO_LATENCY - 1):
        assert lower_bound(bucket + 1) <= lower_bound(bucket) * 1.02 + 1


def test_percentiles_of_no_latencies_are_none() -> None:
    histogram = np.zeros((1, BUCKETS), dtype=np.int64)
    histogram[0, NO_LATENCY] = 5
    assert percentiles(histogram, (0.5, 0.99)) == [[None, None]]


def test_the_minutes_of_a_filter_leave_other_files_unread(store: EventStore) -> None:
    old = store.add_file([an_event(at=NOON - 7200)])
    store.add_file([an_event()])
    questions = Questions(store.path)
    assert events_of(questions) == 2
    for name in rollups(store):
        if name.startswith(old.stem):
            (store.folder.rollups / name).unlink()
    recent = questions.panel("summary", Filter(since=NOON - 60))
    assert recent.rows[0][0] == 1
    assert len(rollups(store)) == 1
