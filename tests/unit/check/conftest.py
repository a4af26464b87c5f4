from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from adbc_telemetry.check import Checkup, CheckupReport, Status
from adbc_telemetry.check.target import Target
from adbc_telemetry.config import TelemetryConfiguration

NAME = "telemetry.example"

Check = Callable[..., dict[str, str]]


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if (
            name.lower().endswith("_proxy")
            or name in ("SSL_CERT_FILE", "SSL_CERT_DIR")
            or name.startswith(("DATABRICKS_TELEMETRY_", "ADBC_TELEMETRY_"))
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABRICKS_TELEMETRY_ENABLED", "true")


@pytest.fixture
def checked() -> Callable[..., CheckupReport]:
    """Checks an endpoint with the environment as it is."""

    def check(endpoint: str | None, *, token: str | None = None, timeout: float = 5.0) -> CheckupReport:
        config = TelemetryConfiguration.from_properties()
        return Checkup(Target(endpoint, token=token, timeout=timeout, config=config)).run()

    return check


@pytest.fixture
def diagnosed(checked: Callable[..., CheckupReport]) -> Check:
    """Checks an endpoint; returns the diagnosis of each step that has one, and no event arrives after a failure."""

    def check(endpoint: str | None, **options: Any) -> dict[str, str]:
        report = checked(endpoint, **options)
        return {
            step.name: step.finding.diagnosis.label
            for step in report.steps
            if step.finding.diagnosis is not None and (report.arrives or step.finding.status is Status.FAILED)
        }

    return check


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
def resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolves `telemetry.example` to this machine, and knows no other name."""
    real = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == NAME:
            return real("127.0.0.1", *arguments, **options)
        if str(host).endswith(".example"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
