"""The fault suite: each test is a scenario, and has to say where every event of it has got to.

`pytest tests/faults --faults-table docs/faults.md` writes what was seen into the table of the documentation.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from faults.scenario import Scenario, write_table

_SCENARIOS = pytest.StashKey[list[Scenario]]()
_FAILED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-table", metavar="FILE", help="write what the fault suite has seen to FILE")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SCENARIOS] = []


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Iterator[Scenario]:
    """What this scenario does with its events; its docstring says what is injected."""
    scenario = Scenario(
        area=request.path.stem.removeprefix("test_"),
        name=request.node.name.removeprefix("test_").replace("_", " "),
        injected=inspect.getdoc(request.function) or "",
    )
    assert scenario.injected, "a scenario's docstring says what is injected"
    yield scenario
    if _FAILED not in request.node.stash:
        assert scenario.told, "a scenario ends with fault.settled() or fault.seen()"
        request.config.stash[_SCENARIOS].append(scenario)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and not report.passed:
        item.stash[_FAILED] = True
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--faults-table", None)
    if path:
        write_table(Path(path), session.config.stash[_SCENARIOS])
