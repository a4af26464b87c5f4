"""Work in another process: results and errors come back, and no process outlives the collector."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette")
psutil = pytest.importorskip("psutil")

from adbc_telemetry.collector.workers import WorkerError, WorkerProcess  # noqa: E402
from support.waiting import wait_until  # noqa: E402

TESTS = Path(__file__).parents[2]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerProcess]:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    worker = WorkerProcess("support.a_worker", ["an argument"], niceness=7)
    yield worker
    worker.close()


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_result_comes_back(worker: WorkerProcess) -> None:
    assert worker.pid is None  # it starts with the first call
    assert asyncio.run(worker.call(int, "add", timeout=20, first=2, second=3)) == 5


def test_an_error_is_named_by_its_class_and_its_text_stays_there(worker: WorkerProcess) -> None:
    with pytest.raises(WorkerError, match=r"^ValueError$"):
        asyncio.run(worker.call(int, "fail", timeout=20, text="SECRET"))
    assert asyncio.run(worker.call(int, "add", timeout=20, first=1, second=1)) == 2


@pytest.mark.parametrize("method", ["end", "hang"])
def test_a_process_that_ends_or_hangs_fails_its_call_and_is_replaced(
    worker: WorkerProcess, method: str
) -> None:
    async def calls() -> None:
        await worker.call(int, "add", timeout=20, first=1, second=1)
        first = worker.pid
        assert first is not None
        with pytest.raises(WorkerError, match="the process ended, or took too long"):
            await worker.call(int, method, timeout=0.3)
        assert await worker.call(int, "add", timeout=20, first=2, second=2) == 4
        assert worker.pid != first
        wait_until(lambda: is_gone(first))

    asyncio.run(calls())


def test_calls_follow_one_another(worker: WorkerProcess) -> None:
    async def calls() -> list[int]:
        return await asyncio.gather(
            *(worker.call(int, "add", timeout=20, first=number, second=0) for number in range(20))
        )

    assert asyncio.run(calls()) == list(range(20))


def test_closing_ends_the_call_under_way(worker: WorkerProcess) -> None:
    async def calls() -> None:
        await worker.call(int, "add", timeout=20, first=1, second=1)
        pid = worker.pid
        assert pid is not None
        hanging = asyncio.create_task(worker.call(int, "hang", timeout=60))
        await asyncio.sleep(0)
        await asyncio.get_running_loop().run_in_executor(None, worker.close)
        with pytest.raises(WorkerError):
            await hanging
        with pytest.raises(WorkerError, match="the collector is stopping"):
            await worker.call(int, "add", timeout=1, first=1, second=1)
        wait_until(lambda: is_gone(pid))

    asyncio.run(calls())


@pytest.mark.skipif(not hasattr(os, "nice"), reason="no priorities on this system")
def test_it_gives_way_to_others(worker: WorkerProcess) -> None:
    assert asyncio.run(worker.call(int, "niceness", timeout=20)) == os.nice(0) + 7


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_it_ends_in_mid_call_when_its_owner_is_killed(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    script = (
        "import asyncio; from adbc_telemetry.collector.workers import WorkerProcess\n"
        "worker = WorkerProcess('support.a_worker', ['an argument'], niceness=0)\n"
        "asyncio.run(worker.call(int, 'add', timeout=20, first=1, second=1)); print(worker.pid, flush=True)\n"
        f"asyncio.run(worker.call(int, 'write_when_asked', timeout=60, path={str(begun)!r}))"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    with owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        wait_until(begun.exists)
        os.kill(owner.pid, signal.SIGKILL)
    wait_until(lambda: is_gone(pid))
