"""A span of each connection that is made, and of each that fails."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.trace import StatusCode

from adbc_telemetry.otel import ADBCInstrumentor
from support.spans import Spans, follows_the_table

sqlite = pytest.importorskip("adbc_driver_sqlite.dbapi")
manager = pytest.importorskip("adbc_driver_manager")


def sqlite_driver() -> str:
    path: str = importlib.import_module("adbc_driver_sqlite")._driver_path()
    return path


@pytest.fixture(autouse=True)
def instrumented(spans: Spans) -> Iterator[None]:
    ADBCInstrumentor().instrument(tracer_provider=spans.tracer_provider, meter_provider=spans.meter_provider)
    yield
    ADBCInstrumentor().uninstrument()


def test_connecting_is_a_span(spans: Spans) -> None:
    sqlite.connect().close()
    assert spans.names == ["CONNECT"]
    follows_the_table(spans.one.name, spans.one.attributes)
    assert spans.one.attributes["db.system.name"] == "sqlite"
    (duration,) = spans.points("db.client.operation.duration")
    assert duration.attributes["db.operation.name"] == "CONNECT"


def test_connecting_takes_the_time_that_the_database_takes_where_both_are_made_at_once(spans: Spans) -> None:
    with spans.tracer().start_as_current_span("request") as request:
        database = manager.AdbcDatabase(driver=sqlite_driver())
        made_at = time.time_ns()
        connections = [manager.AdbcConnection(database) for _ in range(2)]
    for connection in connections:
        connection.close()
    database.close()
    first, second, _ = spans.all
    assert request.start_time <= first.start_time < made_at < first.end_time <= second.start_time
    assert first.parent.span_id == request.get_span_context().span_id


def test_a_connection_that_fails_is_an_error(spans: Spans) -> None:
    with pytest.raises(Exception, match="failed to open"):
        sqlite.connect("file:/nowhere/secret.db?mode=ro")
    assert spans.one.status.status_code is StatusCode.ERROR
    follows_the_table(spans.one.name, spans.one.attributes, failed=True)
    assert "secret" not in spans.one.to_json()


def test_a_database_that_fails_is_an_error(spans: Spans) -> None:
    with pytest.raises(manager.Error):
        manager.dbapi.connect(driver="/nowhere/libadbc_driver_none.so", uri="x://db.example:47/shop")
    assert spans.one.attributes["db.operation.name"] == "CONNECT"
    assert (spans.one.attributes["server.address"], spans.one.attributes["server.port"]) == ("db.example", 47)
    assert spans.one.name == "CONNECT shop"
    assert spans.one.status.status_code is StatusCode.ERROR


def test_statements_tell_where_the_database_is(spans: Spans) -> None:
    database = manager.AdbcDatabase(driver=sqlite_driver())
    database._adbc_telemetry_place = database._adbc_telemetry_place._replace(address="db.example", port=47)
    with manager.dbapi.Connection(database, manager.AdbcConnection(database)) as connection:
        connection.commit()
    told: dict[str, Any] = dict(spans.all[-1].attributes)
    assert (told["server.address"], told["server.port"]) == ("db.example", 47)


def test_the_classes_pass_for_the_driver_manager_s_own(spans: Spans) -> None:
    ADBCInstrumentor().uninstrument()
    own = manager.AdbcDatabase, manager.AdbcConnection
    before = sqlite.connect()
    ADBCInstrumentor().instrument(tracer_provider=spans.tracer_provider)
    after = sqlite.connect()
    for connection in (before, after):
        assert isinstance(connection.adbc_database, manager.AdbcDatabase)
        assert isinstance(connection.adbc_connection, manager.AdbcConnection)
        assert isinstance(connection.adbc_database, own[0])
        assert type(connection.adbc_connection).__name__ == "AdbcConnection"
        connection.close()


def test_a_database_that_was_made_before_is_connected_to_with_a_span(spans: Spans) -> None:
    ADBCInstrumentor().uninstrument()
    database = manager.AdbcDatabase(driver=sqlite_driver())
    ADBCInstrumentor().instrument(tracer_provider=spans.tracer_provider)
    manager.dbapi.Connection(database, manager.AdbcConnection(database)).close()
    assert spans.one.attributes["db.system.name"] == "sqlite"


def test_no_option_of_a_database_is_kept(spans: Spans) -> None:
    with sqlite.connect("file:secret?mode=memory") as connection:
        assert "secret" not in repr(vars(connection.adbc_database))
