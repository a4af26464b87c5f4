"""How an instrumented connection authenticates: `auth_type` agrees with the mechanism, unless the author says it."""

from __future__ import annotations

import pytest

from adbc_telemetry import InMemoryTelemetryExporter, instrument
from adbc_telemetry.instrumentation import settings
from adbc_telemetry.instrumentation.driver_info import Facts
from adbc_telemetry.schema import DriverAuthFlow, DriverAuthMech, DriverConnectionParameters
from adbc_telemetry.testing import driver_log

dbapi = pytest.importorskip("adbc_driver_sqlite.dbapi")


@pytest.mark.parametrize(
    ("mechanism", "flow", "said", "told"),
    [
        (None, None, None, None),
        (DriverAuthMech.PAT, DriverAuthFlow.TOKEN_PASSTHROUGH, None, "pat"),
        (DriverAuthMech.OTHER, DriverAuthFlow.BROWSER_BASED_AUTHENTICATION, None, "other"),
        (DriverAuthMech.OAUTH, DriverAuthFlow.TOKEN_PASSTHROUGH, None, "oauth-access_token"),
        (DriverAuthMech.OAUTH, DriverAuthFlow.TOKEN_PASSTHROUGH, "of the author's", "of the author's"),
    ],
)
def test_auth_type_follows_from_the_mechanism_unless_the_author_says_it(
    mechanism: DriverAuthMech | None,
    flow: DriverAuthFlow | None,
    said: str | None,
    told: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parameters = DriverConnectionParameters(auth_mech=mechanism, auth_flow=flow)
    monkeypatch.setattr(settings, "facts_of_adbc", lambda _: Facts("a driver", "1", parameters))
    exporter = InMemoryTelemetryExporter()
    with instrument(dbapi.connect(), exporter=exporter, auth_type=said):
        pass
    assert {driver_log(log).auth_type for log in exporter.logs} == {told}
