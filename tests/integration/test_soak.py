"""Half a minute of the soak: accounts close, memory stays flat, and no thread or descriptor is left over."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 35
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "soak.py"

pytest.importorskip("psutil")


@pytest.mark.skipif(sys.platform == "win32", reason="the soak forks and counts descriptors")
@pytest.mark.timeout(SECONDS + 120)
def test_half_a_minute_of_faults_loses_no_event_and_leaks_nothing(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    out = subprocess.run(
        [sys.executable, str(SCRIPT), "--seed", "1", "--seconds", str(SECONDS), "--json", str(file)],
        capture_output=True,
        text=True,
        timeout=SECONDS + 100,
    )
    assert (out.returncode, out.stderr) == (0, ""), out.stdout + out.stderr
    assert "verdict: all holds" in out.stdout
    figures = json.loads(file.read_text())
    events, costs, done = figures["events"], figures["costs"], figures["done"]
    assert figures["violations"] == []

    # The script makes the checks. The test asserts that it had something to check.
    assert events["enqueued"] == events["sent"] > 2_500
    losses = sum(count for name, count in events.items() if name.startswith("dropped_"))
    assert events["enqueued"] == (
        events["delivered"] + events["rejected"] + events["failed"] + events.get("spooled", 0) + losses
    )
    assert 0 < events["sure"] <= events["delivered"] <= events["accepted"]
    for count in ("rejected", "failed", "dropped_circuit_open", "dropped_closed"):
        assert events[count] > 0, f"no event was {count}"
    assert len(figures["requests"]) >= 8, "too few kinds of faults occurred"
    assert min(done["children"], done["reopened"], done["flushes"], done["checks"], done["leases"]) > 1
    assert costs["our_threads_most"] <= 8
    assert costs["our_threads_end"] == 0
    assert costs["threads_end"] == costs["threads_start"]
    assert costs["descriptors_end"] == costs["descriptors_start"]
