"""The journal: a commit is whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")

from adbc_telemetry.collector.store.journal import Journal, cut_incomplete_line
from adbc_telemetry.collector.store.layout import StoreFolder, create_store

DAY = "2026-11-26"


@pytest.fixture
def folder(tmp_path: Path) -> StoreFolder:
    return create_store(tmp_path / "store")


def content(folder: StoreFolder) -> bytes:
    return b"".join(segment.path.read_bytes() for segment in folder.segments())


def failing_write(monkeypatch: pytest.MonkeyPatch, written_before: int) -> None:
    """The disk takes some bytes of the next write, and then is full."""
    write = os.write
    left = [written_before]

    def partly(descriptor: int, data: Any) -> int:
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, bytes(data)[: left.pop()])

    monkeypatch.setattr(os, "write", partly)


def test_a_commit_appends_all_lines_in_order(folder: StoreFolder) -> None:
    journal = Journal(folder, 1)
    journal.commit([b"one\n", b"two\n"], DAY)
    journal.commit([b"three\n"], DAY)
    assert content(folder) == b"one\ntwo\nthree\n"
    assert journal.length == 14


def test_each_segment_has_its_number_and_its_day(folder: StoreFolder) -> None:
    journal = Journal(folder, 7)
    journal.commit([b"one\n"], "2026-11-26")
    journal.close_segment()
    journal.commit([b"two\n"], "2026-11-27")
    assert [(segment.number, segment.day) for segment in folder.segments()] == [
        (7, "2026-11-26"),
        (8, "2026-11-27"),
    ]


def test_a_commit_that_fails_half_way_leaves_nothing_behind(
    folder: StoreFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(folder, 1)
    journal.commit([b"before\n"], DAY)
    with monkeypatch.context() as full:
        failing_write(full, 4)
        with pytest.raises(OSError, match="No space"):
            journal.commit([b"lost\n", b"lost too\n"], DAY)
    assert content(folder) == b"before\n"
    journal.commit([b"after\n"], DAY)
    assert content(folder) == b"before\nafter\n"


def test_a_commit_whose_sync_fails_leaves_nothing_behind(
    folder: StoreFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(folder, 1)
    journal.commit([b"before\n"], DAY)
    sync = os.fdatasync
    failures = [OSError(errno.EIO, "Input/output error")]

    def fail_once(descriptor: int) -> None:
        if failures:
            raise failures.pop()
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", fail_once)
    with pytest.raises(OSError, match="Input/output"):
        journal.commit([b"lost\n"], DAY)
    assert content(folder) == b"before\n"


def test_a_torn_segment_takes_nothing_before_it_is_cut_back(
    folder: StoreFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(folder, 1)
    journal.commit([b"before\n"], DAY)
    with monkeypatch.context() as broken:
        failing_write(broken, 4)
        broken.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
        with pytest.raises(OSError, match="No space"):
            journal.commit([b"lost\n"], DAY)
        with pytest.raises(OSError, match="broken"):
            journal.commit([b"lost as well\n"], DAY)
        with pytest.raises(OSError, match="broken"):
            journal.close_segment()
    journal.commit([b"after\n"], DAY)
    assert content(folder) == b"before\nafter\n"


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (b"", b""),
        (b"whole\n", b"whole\n"),
        (b"torn", b""),
        (b"whole\ntorn", b"whole\n"),
        (b"whole\n" + b"x" * 200_000, b"whole\n"),
    ],
)
def test_an_incomplete_last_line_is_cut(folder: StoreFolder, found: bytes, kept: bytes) -> None:
    segment = folder.segment(1, DAY)
    segment.path.write_bytes(found)
    cut_incomplete_line(segment)
    assert segment.path.read_bytes() == kept
