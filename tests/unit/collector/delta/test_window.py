"""The ids of a window."""

from __future__ import annotations

import pytest

pytest.importorskip("deltalake")
np = pytest.importorskip("numpy")

from adbc_telemetry.collector.delta import window  # noqa: E402
from adbc_telemetry.collector.delta.window import RecentEvents  # noqa: E402
from adbc_telemetry.collector.store.recent_ids import hash_id  # noqa: E402


def test_ids_that_were_added_are_known() -> None:
    recent = RecentEvents(3600)
    recent.add([1, 2, 2**64 - 1])
    assert recent.known([2, 3, 2**64 - 1]) == {2, 2**64 - 1}
    assert recent.known([]) == set()


def test_ids_of_the_table_are_known_and_take_the_place_of_others() -> None:
    recent = RecentEvents(3600)
    recent.add([1])
    recent.replace([["a", "b"], [], ["c"]])
    assert recent.known([1, hash_id("a"), hash_id("c"), hash_id("d")]) == {hash_id("a"), hash_id("c")}
    recent.replace([])
    assert len(recent) == 0
    assert recent.known([hash_id("a")]) == set()


def test_many_ids_are_known_and_old_ones_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "_MOST_NEWEST", 1000)
    now = 1_000_000.0
    monkeypatch.setattr("adbc_telemetry.collector.delta.window.time.time", lambda: now)
    recent = RecentEvents(3600)
    for start in range(0, 5000, 500):
        recent.add(range(start, start + 500))
    assert recent.known(list(range(6000))) == set(range(5000))
    now += 3601
    recent.add(range(10_000, 11_000))
    assert recent.known([0, 10_500]) == {10_500}
    assert len(recent) == 1000
