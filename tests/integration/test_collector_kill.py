"""A collector that is killed at any moment has kept what it acknowledged, once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("starlette")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_collector.py"


@pytest.mark.timeout(180)
def test_what_was_acknowledged_survives_ten_kills_and_nothing_is_there_twice() -> None:
    command = [sys.executable, str(SCRIPT), "--rounds", "10", "--longest", "1.5", "--seed", "7"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "PASS" in result.stdout
