"""A driver is told which span its own spans belong to: on whatever takes it, and asked once per driver."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, TraceFlags

from adbc_telemetry.otel.trace_parent import OPTION, TraceParent, traceparent

_numbers = itertools.count()

SPAN = SpanContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA01C902B7, False, TraceFlags(1))
OTHER = SpanContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA01C902B8, False, TraceFlags(0))


class Handle:
    """A statement or a connection of ADBC's, which takes the option or refuses it."""

    def __init__(self, takes: bool) -> None:
        self.takes = takes
        self.told: list[str] = []

    def set_options(self, **options: str) -> None:
        self.told.append(options[OPTION])
        if not self.takes:
            raise NotImplementedError(OPTION)


class Connection:
    def __init__(self, takes: bool) -> None:
        self.adbc_connection = Handle(takes)


class Cursor:
    def __init__(self, connection: Connection, takes: bool) -> None:
        self.connection = connection
        self.adbc_statement = Handle(takes)


@pytest.fixture
def parent() -> TraceParent:
    return TraceParent(f"driver {next(_numbers)}")


def test_it_is_written_as_the_w3c_has_it() -> None:
    assert traceparent(SPAN) == "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa01c902b7-01"
    assert traceparent(OTHER).endswith("-00")
    assert traceparent(INVALID_SPAN_CONTEXT) == ""


def test_a_statement_that_takes_it_is_told_and_its_connection_is_not(parent: TraceParent) -> None:
    cursor = Cursor(Connection(True), True)
    parent.tell(SPAN, cursor)
    parent.tell(OTHER, cursor)
    assert cursor.adbc_statement.told == [traceparent(SPAN), traceparent(OTHER)]
    assert cursor.connection.adbc_connection.told == []


def test_a_connection_is_told_where_statements_refuse(parent: TraceParent) -> None:
    connection = Connection(True)
    for span in (SPAN, OTHER):
        cursor = Cursor(connection, False)
        parent.tell(span, cursor)
        assert len(cursor.adbc_statement.told) == (span is SPAN)
    assert connection.adbc_connection.told == [traceparent(SPAN), traceparent(OTHER)]
    assert parent.is_wanted


def test_a_driver_that_refuses_both_is_asked_once_for_all_its_connections(parent: TraceParent) -> None:
    connection = Connection(False)
    parent.tell(SPAN, Cursor(connection, False))
    assert not parent.is_wanted
    again = TraceParent(parent._driver)
    assert not again.is_wanted
    again.tell(SPAN, Cursor(connection, False))
    assert connection.adbc_connection.told == [traceparent(SPAN)]


def test_a_call_that_belongs_to_no_span_makes_the_connection_forget(parent: TraceParent) -> None:
    connection = Connection(True)
    parent.tell(INVALID_SPAN_CONTEXT, connection)
    assert connection.adbc_connection.told == []
    parent.tell(SPAN, connection)
    parent.tell(INVALID_SPAN_CONTEXT, connection)
    parent.tell(INVALID_SPAN_CONTEXT, connection)
    assert connection.adbc_connection.told == [traceparent(SPAN), ""]


def test_a_driver_that_knows_nothing_of_it_notices_nothing(raw: Any, spans: Any, caplog: Any) -> None:
    connection = spans.follow(raw)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchall() == [(1,)]
    assert spans.names == ["SELECT"]
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []
