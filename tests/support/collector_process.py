"""A collector as the command runs it, in a process of its own, and what it costs."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import select
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from adbc_telemetry.collector.store.compaction import connect

TIMEOUT = 60.0


class Answer(NamedTuple):
    """What the collector answered."""

    status: int
    body: bytes
    headers: http.client.HTTPMessage


@dataclass
class Collecting:
    """A running collector. `peak` and `peak_of_all` are bytes of resident memory: its own, and with its children."""

    process: subprocess.Popen[str]
    store: Path
    errors: Path
    port: int
    peak: int = 0
    peak_of_all: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def log(self) -> str:
        """What it wrote to standard error."""
        return self.errors.read_text()

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request on a connection of its own; underscores in names of headers become hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        with contextlib.closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), answer.headers)

    def post(self, body: bytes, **headers: str) -> Answer:
        """Send events."""
        return self.ask("POST", "/telemetry-ext", body, **headers)

    def end(self, signum: int) -> tuple[int, float]:
        """Send a signal; returns the exit code and how many seconds the end took."""
        began = time.monotonic()
        self.process.send_signal(signum)
        return self.process.wait(TIMEOUT), time.monotonic() - began

    def _watch(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.process.pid)
            while not self._ended.wait(0.03):
                own = process.memory_info().rss
                total = own
                for child in process.children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                        # Libraries that all of them map count once.
                        total += child.memory_full_info().uss
                self.peak = max(self.peak, own)
                self.peak_of_all = max(self.peak_of_all, total)


@contextlib.contextmanager
def collecting(
    folder: Path,
    *options: str | Path,
    store: Path | None = None,
    launcher: Sequence[str] = (),
) -> Iterator[Collecting]:
    """A collector that serves; what is left of it in the end is killed.

    Args:
        folder: for its store and its log.
        options: of the command.
        store: the store, if it is elsewhere.
        launcher: a command that becomes the one given to it as arguments.
    """
    errors = folder / "collector.err"
    store = store if store is not None else folder / "telemetry"
    command = [sys.executable, "-m", "adbc_telemetry", "collect", "--port", "0", "--store", str(store)]
    with (
        open(errors, "a") as stderr,
        subprocess.Popen(
            [*launcher, *command, *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], TIMEOUT)[0], "the collector said nothing in time"
            line = process.stdout.readline()
            match = re.fullmatch(r"collecting on https?://127\.0\.0\.1:(\d+) into .*\n", line)
            assert match, line + errors.read_text()
            running = Collecting(process, store, errors, int(match[1]))
            watcher = threading.Thread(target=running._watch, daemon=True)
            watcher.start()
            try:
                yield running
            finally:
                running._ended.set()
                watcher.join()
        finally:
            process.kill()


def log_text(event_id: str | None = None, **driver_log: Any) -> str:
    """A log in the wire's form."""
    return json.dumps(
        {
            "frontend_log_event_id": event_id or str(uuid.uuid4()),
            "entry": {"sql_driver_log": {"session_id": "s", **driver_log}},
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def request_of(texts: list[str]) -> bytes:
    """The body of a request with these logs."""
    return json.dumps({"uploadTime": 1, "items": [], "protoLogs": texts}, ensure_ascii=False).encode()


def stored_ids(store: Path) -> list[str]:
    """The event ids in a store's Parquet files and in its journal. No process may write it meanwhile."""
    found: list[str] = []
    files = list((store / "events").rglob("*.parquet"))
    if files:
        with contextlib.closing(connect("300MB", threads=1)) as connection:
            rows = connection.execute(f"SELECT event_id FROM read_parquet({[str(file) for file in files]})")
            found += [event_id for (event_id,) in rows.fetchall()]
    for segment in (store / "journal").glob("*.jsonl"):
        for line in segment.read_text().splitlines():
            found.append(json.loads(json.loads(line)["log"])["frontend_log_event_id"])
    return found
