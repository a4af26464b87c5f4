"""When a plain PEP 249 connection is instrumented, and when it is left alone."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from adbc_telemetry import TelemetryClientManager, TelemetryConfiguration, instrument
from adbc_telemetry.context import StatementTelemetryContext
from adbc_telemetry.testing import CapturingExporter, configuration
from support.databases import ENDPOINT, Database, database_of
from support.differential import outcomes
from support.matrix import CREATE, DELETE
from support.pep249 import script, sqlite
from support.server import TelemetryServer
from support.waiting import wait_until

# Connections that are left alone.


def test_a_connection_of_asyncio_s_is_refused() -> None:
    class Asynchronous:
        def cursor(self) -> None: ...

        async def commit(self) -> None: ...

        async def close(self) -> None: ...

    with pytest.raises(TypeError, match="Asynchronous"):
        instrument(Asynchronous(), ENDPOINT)


def test_a_proxy_is_not_wrapped_again(captured: CapturingExporter) -> None:
    connection = sqlite(captured)
    assert instrument(connection, ENDPOINT, config=configuration(), exporter=captured) is connection
    connection.close()
    captured.wait_for(2)
    assert captured.events == [CREATE, DELETE]


def test_without_consent_it_is_the_connection_itself(database: Database) -> None:
    connection = database.open()
    assert instrument(connection, ENDPOINT, config=TelemetryConfiguration(enabled=False)) is connection
    connection.close()


@pytest.mark.parametrize(
    ("name", "value"), [("DO_NOT_TRACK", "1"), ("DATABRICKS_TELEMETRY_ENABLED", "false")]
)
def test_an_opt_out_leaves_the_connection_itself(
    name: str, value: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    connection = database.open()
    assert instrument(connection, ENDPOINT, config=configuration()) is connection
    assert instrument(connection) is connection
    connection.close()


def test_a_connection_that_says_it_is_closed_is_left_alone(request: pytest.FixtureRequest) -> None:
    connection = database_of(request, "psycopg").open()
    connection.close()
    assert instrument(connection, ENDPOINT, config=configuration()) is connection


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("way", ["argument", "environment"])
def test_a_loopback_endpoint_without_a_scheme_is_plain_http(
    way: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        server = TelemetryServer(address)
    except OSError:
        pytest.skip("there is no IPv6")
    with server:
        endpoint = server.url.removeprefix("http://")
        if way == "environment":
            monkeypatch.setenv("ADBC_TELEMETRY_ENDPOINT", endpoint)
        given = endpoint if way == "argument" else None
        with contextlib.closing(
            instrument(sqlite3.connect(":memory:"), given, config=configuration())
        ) as connection:
            connection.execute("SELECT 1").fetchall()
        assert len(server.accepted) == 3


@pytest.mark.parametrize("name", ["__init__", "record_execute_complete", "record_error", "emit"])
def test_errors_of_telemetry_itself_do_not_reach_the_program(
    name: str, captured: CapturingExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("telemetry is broken")

    without = outcomes(script(sqlite3.connect(":memory:"), "?"))
    connection = sqlite(captured)
    monkeypatch.setattr(StatementTelemetryContext, name, broken)
    assert outcomes(script(connection, "?")) == without
    wait_until(lambda: TelemetryClientManager.get_instance().hosts() == [])


def test_a_connection_that_cannot_be_followed_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("telemetry is broken")

    connection = sqlite3.connect(":memory:")
    monkeypatch.setattr(TelemetryClientManager, "acquire", broken)
    assert instrument(connection, ENDPOINT, config=configuration()) is connection
    connection.close()
