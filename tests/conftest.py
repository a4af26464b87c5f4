"""Every test starts without an opt-out in the environment and must leave no thread and no client behind.

`pytest --quick` runs `tests/unit` without the collector and without the mark `slow`. It skips a test at the moment when
it starts a process or a database server: such a test needs no mark.
"""

from __future__ import annotations

import gc
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from adbc_telemetry import TelemetryClientManager
from adbc_telemetry.export.circuit_breaker import CircuitBreakerManager
from adbc_telemetry.pipeline import shutdown
from adbc_telemetry.pipeline.shutdown import close_together
from support.postgres import PostgresServer, find_binaries, why_not
from support.server import TelemetryServer
from support.waiting import wait_until

# The same examples in each run, and no deadline on a slow or busy machine.
settings.register_profile(
    "tests", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("quick", settings.get_profile("tests"), max_examples=20)
settings.load_profile("tests")

UNIT = Path(__file__).parent / "unit"
# Their tests start servers and processes, some on other threads, where a test cannot be skipped any more.
NOT_QUICK = (UNIT / "collector", UNIT / "cli")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="run only the quick tests, as `make check` does")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("quick"):
        settings.load_profile("quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("quick"):
        slow = [
            item
            for item in items
            if not item.path.is_relative_to(UNIT)
            or any(item.path.is_relative_to(folder) for folder in NOT_QUICK)
            or item.get_closest_marker("slow")
        ]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in set(slow)]


def pytest_collection_finish() -> None:
    """Freeze what is imported by now: many tests collect garbage, and each collection would visit it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_processes_among_quick_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips a quick test at the moment when it starts a process."""

    def skip(*_: object, **__: object) -> None:
        pytest.skip("starts a process: not a quick test")

    if request.config.getoption("quick"):
        monkeypatch.setattr(subprocess.Popen, "__init__", skip)
        if hasattr(os, "fork"):
            monkeypatch.setattr(os, "fork", skip)


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
        # The leak fails this test and not the next one.
        close_together(shutdown._exit._clients.living(), timeout=0)
        raise
    breakers = CircuitBreakerManager.get_instance()
    for host in breakers.hosts():  # left by tests that use a client or an exporter without the manager
        breakers.remove_circuit_breaker(host)


@pytest.fixture
def server() -> Iterator[TelemetryServer]:
    with TelemetryServer() as running:
        yield running


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    if request.config.getoption("quick"):
        pytest.skip("needs a database server: not a quick test")
    binaries, reason = find_binaries(), why_not()
    if binaries is None or reason:
        pytest.skip(reason or "")
    with PostgresServer(binaries) as running:
        yield running
