"""When an ADBC connection is instrumented, and when it is left alone."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from adbc_telemetry import (
    TelemetryClientManager,
    TelemetryConfiguration,
    install,
    instrument,
)
from support.adbc import (
    CREATE,
    DELETE,
    ENDPOINT,
    Recording,
    connect_sqlite,
    enabled,
)
from support.server import TelemetryServer

dbapi = pytest.importorskip("adbc_driver_manager.dbapi")
_lib = pytest.importorskip("adbc_driver_manager._lib")
pyarrow = pytest.importorskip("pyarrow")
sqlite_dbapi = pytest.importorskip("adbc_driver_sqlite.dbapi")

# Promise 13: the user has the last word.


def assert_untouched(connection: Any, *args: Any, **kwargs: Any) -> None:
    cls, state = type(connection), dict(vars(connection))
    assert instrument(connection, *args, **kwargs) is connection
    assert type(connection) is cls
    assert vars(connection) == state
    assert TelemetryClientManager.get_instance().hosts() == []


@pytest.mark.parametrize(
    ("name", "value"), [("DO_NOT_TRACK", "1"), ("DATABRICKS_TELEMETRY_ENABLED", "false")]
)
@pytest.mark.parametrize("config", [None, enabled()], ids=["no configuration", "enabled"])
def test_an_opt_out_beats_everything(
    name: str, value: str, config: Any, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    original = dbapi.Connection.__init__
    with connect_sqlite() as connection:
        assert_untouched(connection, ENDPOINT, config=config, exporter=recording)
        install(ENDPOINT, config=config, exporter=recording)
        assert dbapi.Connection.__init__ is original


def test_a_configuration_that_is_not_enabled_leaves_the_connection_untouched(recording: Recording) -> None:
    with connect_sqlite() as connection:
        for config in (
            TelemetryConfiguration(enabled=False),
            TelemetryConfiguration(mode="off", enabled=True),
        ):
            assert_untouched(connection, ENDPOINT, config=config, exporter=recording)


def test_without_a_word_and_without_a_host_whose_flags_could_be_asked_the_connection_is_untouched(
    recording: Recording,
) -> None:
    with connect_sqlite() as connection:
        assert_untouched(connection, config=TelemetryConfiguration(), exporter=recording)


def test_without_an_endpoint_nothing_happens() -> None:
    original = dbapi.Connection.__init__
    with connect_sqlite() as connection:
        assert_untouched(connection)
    install()
    assert dbapi.Connection.__init__ is original


def test_the_endpoint_may_come_from_the_environment(
    server: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADBC_TELEMETRY_ENDPOINT", server.url)
    instrument(connect_sqlite()).close()
    assert len(server.accepted) == 2


def test_an_endpoint_of_the_environment_that_makes_no_sense_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADBC_TELEMETRY_ENDPOINT", "ftp://nowhere")
    with connect_sqlite() as connection:
        assert_untouched(connection)


def test_an_exporter_needs_no_endpoint(recording: Recording) -> None:
    instrument(connect_sqlite(), exporter=recording).close()
    assert recording.events() == [CREATE, DELETE]


def test_a_closed_connection_is_left_as_it_is(recording: Recording) -> None:
    connection = connect_sqlite()
    connection.close()
    assert_untouched(connection, ENDPOINT, config=enabled(), exporter=recording)


def test_a_connection_of_another_kind_is_refused(recording: Recording) -> None:
    for thing in (1, "a string", sqlite3, sqlite3.Connection, None):
        with pytest.raises(TypeError, match=r"only DBAPI connections, .* not "):
            instrument(thing, ENDPOINT, config=enabled(), exporter=recording)


def test_wrong_arguments_are_told() -> None:
    http = "http://elsewhere.example"
    with connect_sqlite() as connection:
        for call in (lambda **a: instrument(connection, **a), install):
            with pytest.raises(ValueError, match="ftp"):
                call(endpoint="ftp://nowhere")
            with pytest.raises(ValueError, match="https only"):
                call(endpoint=http, auth=dict)
            with pytest.raises(ValueError, match="batch_size"):
                call(endpoint=ENDPOINT, config=enabled(batch_size=0))
            with pytest.raises(TypeError, match="config"):
                call(endpoint=ENDPOINT, config={"enabled": True})  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="auth"):
                call(endpoint=ENDPOINT, auth="Bearer")  # type: ignore[arg-type]
