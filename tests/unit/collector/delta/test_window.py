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
    recent.add([1, 2, 2**64 - 1], 0.0, 0.0)
    assert recent.known([2, 3, 2**64 - 1]) == {2, 2**64 - 1}
    assert recent.known([]) == set()


def test_ids_of_the_table_are_known_and_take_the_place_of_others() -> None:
    recent = RecentEvents(3600)
    recent.add([1], 0.0, 0.0)
    recent.replace([["a", "b"], [], ["c"]], 0.0)
    assert recent.known([1, hash_id("a"), hash_id("c"), hash_id("d")]) == {hash_id("a"), hash_id("c")}
    recent.replace([], 0.0)
    assert len(recent) == 0
    assert recent.known([hash_id("a")]) == set()


def test_many_ids_are_known_and_those_of_before_the_window_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(window, "_MOST_NEWEST", 1000)
    recent = RecentEvents(1800)
    long_ago = 1_000_000.0  # the records' time counts, not the clock's
    for start in range(0, 5000, 500):
        recent.add(range(start, start + 500), long_ago + start, long_ago + start + 500)
    assert recent.known(list(range(6000))) == set(range(2000, 5000))
    recent.add(range(10_000, 11_000), long_ago + 20_000, long_ago + 20_000)
    assert recent.known([4999, 10_500]) == {10_500}
    assert len(recent) == 1000
