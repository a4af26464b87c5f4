"""Python in its own process, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from adbc_telemetry import ClientStats
from support.sockets import short_temporary_folder

PROGRAM = """
import atexit, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on, fork warns about every thread
clients = []

@atexit.register  # registered before the library's import, so that it runs after its exit handler
def tell_accounts():
    import msgspec
    for client in clients:
        print(msgspec.json.encode(client.stats()).decode(), flush=True)
    from adbc_telemetry.pipeline.accounts import accounts
    if len(accounts._living) <= len(clients):  # what metrics tell of this process is what its clients tell
        stats, totals = [client.stats() for client in clients], [total.stats for total in accounts.totals()]
        for name in ("enqueued", "delivered", "lost", "spooled", "queued", "in_flight", "exports", "errors"):
            ours, theirs = (sum(getattr(each, name) for each in those) for those in (stats, totals))
            if ours != theirs:
                print(f"metrics would tell of {theirs} {name}, not {ours}", file=sys.stderr, flush=True)
                os._exit(99)

from adbc_telemetry import TelemetryClient, TelemetryClientManager, TelemetryConfiguration
from adbc_telemetry.schema import TelemetryFrontendLog

def make_client(url, **settings):
    config = TelemetryConfiguration(**{"enabled": True, "flush_interval_ms": 60_000, **settings})
    clients.append(TelemetryClient(url, config))
    return clients[-1]

def enqueue(client, count, prefix=""):
    for number in range(count):
        client.enqueue(TelemetryFrontendLog(frontend_log_event_id=f"{prefix}{number}"))

"""
"""The beginning of a test program: `make_client`, `enqueue`, and the accounts on stdout at its exit."""


@dataclass(frozen=True)
class Ended:
    """An ended process. `at` is the time of its end: a `time.monotonic()` value, which all processes share."""

    code: int
    stdout: str
    stderr: str
    at: float

    @property
    def accounts(self) -> list[ClientStats]:
        """The accounts that `PROGRAM` printed: one per client, in each process that ended through `atexit`."""
        lines = [line for line in self.stdout.splitlines() if line.startswith("{")]
        return [msgspec.json.decode(line, type=ClientStats) for line in lines]

    def told(self, key: str) -> list[str]:
        """What the program printed after `key`."""
        return [
            line.removeprefix(key).strip() for line in self.stdout.splitlines() if line.startswith(f"{key} ")
        ]


class RunningPython:
    """A running child that takes signals; if it still runs at the end of its block, it is killed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: list[str] = []

    def wait_for(self, line: str) -> None:
        """Wait until the program prints `line`."""
        assert self.process.stdout is not None
        while not self._lines or self._lines[-1].strip() != line:
            self._lines.append(self.process.stdout.readline())
            assert self._lines[-1], f"ended without {line!r}: {self.end(1).stderr}"

    def send(self, signal_number: int) -> None:
        self.process.send_signal(signal_number)

    def end(self, timeout: float = 20) -> Ended:
        """Wait until the child ends."""
        stdout, stderr = self.process.communicate(timeout=timeout)
        return Ended(self.process.returncode, "".join(self._lines) + stdout, stderr, time.monotonic())


@contextmanager
def running_python(
    code: str,
    *arguments: str,
    file: Path | None = None,
    options: Sequence[str] = ("-W", "error"),
    environ: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[RunningPython]:
    """Python that runs `code`, by `-c` or, if its children must import it, from `file`."""
    source = ["-c", code]
    if file is not None:
        file.write_text(code, encoding="utf-8")
        source = [str(file)]
    with python(*options, *source, *arguments, environ=environ, pass_fds=pass_fds) as running:
        yield running


@contextmanager
def python(
    *arguments: str, environ: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
) -> Iterator[RunningPython]:
    """A running Python with `arguments`."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**inherited, **short_temporary_folder(), **(environ or {})},
        pass_fds=pass_fds,
    ) as process:
        try:
            yield RunningPython(process)
        finally:
            if process.poll() is None:
                process.kill()


def run_python(code: str, *arguments: str, timeout: float = 20, file: Path | None = None) -> Ended:
    """Run `code` to its end; warnings are errors."""
    with running_python(textwrap.dedent(code), *arguments, file=file) as running:
        return running.end(timeout)


def run_program(body: str, *arguments: str, timeout: float = 20, file: Path | None = None) -> Ended:
    """Run `PROGRAM` and then `body` to their end."""
    return run_python(PROGRAM + textwrap.dedent(body), *arguments, timeout=timeout, file=file)


@contextmanager
def running_program(body: str, *arguments: str, file: Path | None = None) -> Iterator[RunningPython]:
    """A running Python with `PROGRAM` and then `body`."""
    with running_python(PROGRAM + textwrap.dedent(body), *arguments, file=file) as running:
        yield running
