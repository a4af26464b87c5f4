"""A million events while the endpoint is down the whole time."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adbc_telemetry import ClientStats
from faults.scenario import Scenario
from support.server import TelemetryServer, refused_url

EVENTS = 1_000_000
ROUNDS = 25

# Rounds of statements alternate between this client and one whose endpoint is healthy, so that the caller's cost per
# event is compared in the same process at the same time.
PROGRAM = """
import json, statistics, sys, threading, time
import psutil
import msgspec
from adbc_telemetry import *
from adbc_telemetry.schema import OperationType, StatementType

healthy_url, down_url, settings, events, rounds = json.loads(sys.argv[1])
config = TelemetryConfiguration(enabled=True, flush_interval_ms=100, close_timeout_ms=500, **settings)
clients = [TelemetryClient(url, config) for url in (healthy_url, down_url)]

def statements(client, count):
    session = TelemetrySessionContext(session_id="s", client=client)
    cpu, wall = time.thread_time(), time.perf_counter()
    for _ in range(count):
        statement = StatementTelemetryContext(
            session, statement_type=StatementType.QUERY, operation_type=OperationType.EXECUTE_STATEMENT
        )
        statement.record_execute_complete()
        statement.record_results_consumed()
        statement.emit()
    return (time.thread_time() - cpu) / count, (time.perf_counter() - wall) / count

for client in clients:
    statements(client, 2000)
clients[0].flush(5)
process = psutil.Process()
rss, threads, peak = process.memory_info().rss, threading.active_count(), 0
costs = ([], [])
for _ in range(rounds):
    costs[0].append(statements(clients[0], events // rounds // 4))
    clients[0].flush(5)
    costs[1].append(statements(clients[1], events // rounds))
    peak = max(peak, process.memory_info().rss)
threads_now = threading.active_count()
for client in clients:
    client.close()
cpu, wall = (
    statistics.median(cost[index] for cost in costs[1]) / statistics.median(cost[index] for cost in costs[0])
    for index in (0, 1)
)
print(json.dumps({"rss_mib": (peak - rss) / 2**20, "threads": [threads, threads_now], "cpu": cpu, "wall": wall}))
print(msgspec.json.encode(clients[1].stats()).decode())
"""


@pytest.mark.parametrize(
    ("down", "settings"),
    [
        ("refused", {}),
        ("black hole", {}),
        ("black hole", {"circuit_open": "retain"}),
        ("refused", {"spool": True, "spool_max_bytes": 4 * 1024 * 1024}),
    ],
    ids=["refused", "black hole", "black hole retain", "refused with a spool"],
)
def test_a_million_events_while_the_endpoint_is_down(
    fault: Scenario, server: TelemetryServer, tmp_path: Path, down: str, settings: dict[str, Any]
) -> None:
    """The endpoint is down during a million statements; memory, threads and the caller's time stay the same."""
    settings = dict(settings)
    if settings.pop("spool", False):
        settings["spool_dir"] = str(tmp_path)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hole:
        url = refused_url() if down == "refused" else f"http://127.0.0.1:{hole.getsockname()[1]}"
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps([server.url, url, settings, EVENTS, ROUNDS])],
            capture_output=True,
            text=True,
            timeout=110,
        )
    assert (ended.returncode, ended.stderr) == (0, "")
    figures, account = (json.loads(line) for line in ended.stdout.splitlines())
    stats = ClientStats(**account)
    assert figures["rss_mib"] < 40, figures
    before, after = figures["threads"]
    assert after <= min(before + 1, 8), figures  # a worker may start in between
    assert figures["cpu"] < 2, figures
    assert figures["wall"] < 2, figures
    fault.settled(stats, sent=EVENTS // ROUNDS * ROUNDS + 2000)
    assert fault.delivered == 0
    assert sum(path.stat().st_size for path in tmp_path.glob("*.spool")) <= 4 * 1024 * 1024
    fault.noted = f"+{figures['rss_mib']:.0f} MiB, {figures['wall']:.2f} of the healthy time per event"
