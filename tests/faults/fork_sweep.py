"""Forks at random moments of a program's first deliveries, some hundreds of times.

    python tests/faults/fork_sweep.py --seed 1 --rounds 300

Each round is a new process, so that imports, look-ups and connections all happen for the first time. It forks three
`multiprocessing` children at random moments while its sender works. Each event of the parent and of the children must
arrive once, and each child must end quickly.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import trustme

from support.endpoints import TlsTelemetryServer, server_context
from support.server import TelemetryServer

PROGRAM = """
import multiprocessing, sys, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on, fork warns of every thread
from adbc_telemetry import TelemetryClient, TelemetryConfiguration
from adbc_telemetry.schema import TelemetryFrontendLog

kind, url, name, spool, *delays = sys.argv[1:]
settings = {"enabled": True, "batch_size": 50, "flush_interval_ms": 60_000, "close_timeout_ms": 20_000}
if kind == "spool":
    settings["spool_dir"] = spool
elif kind == "gzip":
    settings["compression"] = "gzip"
client = TelemetryClient(url, TelemetryConfiguration(**settings))

def enqueue(prefix, count):
    for number in range(count):
        client.enqueue(TelemetryFrontendLog(frontend_log_event_id=f"{name} {prefix} {number}"))

def child(number):
    enqueue(f"child {number}", 70)

def flags():
    from adbc_telemetry.feature_flags import FeatureFlags
    FeatureFlags(url, TelemetryConfiguration(enabled=True)).get("a flag")

if kind == "flags":
    flags()
enqueue("parent", 130)
children = []
for number, delay in enumerate(delays):
    time.sleep(float(delay))
    began = time.monotonic()
    children.append((began, multiprocessing.get_context("fork").Process(target=child, args=(number,))))
    children[-1][1].start()
for began, process in children:
    process.join()
    print(time.monotonic() - began)
"""

KINDS = ("http", "gzip", "name", "https", "flags", "spool")
LONGEST_SECONDS = 8.0
"""Seconds that a child may take on a busy machine: far less than the timeout it hits when it inherits a held lock."""


class Sweep:
    """Runs rounds and collects what went wrong."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._random = random.Random(seed)
        self._folder = folder
        self.wrong: list[str] = []
        self.forks = self.sent = self.arrived = 0
        self.slowest = 0.0

    def run(self, rounds: int, plain: TelemetryServer, tls: TelemetryServer, bundle: Path) -> None:
        for number in range(rounds):
            kind = KINDS[number % len(KINDS)]
            server = tls if kind == "https" else plain
            url = server.url.replace("127.0.0.1", "localhost") if kind == "name" else server.url
            delays = [str(self._random.choice((0, 0.003, 0.03)) * self._random.random()) for _ in range(3)]
            self._round(number, kind, url, delays, server, bundle)

    def _round(
        self, number: int, kind: str, url: str, delays: list[str], server: TelemetryServer, bundle: Path
    ) -> None:
        name, spool = f"round {number}", str(self._folder / f"spool-{number}")
        out = subprocess.run(
            [sys.executable, "-c", PROGRAM, kind, url, name, spool, *delays],
            env={**os.environ, "SSL_CERT_FILE": str(bundle)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        seconds = [float(line) for line in out.stdout.split()]
        self.forks += len(seconds)
        self.slowest = max([self.slowest, *seconds])
        arrived = Counter(each for each in server.accepted if each.startswith(name + " "))
        expected = {f"{name} parent {event}" for event in range(130)}
        expected |= {f"{name} child {child} {event}" for child in range(3) for event in range(70)}
        self.sent += len(expected)
        self.arrived += len(expected & set(arrived))
        lost, twice = len(expected - set(arrived)), sum(count > 1 for count in arrived.values())
        if out.returncode or out.stderr or lost or twice or max(seconds) > LONGEST_SECONDS:
            self.wrong.append(
                f"{name}, {kind}, delays {delays}: lost {lost}, twice {twice}, seconds {seconds}, {out.stderr}"
            )


@contextmanager
def servers(folder: Path) -> Iterator[tuple[TelemetryServer, TelemetryServer, Path]]:
    """A plain HTTP server, a TLS server, and the certificates that a client must trust."""
    authority = trustme.CA()
    bundle = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    with TelemetryServer() as plain, TlsTelemetryServer(server_context(certificate)) as tls:
        yield plain, tls, bundle


def sweep(seed: int, rounds: int) -> Sweep:
    """Run `rounds` rounds."""
    with tempfile.TemporaryDirectory() as name, servers(Path(name)) as (plain, tls, bundle):
        done = Sweep(seed, Path(name))
        done.run(rounds, plain, tls, bundle)
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    began = time.monotonic()
    done = sweep(arguments.seed, arguments.rounds)
    for line in done.wrong:
        print(line)
    print(
        f"{arguments.rounds} rounds, {done.forks} forks in {time.monotonic() - began:.0f} s, slowest child "
        f"{done.slowest:.2f} s: {'FAIL' if done.wrong else 'PASS'}"
    )
    return bool(done.wrong)


if __name__ == "__main__":
    sys.exit(main())
