"""The sender's threads: they survive whatever they run, and end when they are told to."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from adbc_telemetry.pipeline.sender import SenderThreads
from support.waiting import wait_until


def test_an_exception_of_a_task_is_swallowed_at_the_border_and_nowhere_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

    def broken() -> None:
        raise RuntimeError("sentinel")

    threads = SenderThreads()
    threads.run_soon(broken)
    wait_until(lambda: "RuntimeError" in caplog.text)
    threads.stop(time.monotonic() + 10)
    assert "sentinel" not in caplog.text


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_a_worker_outlives_a_task_whatever_it_raises(error: type[BaseException]) -> None:
    ran_in: list[str] = []

    def broken() -> None:
        ran_in.append(threading.current_thread().name)
        raise error

    threads = SenderThreads()
    for _ in range(3):
        threads.run_soon(broken)
    wait_until(lambda: len(ran_in) == 3)
    threads.stop(time.monotonic() + 10)
    assert set(ran_in) <= {"adbc-telemetry-sender-1", "adbc-telemetry-sender-2"}
