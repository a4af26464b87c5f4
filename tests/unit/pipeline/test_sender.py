"""The schedule: who sends next, and that nobody is forgotten."""

from __future__ import annotations

import logging
import time

import pytest

from adbc_telemetry.pipeline.scheduler import MAX_DEGRADED_WORKERS, Schedule
from adbc_telemetry.pipeline.sender import SenderThreads
from support.waiting import wait_until


class FakeClient:
    """Due at once, as long as it has something to send."""

    def __init__(self, degraded: bool = True) -> None:
        self.is_degraded = degraded
        self.has_events = True

    def next_send(self, now: float) -> float | None:
        return now if self.has_events else None

    def send_batch(self) -> None:
        pass


def test_suspects_share_their_lanes_first_come_first_served() -> None:
    started: list[object] = []
    schedule = Schedule(lambda client, job: started.append(client))
    degraded = [FakeClient() for _ in range(MAX_DEGRADED_WORKERS + 2)]
    for client in degraded:
        schedule.examine(client)
    assert started == degraded[:MAX_DEGRADED_WORKERS]
    well = FakeClient(degraded=False)
    schedule.examine(well)
    assert started[-1] is well
    for client in degraded[:2]:
        schedule.finished(client)
    assert started[-2:] == degraded[-2:]


def test_a_parked_suspect_is_not_forgotten_when_another_has_nothing_to_send_any_more() -> None:
    started: list[object] = []
    schedule = Schedule(lambda client, job: started.append(client))
    busy = [FakeClient() for _ in range(MAX_DEGRADED_WORKERS)]
    waiting = [FakeClient() for _ in range(3)]
    for client in (*busy, *waiting):
        schedule.examine(client)
    waiting[0].has_events = False
    for client in busy:
        client.has_events = False
    schedule.finished(busy[0])
    assert started[-1] is waiting[1]
    schedule.finished(busy[1])
    assert started[-1] is waiting[2]


def test_an_exception_of_a_job_is_swallowed_at_the_border_and_nowhere_else(
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
