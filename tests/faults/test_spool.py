"""The spool survives the process, torn files, full disks and other processes (promise 15)."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from adbc_telemetry import (
    ExportOutcome,
    ExportResult,
    InMemoryTelemetryExporter,
    TelemetryClient,
    TelemetryConfiguration,
)
from adbc_telemetry.pipeline.spool import Spool
from adbc_telemetry.schema import TelemetryFrontendLog
from faults.scenario import Scenario
from support.logs import ids_of, make_log, make_logs
from support.server import Reply, Request, TelemetryServer, black_hole, raw_endpoint, refused_url
from support.waiting import run_in_threads, wait_until

MIB = 1024 * 1024


def configuration(folder: Path, **fields: Any) -> TelemetryConfiguration:
    settings = {"max_retries": 0, "retry_delay_ms": 1, "flush_interval_ms": 50, "close_timeout_ms": 5000}
    return TelemetryConfiguration(enabled=True, spool_dir=folder, **{**settings, **fields})


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.spool"))


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool"))


class Elsewhere:
    """An endpoint that is down and comes up again at the same address."""

    def __init__(self, server: TelemetryServer) -> None:
        self.server = server
        server.always = lambda request: Reply(503)

    def comes_up(self) -> None:
        self.server.always = None


def start_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    return out


PRELUDE = """
import sys
from adbc_telemetry import TelemetryClient, TelemetryConfiguration
from adbc_telemetry.pipeline.spool import Spool
from adbc_telemetry.schema import TelemetryFrontendLog

def configuration(folder, **fields):
    settings = dict(max_retries=0, flush_interval_ms=20, close_timeout_ms=5000)
    return TelemetryConfiguration(enabled=True, spool_dir=folder, **{**settings, **fields})

def log(number):
    return TelemetryFrontendLog(frontend_log_event_id=str(number))
"""


def test_events_whose_retries_are_exhausted(fault: Scenario, server: TelemetryServer, tmp_path: Path) -> None:
    """The endpoint answers 503 to one process and is healthy for the next."""
    endpoint = Elsewhere(server)
    with TelemetryClient(server.url, configuration(tmp_path, max_retries=2, batch_size=10)) as first:
        for log in make_logs(10):
            first.enqueue(log)
        assert first.flush(10)
        assert first.stats().spooled == 10
    endpoint.comes_up()
    with TelemetryClient(server.url, configuration(tmp_path)) as second:
        wait_until(lambda: second.stats().replayed == 10)
    assert segments(tmp_path) == []
    assert (first.stats().closes, first.stats().lost) == (True, 0)
    fault.seen(sent=10, delivered=len(server.accepted))


def test_events_while_the_circuit_is_open(fault: Scenario, server: TelemetryServer, tmp_path: Path) -> None:
    """The circuit opens and events go to the spool; the same process replays them when the circuit closes."""
    endpoint = Elsewhere(server)
    config = configuration(
        tmp_path, circuit_breaker_threshold=2, circuit_breaker_timeout_ms=300, batch_size=5
    )
    with TelemetryClient(server.url, config) as client:
        for log in make_logs(100):
            client.enqueue(log)
        assert client.flush(10)
        assert client.stats().spooled == 100
        requests = len(server.requests)
        assert requests < 20, "the circuit has not opened"
        endpoint.comes_up()
        wait_until(lambda: len(server.accepted) == 100)
        wait_until(lambda: client.stats().replayed == 100)
        stats = client.stats()
    assert (stats.spooled, stats.lost, stats.closes) == (100, 0, True)
    assert len(set(server.accepted)) == 100
    assert segments(tmp_path) == []
    fault.seen(sent=100, delivered=100)


def test_what_a_close_could_not_deliver(fault: Scenario, tmp_path: Path) -> None:
    """The endpoint is a black hole at close; the batch in flight and those behind it go to the spool."""
    with raw_endpoint(black_hole) as url:
        client = TelemetryClient(url, configuration(tmp_path, batch_size=100, close_timeout_ms=200))
        for log in make_logs(1000):
            client.enqueue(log)
        wait_until(lambda: client.stats().in_flight == 100)
        assert client.close() is False
    stats = client.stats()
    assert (stats.spooled, stats.lost, stats.closes) == (1000, 0, True)
    fault.settled(stats, sent=1000, arrived=[])
    assert folder_bytes(tmp_path) > 0


class Stubborn(InMemoryTelemetryExporter):
    """Returns late and does not react to `close`."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        self.gate.wait(30)
        return ExportResult(outcome=ExportOutcome.FAILED)


def test_a_batch_in_an_exporter_that_outlives_the_close(fault: Scenario, tmp_path: Path) -> None:
    """An exporter hangs beyond the close, which spools its batch; the late result does not spool it again."""
    exporter = Stubborn()
    config = configuration(tmp_path, batch_size=10, close_timeout_ms=100)
    client = TelemetryClient("host", config, exporter=exporter)
    for log in make_logs(25):
        client.enqueue(log)
    wait_until(lambda: client.stats().in_flight == 10)
    assert client.close() is False
    exporter.gate.set()
    wait_until(lambda: not any(thread.name.startswith("adbc-telemetry") for thread in threading.enumerate()))
    assert sum(path.read_bytes().count(b"\n") for path in segments(tmp_path)) == 25
    fault.settled(client.stats(), sent=25)
    assert fault.spooled == 25


def test_a_close_spools_a_full_queue_in_time(fault: Scenario, tmp_path: Path) -> None:
    """The queue holds ten thousand events when the close times out."""
    with raw_endpoint(black_hole) as url:
        client = TelemetryClient(url, configuration(tmp_path, close_timeout_ms=100))
        for log in make_logs(10_000):
            client.enqueue(log)
        client.close()
    stats = client.stats()
    assert stats.spooled + stats.dropped_queue_full == 10_000
    fault.settled(stats, sent=10_000, arrived=[])


def test_a_process_that_ends_and_the_next_one(
    fault: Scenario, server: TelemetryServer, tmp_path: Path
) -> None:
    """A process ends while its endpoint is down; the next one enqueues nothing and ends."""
    endpoint = Elsewhere(server)
    enqueue = """
    client = TelemetryClient(sys.argv[1], configuration(sys.argv[2]))
    for number in range(int(sys.argv[3])):
        client.enqueue(log(number))
    """
    finish(start_python(enqueue, server.url, tmp_path, 250))
    assert server.accepted == []
    endpoint.comes_up()
    finish(start_python(enqueue, server.url, tmp_path, 0))
    assert sorted(server.accepted, key=int) == [str(number) for number in range(250)]
    assert segments(tmp_path) == []
    fault.seen(sent=250, delivered=len(server.accepted))


def test_the_bound_in_bytes(fault: Scenario, tmp_path: Path) -> None:
    """Ten times the spool's limit: the oldest events go, the newest stay, and the folder never exceeds the limit."""
    bound = 64 * 1024
    spool = Spool(tmp_path, "host", bound)
    largest = 0
    logs = make_logs(3000)
    for start in range(0, len(logs), 50):
        assert spool.append(logs[start : start + 50]) == 50
        largest = max(largest, folder_bytes(tmp_path))
    assert bound / 2 < largest <= bound
    kept: list[str] = []
    while (segment := spool.claim()) is not None:
        while True:
            last = segment.last(10)
            kept = ids_of(last) + kept
            if not segment.cut(len(last)):
                break
    assert sorted(kept) == sorted(ids_of(logs[-len(kept) :]))
    assert spool.dropped == len(logs) - len(kept)
    fault.seen(sent=3000, delivered=0, spooled=len(kept), lost={"spool_lost": spool.dropped})


def test_one_batch_larger_than_the_spool(fault: Scenario, tmp_path: Path) -> None:
    """The spool holds four kilobytes, and the queue far more: the oldest events are dropped."""
    with TelemetryClient(
        refused_url(), configuration(tmp_path, spool_max_bytes=4096, batch_size=500)
    ) as client:
        for log in make_logs(500):
            client.enqueue(log)
        assert client.flush(10)
    stats = client.stats()
    assert folder_bytes(tmp_path) <= 4096
    left = sum(path.read_bytes().count(b"\n") for path in segments(tmp_path))
    assert left == stats.spooled - stats.spool_lost > 0
    fault.seen(
        sent=500, delivered=0, spooled=left, lost={"failed": stats.failed, "spool_lost": stats.spool_lost}
    )


def test_processes_that_share_a_folder(fault: Scenario, server: TelemetryServer, tmp_path: Path) -> None:
    """Four processes write at once while the endpoint is down; then four others replay at once."""
    endpoint = Elsewhere(server)
    write = """
    client = TelemetryClient(sys.argv[1], configuration(sys.argv[2], batch_size=7, max_queue_size=100_000))
    for number in range(500):
        client.enqueue(log(f"{sys.argv[3]}-{number}"))
    assert client.flush()
    assert client.stats().spooled == 500, client.stats()
    """
    for process in [start_python(write, server.url, tmp_path, name) for name in "abcd"]:
        finish(process)
    assert server.accepted == []
    endpoint.comes_up()
    replay = """
    import time
    client = TelemetryClient(sys.argv[1], configuration(sys.argv[2], batch_size=7))
    assert client.close()
    print(client.stats().replayed)
    """
    replayed = [int(finish(p)) for p in [start_python(replay, server.url, tmp_path) for _ in range(4)]]
    assert sum(replayed) == len(server.accepted) == len(set(server.accepted)) == 2000
    assert segments(tmp_path) == []
    fault.seen(sent=2000, delivered=len(set(server.accepted)))


def test_the_bound_of_processes_that_write_at_once(fault: Scenario, tmp_path: Path) -> None:
    """Four processes write ten times the folder's size limit; the folder never exceeds it."""
    bound = 64 * 1024
    write = """
    spool = Spool(sys.argv[1], sys.argv[2], 64 * 1024)
    written = sum(spool.append([log("x" * 60)] * 20) for _ in range(100))
    print(written, spool.dropped)
    """
    processes = [start_python(write, tmp_path, f"host-{name}") for name in "abcd"]
    largest = 0
    while any(process.poll() is None for process in processes):
        # Without the lock, the sum would mix several moments.
        with Spool(tmp_path, "looks", bound)._locked_folder():
            largest = max(largest, folder_bytes(tmp_path))
    told = [tuple(map(int, finish(process).split())) for process in processes]
    left = sum(path.read_bytes().count(b"\n") for path in segments(tmp_path))
    assert bound / 2 < largest <= bound
    written, dropped = (sum(column) for column in zip(*told, strict=True))
    assert left == written - dropped
    fault.seen(sent=8000, delivered=0, spooled=left, lost={"spool_lost": dropped, "no room": 8000 - written})


@pytest.mark.parametrize("seed", range(3))
def test_killed_in_the_middle_of_writing(fault: Scenario, tmp_path: Path, seed: int) -> None:
    """`kill -9` while a process keeps writing records: only the record being written may be lost, and none is torn."""
    write = """
    spool = Spool(sys.argv[1], "host", 64 * 1024 * 1024)
    for number in range(1_000_000):
        assert spool.append([log(number)]) == 1
        print(number, flush=True)
    """
    process = start_python(write, tmp_path)
    assert process.stdout is not None
    written = -1
    for _ in range(100 + 37 * seed):
        written = int(process.stdout.readline())
    process.kill()
    rest = process.stdout.read().split("\n")
    process.communicate()
    written = max([written, *(int(line) for line in rest[:-1])])
    numbers: list[int] = []
    spool = Spool(tmp_path, "host", 64 * MIB)
    while (segment := spool.claim()) is not None:
        logs = segment.last(1_000_000)
        numbers += [int(log.frontend_log_event_id or "") for log in logs]
        segment.cut(len(logs))
    # The last record may be written although the process did not print it.
    assert sorted(numbers) in (list(range(written + 1)), list(range(written + 2)))
    fault.seen(sent=len(numbers), delivered=0, spooled=len(numbers))


@pytest.mark.parametrize("cut", [1, 20, 150], ids=lambda cut: f"{cut} bytes short")
def test_a_torn_record(fault: Scenario, server: TelemetryServer, tmp_path: Path, cut: int) -> None:
    """The last record of a segment is cut short, as after a crash; the next process appends to it."""
    assert Spool(tmp_path, server.url, MIB).append(make_logs(20)) == 20
    (segment,) = segments(tmp_path)
    os.truncate(segment, segment.stat().st_size - cut)
    assert Spool(tmp_path, server.url, MIB).append([make_log("after")]) == 1
    with TelemetryClient(server.url, configuration(tmp_path)) as client:
        wait_until(lambda: not segments(tmp_path))
    assert "after" in server.accepted
    assert len(set(server.accepted)) == client.stats().replayed == 20
    fault.seen(sent=21, delivered=20, lost={"torn": 1})


def test_a_flipped_bit(fault: Scenario, server: TelemetryServer, tmp_path: Path) -> None:
    """One byte in the middle of a segment has changed; its record is dropped and the others are sent."""
    assert Spool(tmp_path, server.url, MIB).append(make_logs(20)) == 20
    (segment,) = segments(tmp_path)
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    with TelemetryClient(server.url, configuration(tmp_path)) as client:
        wait_until(lambda: not segments(tmp_path))
    assert client.stats().spool_lost == 1
    fault.seen(sent=20, delivered=len(set(server.accepted)), lost={"spool_lost": 1})


def test_killed_in_the_middle_of_a_replay(fault: Scenario, server: TelemetryServer, tmp_path: Path) -> None:
    """`kill -9` during the second batch of a replay: the next process sends only the rest."""
    logs = make_logs(100)
    assert Spool(tmp_path, server.url, MIB).append(logs) == 100
    held = threading.Event()

    def first_one_then_none(request: Request) -> Reply:
        return Reply() if len(server.requests) == 1 else Reply(500, release=held)

    server.always = first_one_then_none
    replay = """
    client = TelemetryClient(sys.argv[1], configuration(sys.argv[2], batch_size=10))
    sys.stdin.read()
    """
    process = start_python(replay, server.url, tmp_path)
    wait_until(lambda: len(server.requests) == 2)
    process.kill()
    process.communicate()
    held.set()
    server.always = None
    with TelemetryClient(server.url, configuration(tmp_path)) as client:
        wait_until(lambda: not segments(tmp_path))
    assert client.stats().replayed == 90
    assert sorted(server.accepted) == sorted(ids_of(logs))
    fault.seen(sent=100, delivered=len(server.accepted))


def test_killed_in_the_middle_of_a_replay_with_a_child_that_lives_on(
    fault: Scenario, server: TelemetryServer, tmp_path: Path
) -> None:
    """As before, but the process has forked: its child must not keep the segment's lock."""
    assert Spool(tmp_path, server.url, MIB).append(make_logs(10)) == 10
    held = threading.Event()
    server.replies.append(Reply(500, release=held))
    replay = """
    import os, signal, warnings
    warnings.simplefilter("ignore")
    client = TelemetryClient(sys.argv[1], configuration(sys.argv[2]))
    sys.stdin.readline()
    child = os.fork()
    if child:
        print(child, flush=True)
        signal.pause()
    else:
        sys.stdin.read()
        os._exit(0)
    """
    process = start_python(replay, server.url, tmp_path)
    assert process.stdin is not None
    assert process.stdout is not None
    wait_until(lambda: len(server.requests) == 1)
    process.stdin.write("fork\n")
    process.stdin.flush()
    assert int(process.stdout.readline()) > 0
    process.kill()
    process.wait(10)
    held.set()
    with TelemetryClient(server.url, configuration(tmp_path)):  # this client or the child delivers them
        wait_until(lambda: not segments(tmp_path))
    process.communicate()  # closing stdin ends the child
    assert len(server.accepted) == 10
    fault.seen(sent=10, delivered=len(set(server.accepted)))


def test_a_replay_that_succeeds_in_part(fault: Scenario, server: TelemetryServer, tmp_path: Path) -> None:
    """A spooled batch needs several requests, and the endpoint fails after the first."""
    logs = make_logs(40)
    size = len(logs) * 500
    assert Spool(tmp_path, server.url, MIB).append(logs) == 40
    server.replies.extend([Reply(), Reply(503)])
    config = configuration(tmp_path, max_request_bytes=size // 10)
    with TelemetryClient(server.url, config) as client:
        wait_until(lambda: not segments(tmp_path))
    assert sorted(server.accepted) == sorted(ids_of(logs))
    assert client.stats().replayed == 40
    fault.seen(sent=40, delivered=len(server.accepted))


def test_a_disk_that_is_full(fault: Scenario, tmp_path: Path) -> None:
    """Files cannot grow beyond a few kilobytes (RLIMIT_FSIZE): unwritten events are counted, and nothing raises."""
    code = """
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    client = TelemetryClient(sys.argv[1], configuration(sys.argv[2], batch_size=500))
    for number in range(500):
        client.enqueue(log(number))
    assert client.flush()
    client.close()
    stats = client.stats()
    assert stats.closes and stats.errors, stats
    print(stats.spooled, stats.failed + stats.dropped_circuit_open)
    """
    spooled, failed = map(int, finish(start_python(code, refused_url(), tmp_path)).split())
    assert spooled + failed == 500
    assert failed > 0
    assert sum(path.read_bytes().count(b"\n") for path in segments(tmp_path)) == spooled
    fault.seen(sent=500, delivered=0, spooled=spooled, lost={"failed": failed})


@pytest.mark.parametrize("place", ["a file", "a read-only file system"])
def test_a_spool_that_cannot_be_made(fault: Scenario, tmp_path: Path, place: str) -> None:
    """`spool_dir` is a file, or lies on a file system that cannot be written to."""
    folder = tmp_path / "file"
    folder.write_text("")
    if place != "a file":
        folder = Path("/proc/telemetry")
    with TelemetryClient(refused_url(), configuration(folder)) as client:
        for log in make_logs(10):
            client.enqueue(log)
        assert client.flush(10)
    assert client.stats().errors > 0
    fault.settled(client.stats(), sent=10, arrived=[])
    assert fault.lost == {"failed": 10}


def test_a_process_that_is_stopped_with_the_lock(fault: Scenario, tmp_path: Path) -> None:
    """A process is stopped (SIGSTOP) while it holds the folder's lock; another one counts its events and continues."""
    hold = """
    with Spool(sys.argv[1], "host", 1000)._locked_folder():
        print("locked", flush=True)
        sys.stdin.read()
    """
    process = start_python(hold, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with TelemetryClient(refused_url(), configuration(tmp_path)) as client:
            client.enqueue(make_log())
            assert client.flush(10)
    finally:
        os.kill(process.pid, signal.SIGCONT)
        process.communicate("")
    fault.settled(client.stats(), sent=1, arrived=[])
    assert fault.lost == {"failed": 1}


def test_hosts_that_share_a_folder(fault: Scenario, tmp_path: Path) -> None:
    """Two endpoints that share a folder are down and come up: each one gets only its own events."""
    with TelemetryServer() as one, TelemetryServer() as other:
        logs = {one: make_logs(10), other: make_logs(10)}
        for server, events in logs.items():
            assert Spool(tmp_path, server.url, MIB).append(events) == 10
        for server, events in logs.items():
            with TelemetryClient(server.url, configuration(tmp_path)) as client:
                wait_until(lambda: client.stats().replayed == 10)
            assert sorted(server.accepted) == sorted(ids_of(events))
        fault.seen(sent=20, delivered=len(one.accepted) + len(other.accepted))


def test_threads_and_a_fork_that_share_a_client(
    fault: Scenario, server: TelemetryServer, tmp_path: Path
) -> None:
    """The process forks during a replay: the child neither sends it again nor releases its lock."""
    assert Spool(tmp_path, server.url, MIB).append(make_logs(30)) == 30
    held = threading.Event()
    server.replies.append(Reply(release=held))
    with TelemetryClient(server.url, configuration(tmp_path)) as client:
        wait_until(lambda: len(server.requests) == 1)
        with warnings.catch_warnings():
            # From Python 3.12 on, fork warns about every thread.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            began = time.monotonic()
            closed = client.close(20) and time.monotonic() - began < 10
            os._exit(0 if closed and client.stats().replayed == 0 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        held.set()
        wait_until(lambda: client.stats().replayed == 30)
    assert len(server.accepted) == len(set(server.accepted)) == 30
    fault.seen(sent=30, delivered=len(server.accepted))


def test_an_endpoint_that_comes_and_goes(fault: Scenario, server: TelemetryServer, tmp_path: Path) -> None:
    """Every third request fails while eight threads enqueue: all events arrive, directly or through the spool."""
    lock = threading.Lock()
    count = Counter[str]()

    def every_third(request: Request) -> Reply:
        with lock:
            count["requests"] += 1
            return Reply(503) if count["requests"] % 3 == 0 else Reply()

    server.always = every_third
    config = configuration(tmp_path, batch_size=20, circuit_breaker_timeout_ms=20)
    with TelemetryClient(server.url, config) as client:

        def enqueue_a_hundred(_: int) -> None:
            for log in make_logs(100):
                client.enqueue(log)

        run_in_threads(8, enqueue_a_hundred)
        assert client.flush(20)
        wait_until(lambda: len(server.accepted) == 800)
        wait_until(lambda: not segments(tmp_path))
        stats = client.stats()
    assert stats.spooled == stats.replayed > 0
    assert len(set(server.accepted)) == 800
    fault.seen(sent=800, delivered=len(server.accepted))


def test_a_user_opts_out_before_the_replay(
    fault: Scenario, server: TelemetryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DO_NOT_TRACK is set when the next process starts: no spooled event is sent."""
    assert Spool(tmp_path, server.url, MIB).append(make_logs(10)) == 10
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    with TelemetryClient(server.url, configuration(tmp_path)) as client:
        assert client.flush(1)
    assert server.requests == []
    fault.seen(sent=10, delivered=0, spooled=10)


def test_files_are_private(fault: Scenario, tmp_path: Path) -> None:
    """The umask would make new files readable for all users."""
    folder = tmp_path / "new" / "spool"
    before = os.umask(0)
    try:
        with TelemetryClient(refused_url(), configuration(folder)) as client:
            client.enqueue(make_log())
            assert client.flush(10)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    fault.settled(client.stats(), sent=1, arrived=[])


def test_a_link_in_the_place_of_a_file(fault: Scenario, tmp_path: Path) -> None:
    """The lock's and a segment's paths are links to another file, which stays untouched."""
    secret = tmp_path / "secret"
    secret.write_text("untouched")
    folder = tmp_path / "spool"
    folder.mkdir()
    assert Spool(folder, "host", MIB).append(make_logs(1)) == 1
    (segment,) = segments(folder)
    for path in (segment, folder / "lock"):
        path.unlink()
        path.symlink_to(secret)
    spool = Spool(folder, "host", MIB)
    assert spool.append(make_logs(1)) == 0
    assert spool.claim() is None
    assert segment.is_symlink()
    assert secret.read_text() == "untouched"
    fault.seen(sent=1, delivered=0, lost={"failed": 1})
