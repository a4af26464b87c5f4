"""Which folders are stores, and who may write them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("starlette")

from adbc_telemetry.collector.store import (  # noqa: E402
    StoreError,
    is_old_database,
    layout,
    open_store,
)
from adbc_telemetry.collector.store.layout import create_store, locked  # noqa: E402


def test_a_new_folder_and_an_empty_one_become_stores(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "new" / "deep"):
        assert create_store(path).path == open_store(path).path == path


def test_a_folder_with_other_files_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir")
    with pytest.raises(
        StoreError, match="holds other files and is not a store; give a folder that is new or empty"
    ):
        create_store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_an_old_database_is_recognised_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.duckdb"
    duckdb.connect(str(path)).close()
    before = path.read_bytes()
    assert is_old_database(path)
    for use in (create_store, open_store):
        with pytest.raises(StoreError, match=r"a database of an earlier version.*adbc-telemetry export"):
            use(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"a block of text", b"x" * 5000])
def test_a_file_is_no_store(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is not a folder, as a store is"):
        create_store(path)
    assert path.read_bytes() == content


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_a_fifo_is_no_store_and_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with pytest.raises(StoreError, match="is not a folder"):
        open_store(path)


def test_a_folder_that_does_not_exist_is_no_store_to_read(tmp_path: Path) -> None:
    with pytest.raises(
        StoreError, match="does not exist; give the folder that a collector writes, or its URL"
    ):
        open_store(tmp_path / "none")


def test_a_store_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text('{"format": 99}')
    with pytest.raises(StoreError, match="a store of another version"):
        create_store(tmp_path)


def test_a_store_has_one_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_LOCK_SECONDS", 0.1)
    folder = create_store(tmp_path / "store")
    with (
        locked(folder),
        pytest.raises(StoreError, match="in use by another collector; stop that one or give another folder"),
        locked(folder),
    ):
        pass
    with locked(folder):
        pass


def test_the_lock_is_held_until_the_last_process_that_inherited_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = create_store(tmp_path / "store")
    with locked(folder) as descriptor:
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor]
        )
    with child:
        monkeypatch.setattr(layout, "_LOCK_SECONDS", 0.1)
        with pytest.raises(StoreError, match="in use"), locked(folder):
            pass
        child.communicate(b"\n")
    monkeypatch.setattr(layout, "_LOCK_SECONDS", 10.0)
    with locked(folder):
        pass
