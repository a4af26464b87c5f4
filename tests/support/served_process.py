"""A server in a process of its own: `python -m support.served_process SETTINGS`, where SETTINGS is JSON.

It prints its port, ends by signals, and logs to stderr. Settings: `limits` (see `ServingLimits`), `descriptors` (the
limit of the process), `admission` (see `AdmissionControl`).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from adbc_telemetry.collector.serving import AdmissionControl, BackgroundServer, ServingLimits
from support.serving import TIMEOUT, ProbeApp, RawClient


def main(settings: Any) -> None:
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    if "descriptors" in settings:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (settings["descriptors"],) * 2)
    app = AdmissionControl(ProbeApp(), **settings.get("admission", {}))
    server = BackgroundServer(app, limits=ServingLimits(**settings.get("limits", {})))
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        signal.signal(getattr(signal, name), server.handle_signal)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    port = listener.getsockname()[1]
    server.start(listener)
    print(port, flush=True)
    server.join()


@dataclass
class ServedProcess:
    process: subprocess.Popen[str]
    port: int
    stderr: Path

    def client(self) -> RawClient:
        return RawClient(self.port)

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def cpu_seconds(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    @property
    def connections(self) -> int:
        """Connections that the server holds, by the count of the operating system."""
        return len(
            [
                found
                for found in psutil.Process(self.process.pid).net_connections()
                if found.status == "ESTABLISHED"
            ]
        )

    def ends_with(self, signum: int) -> tuple[int, str]:
        """Send a signal and wait for the end: the exit code, and what was logged."""
        self.process.send_signal(signum)
        code = self.process.wait(TIMEOUT)
        return code, self.stderr.read_text()


@contextmanager
def served_process(folder: Path, **settings: Any) -> Iterator[ServedProcess]:
    """A server in a process; `folder` takes its log."""
    log = folder / "stderr"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "support.served_process", json.dumps(settings)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            yield ServedProcess(process, int(line), log)
        finally:
            process.kill()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
