"""What the collector takes, and what it costs: events a second, latencies, CPU time, memory.

    python benchmarks/collector.py [--stored 0 1000000] [--seconds 20] [--readers] [--rate 30000]

A load of batches of 100 over kept-alive connections, on the same machine as the collector: as fast as answers come, or
with `--rate` as many events a second.
For each size of the store there is one run without readers, and with `--readers` one with eight that ask the page's
questions over and over. Beside it, in the same run, rotel (an OpenTelemetry collector in Rust, from the package of that
name) takes the same number of records of the same size as OTLP. The package has no exporter to files, so it discards
them: the figure is what receiving costs, without a disk.

    events/s   acknowledged
    CPU        of all processes of the collector, per event, its way into Parquet included
    memory     the largest sum over its processes; what they share, such as libraries, counts once (PSS)
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil
import urllib3
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber

BATCH: Final = 100
CONNECTIONS: Final = 16
READERS: Final = 8
_ID: Final = b"@ID@"
_NOT_ASKED: Final = ("/api/event", "/api/export")


class Figures(NamedTuple):
    """One run."""

    name: str
    stored: int
    readers: int
    events: int
    seconds: float
    latencies_ms: list[float]
    cpu_seconds: float
    memory_bytes: int

    def row(self) -> list[str]:
        """For the table."""
        latencies = sorted(self.latencies_ms)

        def at(share: float) -> str:
            return f"{latencies[min(len(latencies) - 1, int(share * len(latencies)))]:,.0f}"

        return [
            self.name,
            f"{self.stored:,}",
            str(self.readers) if self.readers else "-",
            f"{self.events / self.seconds:,.0f}",
            at(0.5),
            at(0.99),
            f"{latencies[-1]:,.0f}",
            f"{self.cpu_seconds / self.events * 1e6:.1f}",
            f"{self.memory_bytes / 1e6:,.0f}",
        ]


HEADINGS: Final = (
    "",
    "stored",
    "readers",
    "events/s",
    "p50 ms",
    "p99 ms",
    "longest ms",
    "CPU µs/event",
    "MB",
)


def a_log() -> dict[str, Any]:
    """A log as drivers send it, some 700 bytes."""
    return {
        "workspace_id": 1234567890123456,
        "frontend_log_event_id": _ID.decode(),
        "context": {"client_context": {"timestamp_millis": int(time.time() * 1000), "user_agent": "load/1"}},
        "entry": {
            "sql_driver_log": {
                "session_id": "01f0e1a2-0000-4000-8000-000000000000",
                "sql_statement_id": "01f0e1a2-1111-4000-8000-000000000000",
                "auth_type": "pat",
                "operation_latency_ms": 12,
                "system_configuration": {
                    "driver_name": "a driver",
                    "driver_version": "1.2",
                    "runtime_version": "3.11",
                    "os_name": "Linux",
                },
                "sql_operation": {
                    "statement_type": "QUERY",
                    "execution_result": "INLINE_ARROW",
                    "is_compressed": True,
                    "retry_count": 2,
                    "result_latency": {
                        "result_set_ready_latency_millis": 7,
                        "result_set_consumption_latency_millis": 30,
                    },
                    "operation_detail": {"operation_type": "EXECUTE_STATEMENT", "is_internal_call": False},
                },
            }
        },
    }


def our_template() -> bytes:
    """The body of a request with a mark for each id."""
    log = json.dumps(json.dumps(a_log(), separators=(",", ":")))
    return f'{{"uploadTime":1,"items":[],"protoLogs":[{",".join([log] * BATCH)}]}}'.encode()


def otlp_template() -> bytes:
    """The same number of records of the same size, as OTLP."""
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for _ in range(BATCH):
        record = records.add(
            time_unix_nano=time.time_ns(), severity_number=SeverityNumber.SEVERITY_NUMBER_INFO
        )
        record.body.string_value = json.dumps(a_log(), separators=(",", ":")).replace(_ID.decode(), "0" * 40)
    return request.SerializeToString()


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at = 0.0
        self.answer = b""


def load(
    port: int, path: str, template: bytes, seconds: float, rate: float | None = None
) -> tuple[int, list[float]]:
    """Send for some seconds.

    Args:
        port: of the endpoint on this machine.
        path: of the requests.
        template: the body, with a mark for each event's id.
        seconds: how long to send.
        rate: events a second; None for as many as are answered.

    Returns:
        The events acknowledged, and the latency of each request in milliseconds.
    """
    parts = template.split(_ID)
    latencies: list[float] = []
    began = time.perf_counter()
    deadline = began + seconds
    selector = selectors.DefaultSelector()
    idle: list[_Connection] = []
    sent = 0

    def send(connection: _Connection) -> None:
        ids = os.urandom(8 * BATCH).hex()
        pieces = [parts[0]]
        for number, part in enumerate(parts[1:]):
            pieces += [ids[number * 16 : number * 16 + 16].encode(), b"-0000-4000-8000-00000000", part]
        body = b"".join(pieces)
        kind = "application/json" if len(parts) > 1 else "application/x-protobuf"
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
        connection.answer = b""
        connection.sent_at = time.perf_counter()
        connection.socket.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def due() -> float:
        return 0.0 if rate is None else began + sent * BATCH / rate

    for _ in range(CONNECTIONS):
        connection = _Connection(port)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        idle.append(connection)
    while selector.get_map():
        while idle and (now := time.perf_counter()) >= min(due(), deadline):
            connection = idle.pop()
            if now < deadline:
                send(connection)
                sent += 1
            else:
                selector.unregister(connection.socket)
                connection.socket.close()
        wait = min(due(), deadline) - time.perf_counter() if idle else 30
        for key, _ in selector.select(max(0, wait)) if selector.get_map() else ():
            connection = key.data
            received = connection.socket.recv(65_536)
            if not received:
                raise SystemExit("the endpoint has closed a connection")
            connection.answer += received
            if not _is_complete(connection.answer):
                continue
            if not connection.answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"the endpoint answered {connection.answer[:200]!r}")
            latencies.append((time.perf_counter() - connection.sent_at) * 1000)
            idle.append(connection)
    return len(latencies) * BATCH, latencies


def _is_complete(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return len(body) >= int(value)
    return body.endswith(b"0\r\n\r\n")


class Watch(threading.Thread):
    """Sums up the memory and the CPU time of a process and its children while they run."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._cpu: dict[int, float] = {}
        self.memory_bytes = 0

    @property
    def cpu_seconds(self) -> float:
        """So far."""
        self._look()
        return sum(self._cpu.values())

    def run(self) -> None:
        while not self._ended.wait(0.25):
            self._look()

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()
        self.join()

    def _look(self) -> None:
        memory = 0
        with contextlib.suppress(psutil.Error):
            for process in (self._process, *self._process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    self._cpu[process.pid] = times.user + times.system
                    memory += getattr(process.memory_full_info(), "pss", 0) or process.memory_info().rss
        self.memory_bytes = max(self.memory_bytes, memory)


@contextlib.contextmanager
def ours(folder: Path) -> Iterator[tuple[int, int]]:
    """A collector; yields its process and its port."""
    command = [sys.executable, "-m", "adbc_telemetry", "collect", "--port", "0", "--store", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        yield process.pid, int(line.split()[2].rpartition(":")[2])
        process.terminate()
        process.wait(60)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def rotel(binary: Path) -> Iterator[tuple[int, int]]:
    """rotel, which discards what it receives; yields its process and its port."""
    port, grpc = _free_port(), _free_port()
    command = [str(binary), "start", "--exporter", "blackhole"]
    command += ["--otlp-http-endpoint", f"127.0.0.1:{port}", "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until(lambda: _listens(port), "rotel listens")
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(30)


def _rotel_binary() -> Path | None:
    found = importlib.util.find_spec("rotel")
    return None if found is None or found.origin is None else Path(found.origin).with_name("rotel-agent")


def run(
    name: str,
    endpoint: Any,
    path: str,
    template: bytes,
    stored: int,
    readers: int,
    seconds: float,
    rate: float | None,
) -> Figures:
    """One run against an endpoint that is there."""
    pid, port = endpoint
    watch = Watch(pid)
    watch.start()
    ended = threading.Event()
    threads = [threading.Thread(target=_read, args=(port, ended), daemon=True) for _ in range(readers)]
    before = watch.cpu_seconds
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    events, latencies = load(port, path, template, seconds, rate)
    took = time.perf_counter() - began
    if name == "adbc-telemetry":  # its way into Parquet belongs to it
        _wait_until(
            lambda: _ask(port, "/api/status")["store"]["journal_bytes"] == 0, "all is in Parquet files"
        )
    cpu = watch.cpu_seconds - before
    ended.set()
    for thread in threads:
        thread.join()
    watch.end()
    return Figures(name, stored, readers, events, took, latencies, cpu, watch.memory_bytes)


def _read(port: int, ended: threading.Event) -> None:
    described = _ask(port, "/openapi.json")["paths"]
    questions = [
        path for path in described if path.startswith("/api/") and "{" not in path and path != "/api/event"
    ]
    while not ended.is_set():
        for path in questions:
            if ended.is_set():
                return
            # Under a load that takes both cores, an answer may take longer.
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                urllib3.request("GET", f"http://127.0.0.1:{port}{path}", retries=False, timeout=60.0)


def _ask(port: int, path: str) -> Any:
    return urllib3.request("GET", f"http://127.0.0.1:{port}{path}", retries=False, timeout=60.0).json()


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
    deadline = time.monotonic() + 180
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"this did not happen: {what}")
        time.sleep(0.1)


def fill(folder: Path, events: int, already: int) -> None:
    """Send events until so many are stored."""
    with ours(folder) as (_, port):
        while already < events:
            sent, _ = load(
                port, "/telemetry-unauth", our_template(), min(20.0, (events - already) / 30_000 + 0.1)
            )
            already += sent


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stored", type=int, nargs="*", default=[0, 1_000_000])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--readers", action="store_true")
    parser.add_argument("--rate", type=float)
    options = parser.parse_args()
    figures = []
    with tempfile.TemporaryDirectory(prefix="adbc-telemetry-bench-") as temporary:
        store = Path(temporary) / "store"
        already = 0
        for stored in sorted(options.stored):
            if stored > already:
                fill(store, stored, already)
            already = max(already, stored)
            for readers in (0, READERS) if options.readers else (0,):
                with ours(store) as endpoint:
                    found = run(
                        "adbc-telemetry",
                        endpoint,
                        "/telemetry-unauth",
                        our_template(),
                        already,
                        readers,
                        options.seconds,
                        options.rate,
                    )
                already += found.events
                figures.append(found)
                print("  ".join(found.row()), flush=True)
        binary = _rotel_binary()
        if binary is not None:
            with rotel(binary) as endpoint:
                figures.append(
                    run(
                        "rotel, discarding",
                        endpoint,
                        "/v1/logs",
                        otlp_template(),
                        0,
                        0,
                        options.seconds,
                        options.rate,
                    )
                )
        shutil.rmtree(store)
    print("| " + " | ".join(HEADINGS) + " |")
    print("| --- " + "| ---: " * (len(HEADINGS) - 1) + "|")
    for each in figures:
        print("| " + " | ".join(each.row()) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
