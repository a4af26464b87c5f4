"""The documentation matches the code, and its examples run as printed."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.process import Ended, running_python
from support.server import TelemetryServer, refused_url
from support.settings_table import settings_table, table_of_the_page

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENDPOINT = "http://127.0.0.1:8317"
"""The endpoint in the examples. The tests replace it and change nothing else."""


def test_the_table_of_faults_names_exactly_the_scenarios() -> None:
    scenarios = set()
    for path in (ROOT / "tests" / "faults").glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                scenarios.add(node.name.removeprefix("test_").replace("_", " "))
    rows = re.findall(
        r"^\| (.+?)(?:\[.*?\])? \|", (ROOT / "docs" / "faults.md").read_text(encoding="utf-8"), re.M
    )
    named = {row for row in rows if row not in ("scenario", "---")}
    assert named == scenarios, "run: make faults"
    assert len(named) >= 40


def blocks(language: str) -> dict[str, str]:
    """The README's code blocks in a language, by their section's title. No section has two."""
    found: dict[str, str] = {}
    for section in README.split("\n## "):
        title = section.partition("\n")[0]
        for block in re.findall(rf"^```{language}\n(.*?)^```", section, re.M | re.S):
            assert title not in found
            found[title] = block
    return found


def run_example(title: str, url: str, **environ: str) -> Ended:
    """Run a block in its own process, with `url` as the endpoint."""
    block = blocks("python")[title]
    assert ENDPOINT in block
    with running_python(block.replace(ENDPOINT, url), environ=environ) as running:
        return running.end(60)


def test_every_python_example_of_the_readme_is_run_by_a_test_below() -> None:
    assert blocks("python").keys() == {"On a connection", "In a driver"}


def test_the_example_of_connections_records_both_of_them(server: TelemetryServer) -> None:
    pytest.importorskip("adbc_driver_sqlite.dbapi")
    ended = run_example("On a connection", server.url)
    assert (ended.code, ended.stdout, ended.stderr) == (0, "", "")
    assert recorded(server) == 2 * ["CREATE_SESSION", "EXECUTE_STATEMENT", "DELETE_SESSION"]
    assert {request.headers["Authorization"] for request in server.requests} == {"Bearer my-token"}


def test_the_example_of_a_driver_records_its_statement(server: TelemetryServer) -> None:
    ended = run_example("In a driver", server.url)
    assert (ended.code, ended.stderr) == (0, "")
    assert "enqueued=1, delivered=1," in ended.stdout
    assert recorded(server) == ["EXECUTE_STATEMENT"]


@pytest.mark.parametrize("title", ["On a connection", "In a driver"])
@pytest.mark.parametrize("word", [{"DO_NOT_TRACK": "1"}, {"DATABRICKS_TELEMETRY_ENABLED": "false"}])
def test_an_example_runs_and_records_nothing_when_the_user_opted_out(
    server: TelemetryServer, title: str, word: dict[str, str]
) -> None:
    pytest.importorskip("adbc_driver_sqlite.dbapi")
    ended = run_example(title, server.url, **word)
    assert (ended.code, ended.stderr) == (0, "")
    assert server.requests == []


def recorded(server: TelemetryServer) -> list[str]:
    """The operations that arrived, in order."""
    return [
        log["entry"]["sql_driver_log"]["sql_operation"]["operation_detail"]["operation_type"]
        for request in server.requests
        for log in request.logs
    ]


COMMANDS = {
    "python": """#!/bin/sh
exec "$TEST_PYTHON" "$@"
""",
    # The command; the collector only starts after a report has failed to reach it.
    "adbc-telemetry": """#!/bin/sh
case $1 in
collect)
    until [ -e asked ]; do sleep 0.05; done
    exec "$TEST_PYTHON" -m adbc_telemetry "$@"
    ;;
*)
    "$TEST_PYTHON" -m adbc_telemetry "$@" && exit
    code=$?
    touch asked
    exit $code
    ;;
esac
""",
}


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_the_first_result_appears_even_if_the_collector_starts_late(tmp_path: Path) -> None:
    for needed in ("adbc_driver_sqlite.dbapi", "duckdb", "starlette"):
        pytest.importorskip(needed)
    for name, script in COMMANDS.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o700)
    install, _, block = blocks("sh")["First result, in ten lines"].partition("\n")
    assert install == "pip install '.[adbc,collector]' adbc-driver-sqlite"
    assert len(block.splitlines()) == 9
    port = refused_url().rpartition(":")[2]
    assert block.count("8317") == 4
    result = subprocess.run(
        ["sh", "-c", block.replace("8317", port)],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TEST_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,  # includes the collector, which inherits the pipes
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert f"collecting on http://127.0.0.1:{port} into telemetry\n" in result.stdout
    assert re.search(r"^events +3 *$", result.stdout, re.M)


def test_each_promise_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    promises = re.split(r"^## ", page, flags=re.M)[1:]
    assert [promise.split(".")[0] for promise in promises] == [str(number) for number in range(1, 16)]
    for promise in promises:
        named = re.findall(r"^- `(tests/\S+\.py)::(test_\w+)`$", promise, re.M)
        assert len(named) >= 3, promise
        for path, name in named:
            assert re.search(rf"def {name}\(", (ROOT / path).read_text(encoding="utf-8")), f"{path}::{name}"


def test_the_table_of_settings_is_that_of_the_code() -> None:
    assert table_of_the_page() == settings_table(), (
        "run: PYTHONPATH=tests python tests/support/settings_table.py"
    )
