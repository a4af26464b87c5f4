"""Kills a collector under load, at random moments, and looks whether it kept what it promised.

    python benchmarks/kill_collector.py --seed 1 --rounds 50

Each round starts `adbc-telemetry collect` over the same store, sends events to it from several connections, and ends it
by SIGKILL between a few milliseconds and some seconds later. A sender whose request was not answered sends it again to
the next collector, as a client does. Meanwhile a reader without any lock reads the Parquet files as other tools do. In
the end each acknowledged event is in the store once, and no event is there twice, at no moment.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Final

import duckdb
import urllib3

from adbc_telemetry.collector.store.compaction import connect
from adbc_telemetry.collector.store.layout import open_store
from adbc_telemetry.collector.store.snapshot import read_consistently

SENDERS: Final = 4
BATCH: Final = 50


class Sender(threading.Thread):
    """Sends batches to the collector that runs, each until it is acknowledged."""

    def __init__(self, harness: Harness) -> None:
        super().__init__(daemon=True)
        self._harness = harness
        self.acknowledged: list[str] = []

    def run(self) -> None:
        while not self._harness.done.is_set():
            ids = [str(uuid.uuid4()) for _ in range(BATCH)]
            logs = [_log(event_id) for event_id in ids]
            body = json.dumps({"uploadTime": 1, "items": [], "protoLogs": logs}).encode()
            while not self._post(body):
                if self._harness.done.wait(0.005):
                    return
            self.acknowledged += ids

    def _post(self, body: bytes) -> bool:
        url = self._harness.url
        if url is None:
            return False
        try:
            answer = urllib3.request(
                "POST", f"{url}/telemetry-unauth", body=body, retries=False, timeout=10.0
            )
        except urllib3.exceptions.HTTPError:
            return False
        return answer.status == 200 and answer.json()["numProtoSuccess"] == BATCH


class Reader(threading.Thread):
    """Reads the Parquet files over and over, and notes whether an event was there twice."""

    def __init__(self, harness: Harness) -> None:
        super().__init__(daemon=True)
        self._harness = harness
        self.reads = 0
        self.doubled = 0

    def run(self) -> None:
        connection = duckdb.connect()
        pattern = f"{self._harness.store}/events/**/*.parquet"
        while not self._harness.done.wait(0.02):
            # There may be no files yet, and DuckDB opens a file twice: between, it may have been replaced.
            with contextlib.suppress(duckdb.Error):
                found = connection.execute(
                    f"SELECT count(*) - count(DISTINCT event_id) FROM read_parquet('{pattern}')"
                ).fetchone()
                assert found is not None
                self.doubled = max(self.doubled, found[0])
                self.reads += 1


class Harness:
    """One run: the store, the collector of the moment, and who uses it."""

    def __init__(self, store: Path, seed: int) -> None:
        self.store = store
        self.url: str | None = None
        self.done = threading.Event()
        self._random = random.Random(seed)

    def run(self, rounds: int, longest: float) -> list[str]:
        """Kill `rounds` collectors; returns what was wrong."""
        senders = [Sender(self) for _ in range(SENDERS)]
        reader = Reader(self)
        for thread in (*senders, reader):
            thread.start()
        for _ in range(rounds):
            with self._collector() as process:
                time.sleep(self._random.uniform(0.0, 1.0) ** 2 * longest)
                process.kill()
        with self._collector() as process:
            time.sleep(0.5)
            self.url = None
            self.done.set()
            for thread in senders:
                thread.join()
            process.terminate()
            status = process.wait(30)
        reader.join()
        acknowledged = [event_id for sender in senders for event_id in sender.acknowledged]
        return self._judge(acknowledged, reader, status)

    @contextlib.contextmanager
    def _collector(self):  # type: ignore[no-untyped-def]
        command = [
            sys.executable,
            "-m",
            "adbc_telemetry",
            "collect",
            "--port",
            "0",
            "--store",
            str(self.store),
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("collecting on http://"), line
            self.url = line.split()[2]
            yield process
        finally:
            self.url = None
            process.kill()
            process.wait()

    def _judge(self, acknowledged: list[str], reader: Reader, status: int) -> list[str]:
        with contextlib.closing(connect("1GB", threads=1)) as connection:
            stored = read_consistently(
                open_store(self.store),
                connection,
                lambda snapshot: connection.execute(
                    f"SELECT event_id FROM ({snapshot.events_sql()})"
                ).fetchall(),
            )
        ids = [event_id for (event_id,) in stored]
        lost = set(acknowledged) - set(ids)
        print(
            f"{len(acknowledged)} events acknowledged, {len(ids)} stored, {len(lost)} lost, "
            f"{len(ids) - len(set(ids))} twice; "
            f"{reader.reads} reads of the Parquet files, at most {reader.doubled} twice"
        )
        wrong = []
        if not acknowledged:
            wrong.append("no event was acknowledged")
        if lost:
            wrong.append(f"{len(lost)} acknowledged events are lost")
        if len(ids) != len(set(ids)) or reader.doubled:
            wrong.append("events are stored twice")
        if status != 0:
            wrong.append(f"the last collector ended with {status}")
        return wrong


def _log(event_id: str) -> str:
    driver_log = {"session_id": "s", "operation_latency_ms": 5, "system_configuration": {"driver_name": "d"}}
    return json.dumps({"frontend_log_event_id": event_id, "entry": {"sql_driver_log": driver_log}})


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--longest", type=float, default=6.0, help="seconds of the longest round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="adbc-telemetry-kill-") as folder:
        wrong = Harness(Path(folder) / "store", options.seed).run(options.rounds, options.longest)
    print("PASS" if not wrong else f"FAIL: {'; '.join(wrong)}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
