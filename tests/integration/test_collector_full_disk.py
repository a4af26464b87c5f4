"""A disk that is really full: a small tmpfs in a mount namespace of the collector's own."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("starlette")
if not sys.platform.startswith("linux"):
    pytest.skip("mount namespaces of Linux", allow_module_level=True)

from support.collector_process import Collecting, collecting, log_text, request_of
from support.waiting import wait_until

MEGABYTE = 2**20
SIZE = 24 * MEGABYTE


def may_mount() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "-o", "size=1m", "none", "/mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not may_mount(), reason="needs root and the right to mount a tmpfs")


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collecting]:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size={SIZE} none "{disk}" && exec "$@"'
    launcher = ["unshare", "--mount", "sh", "-c", script, "sh"]
    with collecting(tmp_path, store=disk / "telemetry", launcher=launcher) as running:
        yield running


class Sender:
    """Sends new events; `acknowledged` are those that the collector answered for."""

    def __init__(self, collector: Collecting) -> None:
        self.acknowledged: list[str] = []
        self._collector = collector
        self._sent = 0

    def send(self, count: int = 100, size: int = 1000) -> int:
        ids = [f"event-{self._sent + number}" for number in range(count)]
        # Digests do not compress: the Parquet files of these events take room as well.
        texts = [log_text(each, auth_type=os.urandom(size // 2).hex()) for each in ids]
        answer = self._collector.post(request_of(texts))
        if answer.status == 200:
            self._sent += count
            self.acknowledged += ids
        else:
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert json.loads(answer.body)["numProtoSuccess"] == 0
        return answer.status


def stored(collector: Collecting) -> list[str]:
    answer = collector.ask("GET", "/api/export?format=csv")
    assert answer.status == 200, answer.body
    return [row["event_id"] for row in csv.DictReader(io.StringIO(answer.body.decode()))]


def on_the_disk(collector: Collecting) -> Path:
    """The store as the collector sees it, out of its mount namespace."""
    return Path(f"/proc/{collector.process.pid}/root{collector.store}")


def test_a_full_disk_is_told_of_once_and_the_collector_recovers_when_there_is_room(
    collector: Collecting,
) -> None:
    sender = Sender(collector)
    ballast = on_the_disk(collector).parent / "ballast"
    ballast.write_bytes(bytes(18 * MEGABYTE))
    wait_until(lambda: sender.send() == 503)
    assert len(sender.acknowledged) >= 1000
    for _ in range(30):
        assert sender.send() == 503
    health = collector.ask("GET", "/healthz")
    assert health.status == 503
    problems = json.loads(health.body)["problems"]
    assert any("No space left on device" in problem for problem in problems), problems
    told = [line for line in collector.log.splitlines() if "cannot be written to" in line]
    assert len(told) == 1
    assert "No space left on device, with 0 MB free" in told[0]
    ballast.unlink()
    wait_until(lambda: sender.send() == 200)
    wait_until(lambda: collector.ask("GET", "/healthz").status == 200)
    assert "can be written again" in collector.log
    wait_until(lambda: sorted(stored(collector)) == sorted(sender.acknowledged))
    code, _ = collector.end(signal.SIGTERM)
    assert code == 0
    assert "Traceback" not in collector.log


def test_a_compaction_on_a_full_disk_keeps_the_journal_and_is_done_later(collector: Collecting) -> None:
    sender = Sender(collector)
    disk = on_the_disk(collector).parent
    ballast = disk / "ballast"
    for _ in range(40):
        assert sender.send() == 200
    with open(ballast, "wb") as file:  # all but the next events' room
        free = os.statvfs(disk)
        file.write(bytes(max(0, free.f_bavail * free.f_bsize - MEGABYTE)))
    while not any("Parquet" in line for line in collector.log.splitlines()):
        if sender.send(10) == 503:
            break
    wait_until(lambda: collector.ask("GET", "/healthz").status == 503)
    assert sorted(stored(collector)) == sorted(sender.acknowledged)
    ballast.unlink()
    wait_until(lambda: sender.send(1) == 200)
    wait_until(lambda: not list((on_the_disk(collector) / "journal").iterdir()), timeout=40)
    assert collector.ask("GET", "/healthz").status == 200
    assert sorted(stored(collector)) == sorted(sender.acknowledged)
    assert list((on_the_disk(collector) / "tmp").iterdir()) == []
