"""The store: acknowledged means durable, each id once, and readers see each event once."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("starlette")

from adbc_telemetry.collector.destination import Added, NotDurableError  # noqa: E402
from adbc_telemetry.collector.store import moving  # noqa: E402
from adbc_telemetry.collector.store.journal import Journal  # noqa: E402
from adbc_telemetry.collector.workers import WorkerError, WorkerProcess  # noqa: E402
from support.stores import (  # noqa: E402
    Log,
    events_in,
    parquet_files,
    running_store,
    stored_log,
    stored_logs,
    until,
)


def counts(path: Path) -> tuple[int, int]:
    """Events, and distinct ids."""
    ((events, ids),) = events_in(path, "count(*), count(DISTINCT event_id)")
    return events, ids


class HeldJournal:
    """Holds the journal's commits until it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = threading.Event()
        self.released = threading.Event()
        self.groups: list[int] = []
        commit = Journal.commit

        def held(journal: Journal, lines: Any, day: str) -> None:
            self.entered.set()
            assert self.released.wait(20)
            self.groups.append(len(lines))
            commit(journal, lines, day)

        monkeypatch.setattr(Journal, "commit", held)


def test_events_are_readable_as_soon_as_they_are_acknowledged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_store(tmp_path / "store") as store:
            assert await store.add(stored_logs(3)) == Added(3, 0)
            assert counts(tmp_path / "store") == (3, 3)

    asyncio.run(scenario())


def test_an_acknowledged_event_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    sync = os.fdatasync

    def counted(descriptor: int) -> None:
        sync(descriptor)
        synced.append(descriptor)

    monkeypatch.setattr(os, "fdatasync", counted)

    async def scenario() -> None:
        async with running_store(tmp_path / "store") as store:
            await store.add(stored_logs(1))
            assert len(synced) == 1

    asyncio.run(scenario())


def test_requests_that_wait_together_become_durable_by_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = HeldJournal(monkeypatch)

    async def scenario() -> None:
        async with running_store(tmp_path / "store") as store:
            requests = [asyncio.create_task(store.add(stored_logs(1)))]
            await until(journal.entered.is_set, "the first commit begins")
            requests += [asyncio.create_task(store.add(stored_logs(2))) for _ in range(5)]
            await asyncio.sleep(0)
            journal.released.set()
            await asyncio.gather(*requests)
        assert journal.groups == [1, 10]

    asyncio.run(scenario())


def test_an_id_is_stored_once_in_one_request_in_two_and_across_restarts(tmp_path: Path) -> None:
    log = stored_log("the same")

    async def scenario() -> None:
        async with running_store(tmp_path / "store") as store:
            assert await store.add([log, log]) == Added(1, 1)
            assert await store.add([log, stored_log()]) == Added(1, 1)
        for _ in range(2):  # the ids come from a generation, and from the Parquet files
            async with running_store(tmp_path / "store") as store:
                assert await store.add([log]) == Added(0, 1)
            for path in (tmp_path / "store" / "ids").iterdir():
                path.unlink()
        async with running_store(tmp_path / "store") as store:
            assert await store.add([log]) == Added(0, 1)

    asyncio.run(scenario())
    assert counts(tmp_path / "store") == (2, 2)


def test_a_repetition_is_acknowledged_only_when_the_first_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = HeldJournal(monkeypatch)
    log = stored_log()

    async def scenario() -> None:
        async with running_store(tmp_path / "store") as store:
            first = asyncio.create_task(store.add([log]))
            await until(journal.entered.is_set, "the commit begins")
            second = asyncio.create_task(store.add([log]))
            await asyncio.sleep(0.05)
            assert not first.done()
            assert not second.done()
            journal.released.set()
            assert await first == Added(1, 0)
            assert await second == Added(0, 1)

    asyncio.run(scenario())


def test_what_could_not_be_written_is_no_duplicate_when_it_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logs = stored_logs(3)

    def full(descriptor: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def scenario() -> None:
        async with running_store(tmp_path / "store") as store:
            with monkeypatch.context() as disk:
                disk.setattr(os, "write", full)
                for _ in range(3):
                    with pytest.raises(NotDurableError):
                        await store.add(logs)
                (problem,) = store.health().problems
                assert "No space left on device" in problem
                assert "make room, or lower --max-size" in problem
            assert await store.add(logs) == Added(3, 0)
            assert store.health().problems == []

    asyncio.run(scenario())
    assert counts(tmp_path / "store") == (3, 3)
    assert [record.levelname for record in caplog.records] == [
        "WARNING",
        "WARNING",
    ]  # one line each, not three


def test_a_request_that_is_given_up_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = HeldJournal(monkeypatch)

    async def scenario() -> None:
        async with running_store(tmp_path / "store") as store:
            given_up = asyncio.create_task(store.add(stored_logs(1)))
            other = asyncio.create_task(store.add(stored_logs(1)))
            await until(journal.entered.is_set, "the commit begins")
            given_up.cancel()
            await asyncio.gather(given_up, return_exceptions=True)
            journal.released.set()
            assert await other == Added(1, 0)

    asyncio.run(scenario())


def test_a_store_that_stops_takes_nothing_more_and_leaves_only_parquet_files(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_store(tmp_path / "store") as store:
            under_way = [asyncio.create_task(store.add(stored_logs(10))) for _ in range(20)]
            await asyncio.sleep(0)
            stopping = asyncio.create_task(store.stop())
            await asyncio.sleep(0)
            with pytest.raises(NotDurableError):
                await store.add(stored_logs(1))
            await asyncio.gather(*under_way, stopping)

    asyncio.run(scenario())
    files = [str(path) for path in parquet_files(tmp_path / "store")]
    assert duckdb.sql(f"SELECT count(*) FROM read_parquet({files})").fetchall() == [(200,)]
    assert list((tmp_path / "store" / "journal").iterdir()) == []


def test_other_tools_see_events_after_seconds_and_never_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "FIRST_FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(moving, "TICK_SECONDS", 0.01)
    path = tmp_path / "store"

    def seen() -> list[str]:
        # As any other tool would: a glob, no lock, no knowledge of the journal.
        files = [str(file) for file in parquet_files(path)]
        if not files:
            return []
        return [row[0] for row in duckdb.sql(f"SELECT event_id FROM read_parquet({files})").fetchall()]

    async def scenario() -> None:
        async with running_store(path) as store:
            sent: list[str] = []
            for _ in range(20):
                logs = stored_logs(5)
                await store.add(logs)
                sent += [log.event_id for log in logs]
                mine = seen()
                assert len(mine) == len(set(mine))
                assert sorted(row[0] for row in events_in(path, "event_id")) == sorted(sent)
            await until(lambda: sorted(seen()) == sorted(sent), "all events are in Parquet files")
        assert len(parquet_files(path)) == 1  # the newest file took them in, one after the other

    asyncio.run(scenario())


def test_a_journal_that_was_compacted_but_not_deleted_is_not_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "store"

    async def write() -> None:
        async with running_store(path) as store:
            await store.add(stored_logs(3))
            store._journal.close_segment()
            left_behind[:] = [(each, each.read_bytes()) for each in (path / "journal").iterdir()]
            store._moving.closed = store._folder.segments()

    async def restart() -> None:
        async with running_store(path):
            assert list((path / "journal").iterdir()) == []

    left_behind: list[tuple[Path, bytes]] = []
    asyncio.run(write())
    for segment, content in left_behind:
        segment.write_bytes(content)  # as if the process had been killed before it could delete it
    assert counts(path) == (3, 3)
    asyncio.run(restart())
    assert counts(path) == (3, 3)


def test_the_log_is_kept_as_it_came_beside_its_columns(tmp_path: Path) -> None:
    as_it_came = '{ "frontendLogEventId" : "a",\n "entry": {"sqlDriverLog": {"operationLatencyMs": "12"}}}'
    canonical = {
        "frontend_log_event_id": "a",
        "context": {"client_context": {"timestamp_millis": 1_764_000_000_123}},
        "entry": {"sql_driver_log": {"operation_latency_ms": 12}},
    }

    async def scenario() -> None:
        async with running_store(tmp_path / "store") as store:
            await store.add([Log("a", as_it_came, json.dumps(canonical).encode())])
            in_the_journal = events_in(tmp_path / "store", "event_id, operation_latency_ms, timestamp, log")
        assert in_the_journal == events_in(
            tmp_path / "store", "event_id, operation_latency_ms, timestamp, log"
        )
        ((event_id, latency, timestamp, log),) = in_the_journal
        assert (event_id, latency, log) == ("a", 12, as_it_came)
        assert timestamp.isoformat() == "2025-11-24T16:00:00.123000+00:00"

    asyncio.run(scenario())


@pytest.mark.parametrize("millis", [-1, 253_402_300_800_000, 2**63 - 1])
def test_a_clock_that_is_off_every_calendar_leaves_the_column_empty(tmp_path: Path, millis: int) -> None:
    log = {"context": {"client_context": {"timestamp_millis": millis}}}

    async def scenario() -> None:
        async with running_store(tmp_path / "store") as store:
            await store.add([Log("a", json.dumps(log))])
        assert events_in(tmp_path / "store", "timestamp") == [(None,)]

    asyncio.run(scenario())


def test_a_damaged_line_costs_no_other_event(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "store"

    async def scenario() -> None:
        async with running_store(path) as store:
            await store.add(stored_logs(2))
            assert store._journal.segment is not None
            damage = b'{"received_us": 1, "log": "\xff\xfe broken\n'
            store._journal.commit([damage], store._journal.segment.day)
            await store.add(stored_logs(2))
            assert counts(path) == (4, 4)

    asyncio.run(scenario())
    assert counts(path) == (4, 4)
    assert "could not be read and are left out" in caplog.text


def test_compaction_is_tried_again_after_its_process_has_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "FIRST_FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(moving, "RETRY_SECONDS", 0.05)
    path = tmp_path / "store"

    async def scenario() -> None:
        async with running_store(path) as store:
            await store.add(stored_logs(1))
            await until(lambda: len(parquet_files(path)) == 1, "the first compaction")
            pid = store._compactor.pid
            assert pid is not None
            os.kill(pid, 9)
            await store.add(stored_logs(1))
            await until(lambda: store.health().journal_bytes == 0, "the second compaction")
            assert store._compactor.pid != pid

    asyncio.run(scenario())
    assert counts(path) == (2, 2)


def array_of(logs: list[Log]) -> bytes:
    return json.dumps([log.text for log in logs]).encode()


def test_an_array_of_logs_becomes_a_row_for_each(tmp_path: Path) -> None:
    path = tmp_path / "store"
    logs = stored_logs(3)

    async def scenario() -> None:
        async with running_store(path) as store:
            assert await store.add(logs, array_of(logs)) == Added(3, 0)
            (segment,) = (path / "journal").iterdir()
            assert len(segment.read_bytes().splitlines()) == 1
            assert sorted(events_in(path, "log")) == sorted((log.text,) for log in logs)
        assert sorted(events_in(path, "event_id, log")) == sorted((log.event_id, log.text) for log in logs)

    asyncio.run(scenario())


def test_an_array_with_a_known_log_is_not_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "store"
    logs = stored_logs(3)

    async def scenario() -> None:
        async with running_store(path) as store:
            await store.add(logs[:1])
            assert await store.add(logs, array_of(logs)) == Added(2, 1)
            assert await store.add(logs[:2] * 2, array_of(logs[:2] * 2)) == Added(0, 4)

    asyncio.run(scenario())
    assert counts(path) == (3, 3)


@pytest.mark.parametrize(
    "text", ["a\x00b", "\ud7ff", "\U0001f600", "x" * 100_000, "\x01\x1f", "'\"\\", "\u2028", "\ufffe", ""]
)
def test_text_of_any_kind_comes_back_as_it_was(tmp_path: Path, text: str) -> None:
    logs = [stored_log(session_id=text)]

    async def scenario() -> None:
        async with running_store(tmp_path / "store") as store:
            await store.add(logs)
            logs.append(stored_log(session_id=text))
            await store.add(logs[1:], array_of(logs[1:]))
            assert events_in(tmp_path / "store", "session_id") == [(text,), (text,)]

    asyncio.run(scenario())
    assert sorted(events_in(tmp_path / "store", "session_id, log")) == sorted(
        (text, log.text) for log in logs
    )


def test_a_compaction_whose_answer_is_lost_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "FIRST_FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(moving, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(
        moving, "_COMPACTED_TOGETHER", 2
    )  # two segments make a file of their own, one is merged
    path = tmp_path / "store"
    call = WorkerProcess.call
    lost: list[str] = []

    async def lose_an_answer(worker: WorkerProcess, result_type: Any, method: str, **parameters: Any) -> Any:
        answer = await call(worker, result_type, method, **parameters)
        if method == "compact" and len(parameters["segments"]) == 2 and not lost:
            lost.append(parameters["target"])
            raise WorkerError("the process ended")
        return answer

    monkeypatch.setattr(WorkerProcess, "call", lose_an_answer)

    async def scenario() -> None:
        async with running_store(path) as store:
            await store.add(stored_logs(2))
            await until(lambda: store.health().journal_bytes == 0, "the first file")
            monkeypatch.setattr(moving, "FIRST_FLUSH_SECONDS", 60.0)
            for _ in range(2):
                await store.add(stored_logs(2))
                await store._commits.close_segment()
            # The same segments, tried again one by one, would be merged into the first file.
            await until(lambda: store.health().journal_bytes == 0, "the second file")
            assert len(lost) == 1
            assert counts(path) == (6, 6)

    asyncio.run(scenario())
    assert counts(path) == (6, 6)
    assert len(parquet_files(path)) == 2
