"""`make demo`."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.process import python

DEMO = Path(__file__).parents[2] / "demo" / "run.py"


@pytest.mark.parametrize("word", [{"DO_NOT_TRACK": "1"}, {"DATABRICKS_TELEMETRY_ENABLED": "false"}])
def test_the_demo_says_that_telemetry_is_turned_off(word: dict[str, str]) -> None:
    for needed in ("adbc_driver_sqlite.dbapi", "adbc_driver_duckdb.dbapi", "rich", "starlette"):
        pytest.importorskip(needed)
    with python(str(DEMO), environ=word) as running:
        ended = running.end(60)
    assert (ended.code, ended.stdout) == (2, "")
    [line] = ended.stderr.splitlines()
    assert "DO_NOT_TRACK" in line
