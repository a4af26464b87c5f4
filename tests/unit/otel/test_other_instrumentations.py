"""OpenTelemetry's own instrumentations on the same connection: no statement has two spans, and nothing breaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.instrumentation.dbapi import instrument_connection

from adbc_telemetry import (
    InMemoryTelemetryExporter,
    TelemetryClient,
    TelemetryConfiguration,
    instrument,
)
from adbc_telemetry.otel import ADBCInstrumentor
from adbc_telemetry.schema import TelemetryFrontendLog
from support.server import Reply, TelemetryServer
from support.spans import Spans

SELECT = "SELECT 1 AS n UNION ALL SELECT 2"


@pytest.mark.parametrize("ours_first", [True, False])
def test_dbapi_around_ours_makes_the_one_span_of_the_statement(
    ours_first: bool, raw: Any, spans: Spans
) -> None:
    def theirs(connection: Any) -> Any:
        return instrument_connection("theirs", connection, "sqlite", tracer_provider=spans.tracer_provider)

    connection = theirs(spans.follow(raw)) if ours_first else spans.follow(theirs(raw))
    with spans.tracer().start_as_current_span("request"):
        cursor = connection.cursor()
        cursor.execute(SELECT)
        assert cursor.fetchall() == [(1,), (2,)]
        cursor.close()
        connection.commit()
    assert [(span.name, span.instrumentation_scope.name) for span in spans.all] == [
        ("SELECT", "theirs"),
        ("COMMIT main", "adbc_telemetry.otel"),
        ("request", "the program"),
    ]
    # It is measured, since theirs follows the old conventions, which have no metrics.
    rows = spans.points("db.client.response.returned_rows")
    assert [point.sum for point in rows] == [2]


def test_under_dbapi_ours_can_be_undone_and_events_recorded(raw: Any, spans: Spans) -> None:
    kind = type(raw)
    connection = instrument_connection("theirs", raw, "sqlite", tracer_provider=spans.tracer_provider)
    assert ADBCInstrumentor.uninstrument_connection(spans.follow(connection)) is connection
    assert type(raw) is kind
    exporter = InMemoryTelemetryExporter()
    assert instrument(connection, exporter=exporter) is connection
    with connection.cursor() as cursor:
        cursor.execute(SELECT)
        assert cursor.fetchall() == [(1,), (2,)]
    connection.close()
    assert len(exporter.logs) == 3
    assert spans.names == ["SELECT"]


def test_a_failure_under_dbapi_is_theirs_to_tell(raw: Any, spans: Spans) -> None:
    connection = instrument_connection(
        "theirs", spans.follow(raw), "sqlite", tracer_provider=spans.tracer_provider
    )
    with connection.cursor() as cursor, pytest.raises(Exception, match="no such table"):
        cursor.execute("SELECT * FROM missing")
    assert [span.instrumentation_scope.name for span in spans.all] == ["theirs"]
    (duration,) = spans.points("db.client.operation.duration")
    assert duration.attributes["error.type"] == "adbc_driver_manager.ProgrammingError"


def test_a_client_span_of_something_else_is_a_parent(raw: Any, spans: Spans) -> None:
    from opentelemetry.trace import SpanKind

    with (
        spans.tracer().start_as_current_span("a call", kind=SpanKind.CLIENT),
        spans.follow(raw).cursor() as cursor,
    ):
        cursor.execute(SELECT)
        cursor.fetchall()
    assert spans.names == ["SELECT", "a call"]


@pytest.fixture
def engine(spans: Spans) -> Iterator[Any]:
    pytest.importorskip("sqlalchemy")
    sqlite = pytest.importorskip("adbc_driver_sqlite.dbapi")
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

    from support.sqlalchemy_over_adbc import over_adbc

    engine = over_adbc(lambda: spans.follow(sqlite.connect()))
    yield engine
    engine.dispose()
    if SQLAlchemyInstrumentor().is_instrumented_by_opentelemetry:
        SQLAlchemyInstrumentor().uninstrument()


@pytest.mark.parametrize("theirs", [False, True])
def test_a_statement_of_sqlalchemy_has_one_span(theirs: bool, engine: Any, spans: Spans) -> None:
    import sqlalchemy
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

    if theirs:
        # Its check knows no SQLAlchemy 2.1 yet.
        providers = {"tracer_provider": spans.tracer_provider, "skip_dep_check": True}
        SQLAlchemyInstrumentor().instrument(engine=engine, **providers)
    with engine.connect() as connection:
        spans.clear()
        assert connection.execute(sqlalchemy.text(SELECT)).fetchall() == [(1,), (2,)]
    scopes = [span.instrumentation_scope.name for span in spans.all if span.name.startswith("SELECT")]
    assert scopes == ["opentelemetry.instrumentation.sqlalchemy" if theirs else "adbc_telemetry.otel"]


def test_our_own_requests_make_no_spans(spans: Spans) -> None:
    from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor

    URLLib3Instrumentor().instrument(tracer_provider=spans.tracer_provider)
    try:
        with TelemetryServer() as server:
            import urllib3

            server.replies.append(Reply(status=404))
            urllib3.request("GET", server.url)
            assert spans.names == ["GET"]
            config = TelemetryConfiguration(enabled=True, flush_interval_ms=60_000)
            with TelemetryClient(server.url, config) as client:
                client.enqueue(TelemetryFrontendLog(frontend_log_event_id="an event"))
                assert client.flush(10)
            assert server.accepted == ["an event"]
    finally:
        URLLib3Instrumentor().uninstrument()
    assert spans.names == ["GET"]
