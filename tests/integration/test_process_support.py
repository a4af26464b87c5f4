"""The tests' processes run with any folder for temporary files."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from support.process import run_python


@pytest.mark.skipif(sys.platform == "win32", reason="needs a forkserver")
@pytest.mark.parametrize("name", ["mit Ümlaut", "x" * 103])
def test_children_of_a_process_run_with_a_temporary_folder_of_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / name))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    ended = run_python(
        """
        import multiprocessing
        child = multiprocessing.get_context("forkserver").Process(target=print, args=("child",))
        child.start()
        child.join()
        """
    )
    assert (ended.code, ended.stdout, ended.stderr) == (0, "child\n", "")
