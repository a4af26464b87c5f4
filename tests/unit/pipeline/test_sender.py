"""The schedule: who sends next, and that nobody is forgotten."""

from __future__ import annotations

import logging
import time

import pytest

from adbc_telemetry.pipeline.scheduler import MAX_SUSPECT_LANES, Schedule
from adbc_telemetry.pipeline.sender import SenderThreads
from support.waiting import wait_until


class FakeClient:
    """Due at once, as long as it has something to send."""

    def __init__(self, suspect: bool = True) -> None:
        self.is_suspect = suspect
        self.has_events = True

    def next_send(self, now: float) -> float | None:
        return now if self.has_events else None

    def send_batch(self) -> None:
        pass


def test_suspects_share_their_lanes_first_come_first_served() -> None:
    started: list[object] = []
    schedule = Schedule(lambda client, job: started.append(client))
    suspects = [FakeClient() for _ in range(MAX_SUSPECT_LANES + 2)]
    for suspect in suspects:
        schedule.examine(suspect)
    assert started == suspects[:MAX_SUSPECT_LANES]
    well = FakeClient(suspect=False)
    schedule.examine(well)
    assert started[-1] is well
    for suspect in suspects[:2]:
        schedule.finished(suspect)
    assert started[-2:] == suspects[-2:]


def test_a_parked_suspect_is_not_forgotten_when_another_has_nothing_to_send_any_more() -> None:
    started: list[object] = []
    schedule = Schedule(lambda client, job: started.append(client))
    busy = [FakeClient() for _ in range(MAX_SUSPECT_LANES)]
    parked = [FakeClient() for _ in range(3)]
    for client in (*busy, *parked):
        schedule.examine(client)
    parked[0].has_events = False
    for client in busy:
        client.has_events = False
    schedule.finished(busy[0])
    assert started[-1] is parked[1]
    schedule.finished(busy[1])
    assert started[-1] is parked[2]


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
