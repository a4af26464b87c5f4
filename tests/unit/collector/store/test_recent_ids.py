"""The ids of the last hour: none is forgotten, and none is made up."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

pytest.importorskip("xxhash")

from adbc_telemetry.collector.store.layout import StoreFolder, create_store
from adbc_telemetry.collector.store.recent_ids import RecentIds, hash_id

HOUR_US = 3600 * 1_000_000


@pytest.fixture
def folder(tmp_path: Path) -> StoreFolder:
    return create_store(tmp_path / "store")


def hashes(count: int, seed: int = 1) -> list[int]:
    source = random.Random(seed)
    return [source.getrandbits(64) for _ in range(count)]


def close_generation(ids: RecentIds, newest_us: int) -> None:
    closing = ids.begin_generation()
    assert closing
    ids.end_generation(ids.write_generation(closing, newest_us))


def test_the_hash_of_an_id_is_the_same_in_every_process() -> None:
    assert hash_id("") == 0x2D06800538D394C2  # XXH3's own test vector for no input


def test_an_id_is_known_once_it_was_added(folder: StoreFolder) -> None:
    ids = RecentIds(folder)
    ids.add([1, 2])
    assert ids.known([1, 2, 3]) == {1, 2}


@pytest.mark.parametrize("count", [1, 2, 5, 1000, 50_000])
def test_a_generation_knows_its_ids_and_no_others(folder: StoreFolder, count: int) -> None:
    ids = RecentIds(folder)
    inside, outside = hashes(count), hashes(count, seed=2)
    ids.add(inside)
    close_generation(ids, 1)
    assert ids.known(inside) == set(inside)
    assert ids.known(outside) == set()


def test_ids_are_known_while_their_generation_is_written(folder: StoreFolder) -> None:
    ids = RecentIds(folder)
    ids.add([1])
    assert ids.begin_generation() == {1}
    assert ids.known([1]) == {1}
    ids.end_generation(None)  # it could not be written
    assert ids.known([1]) == {1}
    assert ids.begin_generation() == {1}


def test_another_process_takes_up_the_generations(folder: StoreFolder) -> None:
    first = RecentIds(folder)
    first.add(hashes(100))
    close_generation(first, 5_000_000)
    second = RecentIds(folder)
    assert second.load() == 5_000_000
    assert second.known(hashes(100)) == set(hashes(100))


def test_merged_generations_know_all_ids(folder: StoreFolder) -> None:
    ids = RecentIds(folder)
    for number in range(8):
        ids.add(hashes(100, seed=number))
        close_generation(ids, number)
    small = ids.small_generations()
    assert len(small) == 8
    ids.replace(small, ids.merge(small))
    assert len(ids.generations) == 1
    everything = [each for number in range(8) for each in hashes(100, seed=number)]
    assert ids.known(everything) == set(everything)
    assert [path.name for path in folder.ids.iterdir()] == ["0000000000000008.u64"]


def test_only_generations_older_than_an_hour_are_forgotten(folder: StoreFolder) -> None:
    ids = RecentIds(folder)
    ids.add([1])
    close_generation(ids, 10)
    ids.add([2])
    close_generation(ids, 20)
    ids.forget_old(10 + HOUR_US)
    assert ids.known([1, 2]) == {1, 2}
    ids.forget_old(11 + HOUR_US)
    assert ids.known([1, 2]) == {2}
    assert len(list(folder.ids.iterdir())) == 1
