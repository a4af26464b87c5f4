"""The documentation matches the code. `test_docs_examples.py` runs its examples."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from support.settings_table import settings_table, table_of_the_page

ROOT = Path(__file__).parents[2]


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


def test_the_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).exists()] == []
