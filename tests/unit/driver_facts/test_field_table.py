"""The table of the wire's fields: a row for each, what it says is what happens, and the page shows it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest

from adbc_telemetry import ConnectionTelemetry, TelemetryConfiguration, instrument
from adbc_telemetry.context import internal_calls
from adbc_telemetry.driver_facts.connection_parameters import AllowedField
from adbc_telemetry.driver_facts.field_table import FIELD_TABLE, Filler
from adbc_telemetry.schema import (
    ExecutionResultFormat,
    OperationType,
    StatementType,
    VolumeOperationType,
)
from support.field_docs import PAGE, TABLES
from support.mapping import between_marks
from support.server import TelemetryServer
from support.wire import ENUMS, FIELDS, WIRE, parse_strictly

FILLED = {(message, field) for message, rows in FIELD_TABLE.items() for field, row in rows.items() if row.by}
CONFIG = TelemetryConfiguration(enabled=True)


def auth() -> dict[str, str]:
    return {"Authorization": "Bearer token"}


def by(*fillers: Filler) -> set[tuple[str, str]]:
    return {
        (message, field) for message, field in FILLED if set(fillers) & set(FIELD_TABLE[message][field].by)
    }


# The table


def test_each_of_the_95_fields_has_a_row_and_each_row_a_field() -> None:
    assert len(FIELDS) == 95
    assert {(message, field) for message, rows in FIELD_TABLE.items() for field in rows} == set(FIELDS)


def test_a_field_without_a_row_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WIRE["messages"]["HostDetails"], "newer", {"number": 4, "type": "string"})
    with pytest.raises(KeyError, match="newer"):
        TABLES["fields"]()


@pytest.mark.parametrize(("message", "field"), FIELDS)
def test_a_row_has_a_sound_example_or_says_why_there_is_none(message: str, field: str) -> None:
    row, kind = FIELD_TABLE[message][field], WIRE["messages"][message][field]["type"]
    assert row.source
    if not row.by:
        assert row.example is None
        assert row.source.startswith("never: ")
    elif kind in FIELD_TABLE:
        assert row.example is None
    elif kind in ENUMS:
        assert row.example in ENUMS[kind].__members__
    else:
        types = {"string": str, "bool": bool, "repeated string": list}
        assert type(row.example) is types.get(kind, int)


@pytest.mark.parametrize("name", TABLES)
def test_the_page_shows_the_tables_of_the_code(name: str) -> None:
    make: Callable[[], str] = TABLES[name]
    assert between_marks(PAGE.read_text(encoding="utf-8"), name) == make(), (
        "run: PYTHONPATH=tests python tests/support/field_docs.py"
    )


def test_the_examples_of_the_page_run() -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, PAGE.name, "exec"), {"__name__": "example"})


# The wire


def fields_in(log: dict[str, Any], message: str = "OssSqlDriverTelemetryLog") -> Iterator[tuple[str, str]]:
    """The message and the name of each field that stands in a log."""
    for field, value in log.items():
        yield message, field
        kind = WIRE["messages"][message][field]["type"]
        if kind in FIELD_TABLE:
            yield from fields_in(value, kind)


def seen(server: TelemetryServer) -> set[tuple[str, str]]:
    logs = [log["entry"]["sql_driver_log"] for request in server.requests for log in request.logs]
    for log in logs:
        parse_strictly(log)
    return {field for log in logs for field in fields_in(log)}


def use_instrumented(server: TelemetryServer) -> None:
    dbapi = pytest.importorskip("adbc_driver_sqlite.dbapi")
    connection = instrument(
        dbapi.connect(),
        server.url,
        auth=auth,
        config=CONFIG,
        auth_type="none",
        client_app_name="nightly-report",
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("select 1")
        cursor.fetchall()
        with pytest.raises(dbapi.Error):
            cursor.execute("selekt")


def every_property() -> dict[str, Any]:
    """Each field of the connection's parameters under its own name, with the table's example."""
    rows = FIELD_TABLE["DriverConnectionParameters"]
    examples = {field: row.example for field, row in rows.items() if row.example is not None}
    never = {field: "secret" for field, row in rows.items() if not row.by}
    hosts = {"host_info": "https://host.example:443", "cf_proxy_host_info": "https://proxy.example:80"}
    proxy = {"adbc.proxy_options.proxy_host": "proxy.example", "adbc.proxy_options.proxy_auth": "true"}
    return {**examples, **never, **hosts, **proxy, "adbc.proxy_options.proxy_port": "8080"}


def a_connection(server: TelemetryServer) -> ConnectionTelemetry:
    return ConnectionTelemetry.create(
        {**every_property(), "adbc.databricks.telemetry.enabled": "true"},
        driver_name="a driver",
        driver_version="1.0",
        host=server.url,
        auth=auth,
        session_id="01ef-5b7c",
        client_app_name="nightly-report",
        default_result_format=ExecutionResultFormat.INLINE_ARROW,
        default_compression_enabled=False,
        allowed=get_args(AllowedField),
    )


def use_a_connection(server: TelemetryServer) -> None:
    with a_connection(server) as telemetry:
        statement = telemetry.statement(statement_type=StatementType.QUERY)
        statement.record_execute_complete()
        statement.record_results_consumed()
        statement.emit()
        telemetry.record_operation(OperationType.CLOSE_STATEMENT, 3, error=TimeoutError())


def use_a_driver(server: TelemetryServer) -> None:
    with a_connection(server) as telemetry, internal_calls():
        statement = telemetry.statement(statement_type=StatementType.VOLUME)
        statement.volume_operation = VolumeOperationType.GET
        statement.chunk_id = 3
        statement.record_retry()
        statement.record_poll(12)
        statement.record_execute_complete()
        statement.record_reader(
            result_format=ExecutionResultFormat.EXTERNAL_LINKS, is_compressed=True, total_chunks_present=3
        )
        statement.record_chunk(12)
        statement.record_first_batch_ready()
        statement.record_results_consumed()
        statement.record_error(TimeoutError())
        statement.emit()


def test_what_instrumentation_sends_is_what_the_table_says(server: TelemetryServer) -> None:
    use_instrumented(server)
    others = {("DriverConnectionParameters", name) for name in ("auth_mech", "auth_flow")}
    others.add(("DriverConnectionParameters", "allow_self_signed_support"))  # of drivers that need a server
    assert by(Filler.INSTRUMENT) - others <= seen(server) <= by(Filler.INSTRUMENT)


def test_what_a_connection_sends_is_what_the_table_says(server: TelemetryServer) -> None:
    use_a_connection(server)
    assert seen(server) == by(Filler.CONNECTION)


def test_each_field_that_is_filled_is_seen_on_the_wire_and_no_other_is(server: TelemetryServer) -> None:
    use_a_connection(server)
    use_a_driver(server)
    assert seen(server) == FILLED
    assert not any(b"secret" in request.body for request in server.requests)
