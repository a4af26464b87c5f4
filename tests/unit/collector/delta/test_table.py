"""Rows and offsets are one commit: of two sinks that both believe they own a partition, one writes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("deltalake")
pytest.importorskip("duckdb")

from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from adbc_telemetry.collector.delta import table as table_module
from adbc_telemetry.collector.delta.schema import SCHEMA
from adbc_telemetry.collector.delta.table import CommitFailed, EventTable, Overtaken
from adbc_telemetry.collector.destination import DestinationError
from adbc_telemetry.collector.store.columns import NAMES
from support.tables import TOPIC, a_table, ids_in, write
from support.waiting import run_in_threads


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table"


def test_a_table_has_the_columns_of_the_store_and_is_partitioned_by_day(path: Path) -> None:
    a_table(path)
    found = DeltaTable(str(path))
    assert [field.name for field in found.schema().fields] == [*NAMES, "day"]
    assert found.metadata().partition_columns == ["day"]


def test_offsets_are_transactions_of_the_table(path: Path) -> None:
    table = a_table(path)
    assert table.offset(0) is None
    write(table, {0: (None, 10), 3: (None, 7)}, "a", "b")
    found = DeltaTable(str(path))
    assert [found.transaction_version(f"kafka:{TOPIC}:{partition}") for partition in range(4)] == [
        10,
        None,
        None,
        7,
    ]
    assert ids_in(path) == ["a", "b"]


def test_offsets_move_even_if_nothing_is_to_be_written(path: Path) -> None:
    table = a_table(path)
    write(table, {0: (None, 10)})
    assert a_table(path).offset(0) == 10


def test_of_two_sinks_with_one_partition_one_writes(path: Path) -> None:
    first, second = a_table(path), a_table(path)
    write(first, {0: (None, 2)}, "a", "b")
    with pytest.raises(CommitFailed):
        write(second, {0: (None, 2)}, "a", "b")
    assert ids_in(path) == ["a", "b"]
    second.reload()
    assert second.offset(0) == 2


def test_a_sink_is_overtaken_also_when_its_own_commit_brought_the_other_ones_offsets_along(
    path: Path,
) -> None:
    zombie, owner = a_table(path), a_table(path)
    write(zombie, {0: (None, 5), 1: (None, 5)}, "a")
    owner.reload()
    write(owner, {0: (5, 9)}, "b")
    write(zombie, {1: (5, 6)}, "c")  # puts the owner's commit into its snapshot
    with pytest.raises(Overtaken):
        write(zombie, {0: (5, 9)}, "b")
    assert ids_in(path) == ["a", "b", "c"]


def test_sinks_with_other_partitions_do_not_disturb_one_another(path: Path) -> None:
    tables = [a_table(path) for _ in range(4)]

    def work(number: int) -> None:
        begin: int | None = None
        for step in range(5):
            write(tables[number], {number: (begin, step + 1)}, f"{number}-{step}")
            begin = step + 1

    run_in_threads(4, work)
    assert ids_in(path) == sorted(f"{number}-{step}" for number in range(4) for step in range(5))


def test_many_sinks_that_claim_one_partition_at_once_write_each_range_once(path: Path) -> None:
    tables = [a_table(path) for _ in range(4)]

    def work(number: int) -> None:
        table = tables[number]
        while (begin := table.offset(0)) is None or begin < 8:
            try:
                write(table, {0: (begin, (begin or 0) + 1)}, f"event-{begin or 0}")
            except CommitFailed:
                table.reload()

    run_in_threads(4, work)
    assert ids_in(path) == [f"event-{number}" for number in range(8)]


def test_a_commit_whose_answer_was_lost_is_found_in_the_table(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = a_table(path)

    def lose_the_answer(*arguments: Any, **options: Any) -> None:
        write_deltalake(*arguments, **options)
        raise OSError("connection reset")

    monkeypatch.setattr(table_module, "write_deltalake", lose_the_answer)
    with pytest.raises(CommitFailed):
        write(table, {0: (None, 3)}, "a")
    table.reload()
    assert table.offset(0) == 3
    assert ids_in(path) == ["a"]


def test_a_commit_that_failed_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = a_table(path)

    def fail(*arguments: Any, **options: Any) -> None:
        raise CommitFailedError("no")

    with monkeypatch.context() as patch:
        patch.setattr(table_module, "write_deltalake", fail)
        with pytest.raises(CommitFailed, match=r"^CommitFailedError$"):
            write(table, {0: (None, 3)}, "a")
    table.reload()
    assert table.offset(0) is None
    write(table, {0: (None, 3)}, "a")
    assert ids_in(path) == ["a"]


def test_offsets_outlive_checkpoints_and_compaction(path: Path) -> None:
    table = a_table(path)
    begin: int | None = None
    for step in range(12):
        write(table, {0: (begin, step + 1)}, f"{step:02}")
        begin = step + 1
    other = DeltaTable(str(path))
    other.optimize.compact()
    other.create_checkpoint()
    other.cleanup_metadata()
    assert a_table(path).offset(0) == 12
    assert ids_in(path) == [f"{step:02}" for step in range(12)]
    # The compaction does not disturb a sink that does not know of it.
    write(table, {0: (12, 13)}, "z")
    assert len(ids_in(path)) == 13


def test_sinks_that_start_at_once_make_one_table(path: Path) -> None:
    run_in_threads(4, lambda number: a_table(path))
    assert DeltaTable(str(path)).version() == 0


def test_a_table_of_another_kind_is_refused(path: Path) -> None:
    write_deltalake(str(path), SCHEMA.empty_table().select(["event_id", "day"]), partition_by=["day"])
    with pytest.raises(DestinationError, match="without the column auth_mech"):
        a_table(path)
    shutil.rmtree(path)
    write_deltalake(str(path), SCHEMA.empty_table())
    with pytest.raises(DestinationError, match="not partitioned by day"):
        a_table(path)


def test_a_place_that_cannot_be_written_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DestinationError, match="cannot be opened as a Delta table"):
        EventTable(str(tmp_path / "file" / "table"), TOPIC).open()
