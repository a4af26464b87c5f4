"""The examples work as they are copied: in an empty folder, with nothing of this repository but the package."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.flags import FlagServer
from support.server import TelemetryServer

EXAMPLES = Path(__file__).parents[2] / "examples"
PAGES = Path(__file__).parents[2] / "docs"
OPTIONS = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--override-ini", "pythonpath=."]


@pytest.mark.parametrize("name", ["tiny_driver"])
def test_the_tests_of_an_example_pass_in_a_copy_of_it(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(EXAMPLES / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    out = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", *OPTIONS],
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert out.returncode == 0, out.stdout + out.stderr
    assert " passed" in out.stdout
    assert "skipped" not in out.stdout


def test_the_examples_of_the_page_for_drivers_run_and_record(server: TelemetryServer) -> None:
    flags = FlagServer(server)
    flags.turn(True)
    page = (PAGES / "drivers.md").read_text(encoding="utf-8")
    connection, statements = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(connection.replace("http://127.0.0.1:8317", server.url), "drivers.md", "exec"), {})
    assert flags.operations == ["CREATE_SESSION", "EXECUTE_STATEMENT", "LIST_TABLES", "DELETE_SESSION"]

    names: dict[str, object] = {}
    exec(compile(statements.replace("127.0.0.1:8317", server.url), "drivers.md", "exec"), names)
    asyncio.run(names["main"]())  # type: ignore[operator]
    assert flags.operations[4:] == ["CREATE_SESSION", "LIST_CATALOGS", "EXECUTE_STATEMENT", "DELETE_SESSION"]


def test_the_example_of_the_page_on_decisions_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (PAGES / "decision.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(example, "decision.md", "exec"), {})
    assert capsys.readouterr().out in page
