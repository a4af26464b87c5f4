"""The documentation says what is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_table_of_faults_names_every_scenario_and_no_other() -> None:
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
