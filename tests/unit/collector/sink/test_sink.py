"""A sink between a real broker and a real table."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("confluent_kafka")
pytest.importorskip("deltalake")
pytest.importorskip("duckdb")

from deltalake import DeltaTable, write_deltalake

from adbc_telemetry.collector.delta import table as table_module
from adbc_telemetry.collector.delta.table import EventTable, Move
from adbc_telemetry.collector.destination import DestinationError
from adbc_telemetry.collector.kafka.address import parse_address
from adbc_telemetry.collector.sink import loop as loop_module
from adbc_telemetry.collector.sink.loop import Sink
from support.collector_process import log_text
from support.tables import ids_in, rows_of
from support.waiting import wait_until

if TYPE_CHECKING:
    from support.kafka import Broker

# A group forms in half of it, with this broker.
QUICK = {"session.timeout.ms": "1000", "heartbeat.interval.ms": "100"}


class Sinking:
    """A topic, a table, and sinks between them."""

    def __init__(self, kafka: Broker, topic: str, path: Path) -> None:
        self.kafka = kafka
        self.topic = topic
        self.path = path
        self.address = kafka.create_topic(topic, 2)

    def sink(self, **options: Any) -> Sink:
        settings = {"group": "g", "settings": QUICK, "commit_seconds": 0.1, **options}
        return Sink(parse_address(self.address), EventTable(str(self.path), self.topic), **settings)

    def once(self, **options: Any) -> Sink:
        """Write all that is there; returns the sink that has done it."""
        sink = self.sink(once=True, **options)
        sink.run()
        return sink

    def produce(
        self, *event_ids: str, partition: int = 0, headers: Any = None, at: float | None = None
    ) -> None:
        values = [log_text(event_id).encode() for event_id in event_ids]
        self.kafka.produce(self.topic, *values, partition=partition, headers=headers, at=at)

    def ids(self) -> list[str]:
        return ids_in(self.path)

    def offsets(self) -> list[int | None]:
        table = DeltaTable(str(self.path))
        return [table.transaction_version(f"kafka:{self.topic}:{partition}") for partition in range(2)]

    @contextlib.contextmanager
    def running(self, *sinks: Sink) -> Iterator[None]:
        threads = [threading.Thread(target=sink.run, name="test-sink") for sink in sinks]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for sink in sinks:
                sink.stop()
            for thread in threads:
                thread.join(30)
            assert not any(thread.is_alive() for thread in threads)

    def until_ids(self, expected: Sequence[str]) -> None:
        wait_until(lambda: (self.path / "_delta_log").exists() and self.ids() == sorted(expected), 30)


@pytest.fixture
def sinking(kafka: Broker, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sinking]:
    yield Sinking(kafka, f"topic-{abs(hash(request.node.nodeid))}", tmp_path / "table")
    kafka.proxy.mend()


def test_once_writes_each_event_that_is_there_once_and_goes_on_where_it_ended(sinking: Sinking) -> None:
    sinking.produce("a", "b", "a", headers=[("received_at", b"1764000000000000")])
    sinking.kafka.produce(sinking.topic, b"\xff", None, b"[]", b"{}")
    camel = {
        "frontendLogEventId": "c",
        "entry": {"sqlDriverLog": {"sessionId": "s", "operationLatencyMs": "7"}},
    }
    sinking.kafka.produce(sinking.topic, json.dumps(camel).encode(), partition=1)
    account = sinking.once().account
    assert (account.written, account.duplicates, account.refused, account.missing) == (3, 1, 4, 0)
    assert sinking.offsets() == [7, 1]
    rows = {row["event_id"]: row for row in DeltaTable(str(sinking.path)).to_pyarrow_table().to_pylist()}
    assert sorted(rows) == ["a", "b", "c"]
    assert str(rows["a"]["day"]) == "2025-11-24"
    assert (rows["c"]["session_id"], rows["c"]["operation_latency_ms"]) == ("s", 7)
    assert json.loads(rows["c"]["log"]) == camel

    sinking.produce("c", "d", partition=1)
    # Another process and another group: where it begins, and which ids there are, is the table's to say.
    account = sinking.once(group="another").account
    assert (account.written, account.duplicates, account.refused) == (1, 1, 0)
    assert sinking.ids() == ["a", "b", "c", "d"]


def test_a_sink_that_is_days_behind_knows_the_ids_of_the_hour_before_its_records(sinking: Sinking) -> None:
    friday = time.time() - 3 * 86_400
    headers = [("received_at", b"%d" % (friday * 1_000_000))]
    sinking.produce("a", headers=headers, at=friday)
    sinking.once()
    sinking.produce("b", "a", headers=headers, at=friday + 60)
    account = sinking.once().account
    assert (account.written, account.duplicates) == (1, 1)
    assert sinking.ids() == ["a", "b"]


def test_a_sink_that_runs_loses_nothing_while_the_broker_is_away_and_ends_with_all_of_it(
    sinking: Sinking,
) -> None:
    sink = sinking.sink(commit_seconds=0.05)
    with sinking.running(sink):
        sinking.produce("a")
        sinking.until_ids(["a"])
        sinking.kafka.proxy.cut()
        wait_until(lambda: sink._state.value == "joining", 30)
        sinking.kafka.proxy.mend()
        sinking.produce("b")
        sinking.until_ids(["a", "b"])
        sink._commit_seconds = 3600.0
        sinking.produce("c")
        wait_until(lambda: bool(sink._batch.logs), 30)
    assert sinking.ids() == ["a", "b", "c"]


def test_commits_that_fail_or_whose_answer_is_lost_write_nothing_twice(
    sinking: Sinking, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = iter(["lost", "failed", "lost"])

    def misbehave(*arguments: Any, **options: Any) -> None:
        fault = next(faults, None)
        if fault != "failed":
            write_deltalake(*arguments, **options)
        if fault is not None:
            raise OSError(fault)

    monkeypatch.setattr(table_module, "write_deltalake", misbehave)
    sinking.produce("a", "b")
    sink = sinking.sink()
    with sinking.running(sink):
        wait_until(lambda: sink.account.failed == 1, 30)
        sinking.produce("c", "a")
        wait_until(lambda: sink.account.failed == 3, 30)
        sinking.produce("d")
        sinking.until_ids(["a", "b", "c", "d"])
    assert sinking.offsets() == [5, None]


def test_a_sink_that_was_overtaken_goes_on_where_the_other_one_ended(sinking: Sinking) -> None:
    sink = sinking.sink(commit_seconds=3600.0)
    sinking.produce("a", "b")
    with sinking.running(sink):
        wait_until(lambda: len(sink._batch.logs) == 2, 30)
        # Another sink that has the partition by now, as the group has it.
        other = EventTable(str(sinking.path), sinking.topic)
        other.open()
        other.commit(rows_of("a", "b"), {0: Move(None, 2)})
        sink._commit_seconds = 0.05
        wait_until(lambda: sink.account.overtaken + sink.account.failed == 1, 30)
        sinking.produce("c")
        sinking.until_ids(["a", "b", "c"])
    assert sinking.offsets() == [3, None]


def test_a_second_sink_takes_partitions_over_and_each_event_is_written_once(sinking: Sinking) -> None:
    first, second = sinking.sink(), sinking.sink()
    expected: list[str] = []

    def send(name: str) -> None:
        ids = [f"{name}-{number}" for number in range(20)]
        expected.extend(ids)
        sinking.produce(*ids[:10], partition=0)
        sinking.produce(*ids[10:], partition=1)

    def has_joined(sink: Sink, partitions: int) -> Callable[[], bool]:
        return lambda: len(sink._assigned) == partitions and sink._state.value == "reading"

    with sinking.running(first):
        wait_until(has_joined(first, 2), 30)
        send("one")
        with sinking.running(second):
            send("two")
            wait_until(has_joined(second, 1), 30)
            send("three")
            sinking.until_ids(expected)
        send("four")
        sinking.until_ids(expected)
    assert sinking.offsets() == [40, 40]


def test_once_says_that_no_partition_was_assigned(sinking: Sinking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "_FIRST_PARTITION_SECONDS", 0.5)
    sinking.kafka.proxy.cut()
    with pytest.raises(DestinationError, match="assigned no partition"):
        sinking.once()
