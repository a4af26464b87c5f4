"""Helpers of the process scenarios."""

from __future__ import annotations

from support.process import Ended
from support.server import TelemetryServer

WITH_THE_PROCESS = "the process was killed"


def numbers(count: int, prefix: str = "") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def arrived_once(server: TelemetryServer, *expected: list[str]) -> int:
    """Assert that exactly these events arrived, each once; returns how many."""
    assert sorted(server.accepted) == sorted(name for names in expected for name in names)
    return len(server.accepted)


def ended_cleanly(out: Ended) -> None:
    assert (out.code, out.stderr) == (0, "")
