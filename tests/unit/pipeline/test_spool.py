"""The spool in one process: `flock` locks out a second descriptor of a file just as it does another process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adbc_telemetry.pipeline import spool as spool_module
from adbc_telemetry.pipeline.spool import Spool, SpoolSegment
from support.logs import ids_of, make_log

pytestmark = pytest.mark.skipif(not spool_module.AVAILABLE, reason="there are no file locks")

ROOM = 1024 * 1024


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path, "host", ROOM)


@pytest.fixture
def other(tmp_path: Path) -> Spool:
    """The spool of another process, as far as locks can tell."""
    return Spool(tmp_path, "host", ROOM)


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open(tmp_path: Path) -> Iterator[None]:
    yield
    proc = Path("/proc/self/fd")
    if proc.exists():
        left = [os.readlink(link) for link in proc.iterdir() if os.path.lexists(link)]
        assert [path for path in left if path.startswith(str(tmp_path))] == []


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool"))


def append(spool: Spool, ids: str) -> int:
    return spool.append([make_log(each) for each in ids])


def ids(segment: SpoolSegment, count: int = 1000) -> str:
    return "".join(ids_of(segment.last(count)))


def claimed(spool: Spool) -> SpoolSegment:
    segment = spool.claim()
    assert segment is not None
    return segment


def ids_in(spool: Spool) -> list[str]:
    """The ids of each segment, the oldest first, without taking any out."""
    segments = list(iter(spool.claim, None))
    found = [ids(segment) for segment in segments if segment is not None]
    for segment in segments:
        if segment is not None:
            segment.release()
    return found


# What is written and found again.


def test_events_come_back_as_they_were(spool: Spool, other: Spool) -> None:
    logs = [make_log("a", session_id="line\nbreak, NUL \0 and é"), make_log("b", operation_latency_ms=7)]
    assert spool.append(logs) == 2
    segment = claimed(other)
    assert segment.last(2) == logs
    segment.release()


def test_events_that_fit_go_into_the_newest_segment(spool: Spool, tmp_path: Path) -> None:
    assert append(spool, "ab") == 2
    assert append(spool, "c") == 1
    assert len(files(tmp_path)) == 1
    assert ids_in(spool) == ["abc"]


def test_events_of_other_hosts_are_left_alone(spool: Spool, tmp_path: Path) -> None:
    append(Spool(tmp_path, "other.example", ROOM), "x")
    assert spool.claim() is None
    append(spool, "a")
    assert ids_in(spool) == ["a"]
    assert len(files(tmp_path)) == 2


def test_a_host_in_another_spelling_is_the_same(spool: Spool, tmp_path: Path) -> None:
    append(Spool(tmp_path, "https://HOST:443/", ROOM), "a")
    assert ids_in(spool) == ["a"]


def test_what_cannot_be_encoded_is_not_written_and_makes_no_folder(tmp_path: Path) -> None:
    not_a_log: Any = object()
    spool = Spool(tmp_path / "new", "host", ROOM)
    assert spool.append([not_a_log]) == 0
    assert not (tmp_path / "new").exists()
    assert spool.append([not_a_log, make_log("a")]) == 1
    assert ids_in(spool) == ["a"]


def test_a_folder_that_is_not_there_is_an_empty_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "none", "host", ROOM)
    assert spool.claim() is None
    assert spool.errors == 0


# Claim, cut, release.


def test_batches_are_cut_off_the_end_of_the_file(spool: Spool, tmp_path: Path) -> None:
    append(spool, "abcde")
    segment = claimed(spool)
    (path,) = files(tmp_path)
    assert ids(segment, 2) == "de"
    assert segment.cut(2)
    assert path.read_bytes().count(b"\n") == 3, "the file is cut at once, for the case of a crash"
    assert ids(segment, 2) == "bc"
    segment.release()
    assert ids_in(spool) == ["abc"]


def test_a_segment_is_gone_once_its_last_event_is_cut_off(spool: Spool, tmp_path: Path) -> None:
    append(spool, "ab")
    segment = claimed(spool)
    assert not segment.cut(2)
    assert files(tmp_path) == []
    assert spool.claim() is None


def test_the_oldest_segment_is_claimed_first(spool: Spool) -> None:
    append(spool, "a")
    first = claimed(spool)
    append(spool, "b")
    second = claimed(spool)
    assert (ids(first), ids(second)) == ("a", "b")
    second.release()
    first.release()
    again = claimed(spool)
    assert ids(again) == "a"
    again.release()


def test_a_segment_that_was_released_cannot_be_cut_and_may_be_released_again(spool: Spool) -> None:
    append(spool, "ab")
    segment = claimed(spool)
    segment.release()
    segment.release()
    with pytest.raises(ValueError, match="released"):
        segment.cut(1)
    assert ids_in(spool) == ["ab"]


# Locks.


def test_a_segment_is_claimed_by_one_process_and_after_its_release_by_another(
    spool: Spool, other: Spool
) -> None:
    append(spool, "a")
    segment = claimed(spool)
    assert other.claim() is None
    segment.release()
    assert ids_in(other) == ["a"]
    assert (spool.errors, other.errors) == (0, 0)


def test_nothing_is_appended_to_a_segment_that_is_being_sent(
    spool: Spool, other: Spool, tmp_path: Path
) -> None:
    append(spool, "a")
    segment = claimed(spool)
    append(other, "b")
    assert len(files(tmp_path)) == 2
    assert ids(segment) == "a"
    assert not segment.cut(1)
    assert ids_in(other) == ["b"]


def test_a_segment_that_another_process_has_sent_meanwhile_is_passed_over(
    spool: Spool, other: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(spool, "a")
    listed = spool._segments()
    claimed(other).cut(1)
    monkeypatch.setattr(spool, "_segments", lambda: listed)
    assert spool.claim() is None
    assert spool.errors == 0


def test_a_segment_that_is_sent_between_its_opening_and_its_locking_is_passed_over(
    spool: Spool, other: Spool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    append(spool, "a")
    try_lock = spool_module._try_lock

    def late(descriptor: int) -> bool:
        monkeypatch.setattr(spool_module, "_try_lock", try_lock)
        claimed(other).cut(1)
        return try_lock(descriptor)

    monkeypatch.setattr(spool_module, "_try_lock", late)
    assert spool.claim() is None
    assert files(tmp_path) == []


def test_a_folder_that_another_process_holds_too_long_costs_the_events_and_is_an_error(
    spool: Spool, other: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(spool, "a")
    monkeypatch.setattr(spool_module, "_LOCK_SECONDS", 0.01)
    with other._locked_folder():
        assert append(spool, "bc") == 0
    assert spool.errors == 1
    assert append(spool, "d") == 1
    assert ids_in(spool) == ["ad"]


# Torn files.


@pytest.mark.parametrize("missing", [1, 10, 100])
def test_a_torn_last_record_is_lost_alone(spool: Spool, other: Spool, tmp_path: Path, missing: int) -> None:
    append(spool, "abc")
    (path,) = files(tmp_path)
    os.truncate(path, path.stat().st_size - missing)
    assert ids_in(other) == ["ab"]
    assert other.dropped == 1


def test_what_is_appended_after_a_torn_record_is_whole(spool: Spool, tmp_path: Path) -> None:
    append(spool, "ab")
    (path,) = files(tmp_path)
    os.truncate(path, path.stat().st_size - 5)
    append(spool, "c")
    assert len(files(tmp_path)) == 1
    assert ids_in(spool) == ["ac"]
    assert spool.dropped == 0, "the torn end was cut off before it was read"


def test_a_record_whose_checksum_is_wrong_is_lost_alone(spool: Spool, tmp_path: Path) -> None:
    append(spool, "abc")
    (path,) = files(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"b"', b'"x"')
    path.write_bytes(b"".join(lines))
    assert ids_in(spool) == ["ac"]
    assert spool.dropped == 1


def test_a_whole_record_that_is_no_log_is_passed_over(spool: Spool, tmp_path: Path) -> None:
    append(spool, "a")
    (path,) = files(tmp_path)
    with path.open("ab") as file:
        file.write(spool_module._record(b'{"workspace_id": "of another version"}'))
    assert ids_in(spool) == ["a"]
    assert spool.dropped == 1


def test_a_segment_with_nothing_whole_is_deleted(spool: Spool, tmp_path: Path) -> None:
    append(spool, "a")
    (path,) = files(tmp_path)
    path.write_bytes(b"\0" * 500)
    assert spool.claim() is None
    assert files(tmp_path) == []


def test_a_segment_that_cannot_be_read_does_not_block_the_next_one(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(spool, "a")
    first = claimed(spool)
    append(spool, "b")
    first.release()
    reads = iter([OSError("bad sector")])
    read_all = spool_module._read_all

    def read(descriptor: int) -> bytes:
        for error in reads:
            raise error
        return read_all(descriptor)

    monkeypatch.setattr(spool_module, "_read_all", read)
    segment = claimed(spool)
    assert ids(segment) == "b"
    segment.release()
    assert spool.errors == 1
    assert ids_in(spool) == ["a", "b"], "the lock of the one that could not be read was kept"


# Bounds.


def test_old_segments_make_room_for_new_events(tmp_path: Path) -> None:
    record = len(spool_module._record(b"x" * 200))
    spool = Spool(tmp_path, "host", 16 * record * 2)
    for number in range(100):
        assert spool.append([make_log(f"{number:03}")]) == 1
        assert sum(path.stat().st_size for path in files(tmp_path)) <= 16 * record * 2
    kept = [segment[i : i + 3] for segment in ids_in(spool) for i in range(0, len(segment), 3)]
    assert kept == [f"{number:03}" for number in range(100 - len(kept), 100)], "the oldest go first"
    assert spool.dropped == 100 - len(kept) > 0


def test_a_segment_that_is_being_sent_is_not_dropped_to_make_room(tmp_path: Path) -> None:
    size = len(spool_module._record(b"x" * 200))
    spool, other = Spool(tmp_path, "host", 2 * size), Spool(tmp_path, "host", 2 * size)
    append(spool, "a")
    segment = claimed(other)
    for each in "bcdef":
        append(spool, each)
    assert ids(segment) == "a"
    assert segment.cut(1) is False
    assert ids_in(spool)[-1] == "f"


def test_what_is_larger_than_the_whole_spool_is_not_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "host", 1000)
    append(spool, "a")
    assert spool.append([make_log("b", session_id="x" * 2000)]) == 0
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 1000


def test_a_disk_that_takes_half_a_record_keeps_none_of_it(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    append(spool, "a")
    (path,) = files(tmp_path)
    before = path.read_bytes()

    def half(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[: len(data) // 2])
        raise OSError(28, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(spool_module, "_write_all", half)
        assert append(spool, "b") == 0
    assert path.read_bytes() == before
    assert spool.errors == 1
    assert spool.diagnostics.last_failure is not None
    assert spool.diagnostics.last_failure.reason.endswith("OSError ENOSPC")


def test_a_new_segment_that_could_not_be_written_leaves_no_file(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(descriptor: int, data: bytes) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(spool_module, "_write_all", full)
    assert append(spool, "a") == 0
    assert files(tmp_path) == []


def test_a_forked_child_counts_anew(spool: Spool, tmp_path: Path) -> None:
    append(spool, "a")
    (path,) = files(tmp_path)
    path.write_bytes(b"torn")
    assert spool.claim() is None
    assert spool.dropped == 1
    spool.after_fork_in_child()
    assert (spool.dropped, spool.errors) == (0, 0)
