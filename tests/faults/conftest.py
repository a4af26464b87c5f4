"""The fault suite: each test is a scenario that accounts for every one of its events.

`pytest tests/faults --faults-table docs/faults.md` writes the results into the documentation's table.
"""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from faults.network import NAME
from faults.scenario import Scenario, write_table
from support.endpoints import TlsTelemetryServer, server_context
from support.watching import Watch

_SCENARIOS = pytest.StashKey[list[Scenario]]()
_FAILED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-table", metavar="FILE", help="write the fault suite's results to FILE")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SCENARIOS] = []


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """The scenario's clients, as OpenTelemetry sees them."""
    watch = Watch(monkeypatch)
    yield watch
    watch.stop()


@pytest.fixture
def fault(request: pytest.FixtureRequest, watch: Watch) -> Iterator[Scenario]:
    """The account of this scenario's events; the test's docstring says what it injects.

    In the end the metrics of the pipeline equal the clients' own stats.
    """
    scenario = Scenario(
        area=request.path.stem.removeprefix("test_"),
        name=request.node.name.removeprefix("test_").replace("_", " "),
        injected=inspect.getdoc(request.function) or "",
    )
    assert scenario.injected, "a scenario's docstring says what is injected"
    yield scenario
    if _FAILED not in request.node.stash:
        assert scenario.told, "a scenario ends with fault.settled() or fault.seen()"
        watch.assert_equal()
        request.config.stash[_SCENARIOS].append(scenario)


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority that the environment trusts, by SSL_CERT_FILE."""
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(bundle)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    return authority


@pytest.fixture
def tls_server(trusted: trustme.CA) -> Iterator[TlsTelemetryServer]:
    with TlsTelemetryServer(server_context(trusted.issue_cert("127.0.0.1", NAME))) as running:
        yield running


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The host names that were looked up; `telemetry.example` resolves to this machine."""
    names: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        names.append(host)
        return real("127.0.0.1" if host == NAME else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names


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
