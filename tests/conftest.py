"""What every test starts from and has to leave behind: no opt-out in the environment, no thread, no client."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from adbc_telemetry import TelemetryClientManager
from adbc_telemetry.export.circuit_breaker import CircuitBreakerManager
from adbc_telemetry.pipeline import shutdown
from adbc_telemetry.pipeline.shutdown import close_together
from support.postgres import PostgresServer, find_binaries, why_not
from support.server import TelemetryServer
from support.waiting import wait_until

# The same examples in each run, however slow or busy the machine.
settings.register_profile(
    "tests", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("adbc-telemetry")]


@pytest.fixture(autouse=True)
def nothing_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("DATABRICKS_TELEMETRY_", "ADBC_TELEMETRY_")) or name == "DO_NOT_TRACK":
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    yield
    assert TelemetryClientManager.get_instance().hosts() == []
    try:
        wait_until(lambda: our_threads() == [], timeout=5, what=lambda: f"threads left: {our_threads()}")
    except AssertionError:
        close_together(
            shutdown._exit._clients.living(), timeout=0
        )  # this test fails, and no other for its sake
        raise
    breakers = CircuitBreakerManager.get_instance()
    for host in breakers.hosts():  # of tests that use a client or an exporter without the manager
        breakers.remove_circuit_breaker(host)


@pytest.fixture
def server() -> Iterator[TelemetryServer]:
    with TelemetryServer() as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    binaries, reason = find_binaries(), why_not()
    if binaries is None or reason:
        pytest.skip(reason or "")
    with PostgresServer(binaries) as running:
        yield running
