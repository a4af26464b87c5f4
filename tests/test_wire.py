"""The wire: what is sent parses, strictly, with protobuf's own JSON parser, field by field."""

from __future__ import annotations

import enum
import itertools
import json
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from adbc_telemetry import StatementTelemetryContext, TelemetrySessionContext, schema
from adbc_telemetry.encoding import LogEncoder, SessionPart, escaped, request_body, split_strings
from adbc_telemetry.ids import next_number
from adbc_telemetry.statement import LoggedStatement, StatementRecord

WIRE: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "wire-schema.json").read_text())
FIELDS = [(message, name) for message, fields in WIRE["messages"].items() for name in fields]
ENUMS = {
    "DriverMode.Type": schema.DriverMode,
    "Statement.Type": schema.StatementType,
    "Operation.Type": schema.OperationType,
    "ExecutionResult.Format": schema.ExecutionResultFormat,
    "VolumeOperation.Type": schema.VolumeOperationType,
    "DriverProxy.Auth": schema.DriverProxyAuth,
    "DriverAuthMech.Type": schema.DriverAuthMech,
    "DriverAuthFlow.Type": schema.DriverAuthFlow,
}
SCALARS = {"string": 9, "int64": 3, "int32": 5, "bool": 8}


def _build_pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="telemetry.proto", package="logging", syntax="proto2")
    for full_name, values in WIRE["enums"].items():
        holder, kind = full_name.split(".")
        nested = file.message_type.add(name=holder).enum_type.add(name=kind)
        for name, number in values.items():
            nested.value.add(name=name, number=number)
    for name, fields in WIRE["messages"].items():
        message = file.message_type.add(name=name)
        for field_name, facts in fields.items():
            kind = facts["type"].removeprefix("repeated ")
            field = message.field.add(name=field_name, number=facts["number"])
            field.label = 3 if facts["type"].startswith("repeated ") else 1
            if kind in SCALARS:
                field.type = SCALARS[kind]
            else:
                field.type = 14 if kind in WIRE["enums"] else 11
                field.type_name = f".logging.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


POOL = _build_pool()
SqlDriverLog = message_factory.GetMessageClass(POOL.FindMessageTypeByName("logging.OssSqlDriverTelemetryLog"))


def parse_strictly(sql_driver_log: Any) -> Any:
    return json_format.Parse(json.dumps(sql_driver_log), SqlDriverLog(), ignore_unknown_fields=False)


def filled(message: str, numbers: typing.Iterator[int]) -> Any:
    """The struct of a message with a distinct value in every field."""
    values = {name: _value(facts["type"], numbers) for name, facts in WIRE["messages"][message].items()}
    return getattr(schema, message)(**values)


def _value(kind: str, numbers: typing.Iterator[int]) -> Any:
    number = next(numbers)
    if kind in ENUMS:
        return list(ENUMS[kind])[number % (len(ENUMS[kind]) - 1) + 1]
    if kind in WIRE["messages"]:
        return filled(kind, numbers)
    if kind == "bool":
        return number % 2 == 0
    if kind == "string":
        return f'text {number} "\\ \n é 漢 😀'
    if kind == "repeated string":
        return [f"first {number}", f"second {number}"]
    return number + (2**53 if kind == "int64" else 2**30)


def assert_equal_fields(struct: Any, parsed: Any, seen: set[tuple[str, str]]) -> None:
    for name in struct.__struct_fields__:
        seen.add((type(struct).__name__, name))
        mine, theirs = getattr(struct, name), getattr(parsed, name)
        if isinstance(mine, msgspec.Struct):
            assert parsed.HasField(name)
            assert_equal_fields(mine, theirs, seen)
        elif isinstance(mine, enum.Enum):
            field = parsed.DESCRIPTOR.fields_by_name[name]
            assert field.enum_type.values_by_number[theirs].name == mine.value
        elif isinstance(mine, list):
            assert list(theirs) == mine
        else:
            assert parsed.HasField(name)
            assert theirs == mine


def sent(log: schema.TelemetryFrontendLog) -> Any:
    """The log as a server reads it out of a request."""
    body = request_body([escaped(LogEncoder().encode(log))], 1)
    (text,) = json.loads(body)["protoLogs"]
    return json.loads(text)


def test_there_are_95_fields() -> None:
    assert len(FIELDS) == 95


@pytest.mark.parametrize("name", WIRE["messages"])
def test_each_message_has_a_struct_of_its_own_name_with_its_fields_in_order(name: str) -> None:
    assert list(getattr(schema, name).__struct_fields__) == list(WIRE["messages"][name])


@pytest.mark.parametrize("name", ENUMS)
def test_each_enum_has_its_members_and_they_travel_by_name(name: str) -> None:
    assert [member.value for member in ENUMS[name]] == list(WIRE["enums"][name])
    assert [member.name for member in ENUMS[name]] == list(WIRE["enums"][name])


def test_all_fields_filled_with_distinct_values_arrive_one_by_one() -> None:
    log = filled("OssSqlDriverTelemetryLog", itertools.count(1))
    received = sent(
        schema.TelemetryFrontendLog(
            workspace_id=2**62,
            frontend_log_event_id="id",
            context=schema.FrontendLogContext(
                client_context=schema.TelemetryClientContext(timestamp_millis=17, user_agent="agent")
            ),
            entry=schema.FrontendLogEntry(sql_driver_log=log),
        )
    )
    assert received["workspace_id"] == 2**62
    assert received["frontend_log_event_id"] == "id"
    assert received["context"] == {"client_context": {"timestamp_millis": 17, "user_agent": "agent"}}
    seen: set[tuple[str, str]] = set()
    assert_equal_fields(log, parse_strictly(received["entry"]["sql_driver_log"]), seen)
    assert seen == set(FIELDS)


def test_absent_values_are_left_out_and_never_null() -> None:
    log = schema.TelemetryFrontendLog(
        entry=schema.FrontendLogEntry(sql_driver_log=schema.OssSqlDriverTelemetryLog(session_id="s"))
    )
    assert LogEncoder().encode(log) == b'{"entry":{"sql_driver_log":{"session_id":"s"}}}'


def test_zero_and_false_and_the_empty_text_are_values() -> None:
    operation = schema.OperationDetail(n_operation_status_calls=0, is_internal_call=False)
    log = schema.OssSqlDriverTelemetryLog(
        session_id="",
        operation_latency_ms=0,
        sql_operation=schema.SqlExecutionEvent(operation_detail=operation),
    )
    received = sent(schema.TelemetryFrontendLog(entry=schema.FrontendLogEntry(sql_driver_log=log)))
    parsed = parse_strictly(received["entry"]["sql_driver_log"])
    assert parsed.HasField("session_id")
    assert parsed.HasField("operation_latency_ms")
    assert parsed.sql_operation.operation_detail.HasField("n_operation_status_calls")
    assert parsed.sql_operation.operation_detail.HasField("is_internal_call")


def test_the_request_is_this_to_the_byte() -> None:
    log = schema.TelemetryFrontendLog(frontend_log_event_id='a"b\\c\nd')
    strings = LogEncoder().encode_strings([log, log])
    assert request_body([string for string in strings if string is not None], 1_764_000_000_000) == (
        b'{"uploadTime":1764000000000,"items":[],"protoLogs":['
        b'"{\\"frontend_log_event_id\\":\\"a\\\\\\"b\\\\\\\\c\\\\nd\\"}",'
        b'"{\\"frontend_log_event_id\\":\\"a\\\\\\"b\\\\\\\\c\\\\nd\\"}"]}'
    )
    assert request_body([], 7) == b'{"uploadTime":7,"items":[],"protoLogs":[]}'


def test_the_request_decodes_as_the_schema_s_own_struct() -> None:
    request = msgspec.json.decode(request_body([b"{}"], 5), type=schema.TelemetryRequest)
    assert request == schema.TelemetryRequest(uploadTime=5, items=[], protoLogs=["{}"])


def _messages() -> st.SearchStrategy[Any]:
    text = st.text(st.characters(codec="utf-8"), max_size=20)
    by_kind: dict[str, st.SearchStrategy[Any]] = {
        "string": text,
        "repeated string": st.lists(text, max_size=3),
        "bool": st.booleans(),
        "int32": st.integers(-(2**31), 2**31 - 1),
        "int64": st.integers(-(2**63), 2**63 - 1),
        **{name: st.sampled_from(list(members)) for name, members in ENUMS.items()},
    }

    def build(message: str) -> st.SearchStrategy[Any]:
        fields = {
            name: st.none() | (by_kind[facts["type"]] if facts["type"] in by_kind else build(facts["type"]))
            for name, facts in WIRE["messages"][message].items()
        }
        return st.builds(getattr(schema, message), **fields)

    return build("OssSqlDriverTelemetryLog")


@settings(max_examples=150)
@given(st.lists(_messages(), min_size=1, max_size=4), st.integers(0, 2**53))
def test_any_event_with_any_text_parses_strictly(logs: list[Any], upload_time: int) -> None:
    encoder = LogEncoder()
    strings = encoder.encode_strings(
        [schema.TelemetryFrontendLog(entry=schema.FrontendLogEntry(sql_driver_log=log)) for log in logs]
    )
    request = json.loads(request_body([string for string in strings if string is not None], upload_time))
    assert request["uploadTime"] == upload_time
    assert len(request["protoLogs"]) == len(logs)
    for log, text in zip(logs, request["protoLogs"], strict=True):
        received = json.loads(text)["entry"]["sql_driver_log"]
        parsed = parse_strictly(received)
        assert_same(log, parsed)


def assert_same(struct: Any, parsed: Any) -> None:
    for name in struct.__struct_fields__:
        mine = getattr(struct, name)
        if isinstance(mine, list):
            assert list(getattr(parsed, name)) == mine
        elif mine is None:
            field = parsed.DESCRIPTOR.fields_by_name[name]
            assert not getattr(parsed, name) if field.is_repeated else not parsed.HasField(name)
        elif isinstance(mine, msgspec.Struct):
            assert_same(mine, getattr(parsed, name))
        elif isinstance(mine, enum.Enum):
            field = parsed.DESCRIPTOR.fields_by_name[name]
            assert field.enum_type.values_by_number[getattr(parsed, name)].name == mine.value
        else:
            assert getattr(parsed, name) == mine


def test_the_parts_of_a_session_are_encoded_once() -> None:
    encoder = LogEncoder()
    calls: list[object] = []
    real = encoder._encoder

    class Counting:
        def encode(self, value: object) -> bytes:
            calls.append(value)
            return real.encode(value)

        def encode_lines(self, values: object) -> bytes:
            return real.encode_lines(values)

    encoder._encoder = Counting()  # type: ignore[assignment]
    system = schema.DriverSystemConfiguration(driver_name="d")
    params = schema.DriverConnectionParameters(http_path="p")
    log = schema.OssSqlDriverTelemetryLog(system_configuration=system, driver_connection_params=params)
    lines = encoder.encode_lines(
        [schema.TelemetryFrontendLog(entry=schema.FrontendLogEntry(sql_driver_log=log)) for _ in range(50)]
    )
    assert calls == [system, params]
    assert all(json.loads(line or b"") == json.loads(lines[0] or b"") for line in lines)
    assert json.loads(lines[0] or b"")["entry"]["sql_driver_log"]["system_configuration"] == {
        "driver_name": "d"
    }


def test_more_sessions_than_are_remembered_are_still_told_apart() -> None:
    encoder = LogEncoder()
    for number in range(3000):
        system = schema.DriverSystemConfiguration(driver_name=str(number))
        log = schema.OssSqlDriverTelemetryLog(system_configuration=system)
        line = encoder.encode(schema.TelemetryFrontendLog(entry=schema.FrontendLogEntry(sql_driver_log=log)))
        assert f'"driver_name":"{number}"'.encode() in line
    assert len(encoder._shared) <= 2048


def test_a_lone_surrogate_costs_a_character_and_not_the_event() -> None:
    log = schema.TelemetryFrontendLog(frontend_log_event_id="a\ud800b")
    assert json.loads(LogEncoder().encode(log)) == {"frontend_log_event_id": "a\ufffdb"}


def test_what_cannot_be_encoded_takes_no_other_with_it() -> None:
    good = schema.TelemetryFrontendLog(frontend_log_event_id="good")
    bad = schema.TelemetryFrontendLog(workspace_id=object())  # type: ignore[arg-type]
    lines = LogEncoder().encode_lines([good, bad, "no log", good])  # type: ignore[list-item]
    assert [line is None for line in lines] == [False, True, True, False]


@settings(max_examples=200)
@given(
    st.lists(st.text(st.characters(codec="utf-8", categories=["L", "P", "Zs"]), max_size=60), max_size=20),
    st.integers(60, 400),
)
def test_requests_are_split_in_order_below_the_limit(texts: list[str], limit: int) -> None:
    strings = [escaped(msgspec.json.encode({"t": text})) for text in texts]
    runs = list(split_strings(strings, limit))
    assert [string for run in runs for string in run] == strings
    for run in runs:
        assert len(run) == 1 or len(request_body(run, 1_764_000_000_000)) <= limit
    for run, following in itertools.pairwise(runs):  # none is shorter than it need be
        assert len(request_body([*run, following[0]], 1_764_000_000_000)) > limit


# Statements, which become strings of a request without being logs in between.

_ENCODER = LogEncoder()  # of all examples, so that each meets the templates of all before it

_TEXT = st.none() | st.text(st.characters(codec="utf-8"), max_size=20)
# An exception's class may have any name: what looks like a format, too.
_ERROR = st.sampled_from([ValueError, *(type(name, (Exception,), {}) for name in ("a%db", "%", 'q"\\', "é"))])
_LATENCY = st.floats(0, 1e9) | st.integers(0, 2**40)


@st.composite
def _statements(draw: st.DrawFn) -> StatementTelemetryContext:
    session = TelemetrySessionContext(
        session_id=draw(_TEXT),
        workspace_id=draw(st.none() | st.integers(-(2**63), 2**63 - 1)),
        auth_type=draw(_TEXT),
        system_configuration=draw(st.none() | st.builds(schema.DriverSystemConfiguration, driver_name=_TEXT)),
        driver_connection_params=draw(
            st.none()
            | st.builds(schema.DriverConnectionParameters, http_path=_TEXT, auto_commit=st.booleans())
        ),
        default_compression_enabled=draw(st.none() | st.booleans()),
        user_agent=draw(_TEXT),
    )
    statement = StatementTelemetryContext(
        session,
        statement_type=draw(st.none() | st.sampled_from(schema.StatementType)),
        operation_type=draw(st.none() | st.sampled_from(schema.OperationType)),
        result_format=draw(st.none() | st.sampled_from(schema.ExecutionResultFormat)),
        is_internal_call=draw(st.booleans()),
    )
    statement.retry_count = draw(st.none() | st.integers(-(2**31), 2**31 - 1))
    if draw(st.booleans()):
        statement.statement_id = draw(st.text(st.characters(codec="utf-8"), max_size=20))
    for record in draw(
        st.lists(
            st.sampled_from(
                ["execute_complete", "first_batch_ready", "results_consumed", "poll", "chunk", "error"]
            )
        )
    ):
        arguments = {"poll": [draw(_LATENCY)], "chunk": [draw(_LATENCY)], "error": [draw(_ERROR)()]}
        getattr(statement, f"record_{record}")(*arguments.get(record, []))
    if draw(st.booleans()):
        statement.set_chunk_details(total_chunks_present=draw(st.none() | st.integers(0, 2**31 - 1)))
    statement.emit()
    return statement


@st.composite
def _records(draw: st.DrawFn) -> StatementRecord:
    """As instrumentation makes them."""
    context = draw(_statements())
    start = draw(st.integers(1, 2**50))
    times = [start + draw(st.integers(0, 10**12)) for _ in range(4)]
    return StatementRecord(
        context.session,
        next_number(),
        context.statement_type,
        context.operation_type,
        context.result_format,
        context.is_compressed,
        draw(st.none() | _ERROR.map(lambda error: error.__name__)),
        start,
        *(draw(st.none() | st.just(each)) for each in times[:3]),
        times[3],
        draw(st.integers(10**18, 2**62)),
    )


@settings(max_examples=300)
@given(st.lists(_statements() | _records() | _messages(), min_size=1, max_size=5))
def test_a_statement_goes_out_as_its_log_would(things: list[Any]) -> None:
    events = [
        thing
        if isinstance(thing, LoggedStatement)
        else schema.TelemetryFrontendLog(entry=schema.FrontendLogEntry(sql_driver_log=thing))
        for thing in things
    ]
    strings = _ENCODER.encode_strings(events)
    request = json.loads(request_body([string for string in strings if string is not None], 1))
    assert len(request["protoLogs"]) == len(events)
    for event, text in zip(events, request["protoLogs"], strict=True):
        log = event.frontend_log() if isinstance(event, LoggedStatement) else event
        received = json.loads(text)
        assert received == json.loads(LogEncoder().encode(log))
        assert_same(log.entry.sql_driver_log, parse_strictly(received["entry"]["sql_driver_log"]))


_FACTS: dict[str, Callable[[StatementTelemetryContext], object]] = {
    "none": lambda statement: None,
    "poll": lambda statement: statement.record_poll(3),
    "chunk": lambda statement: statement.record_chunk(4),
    "ready": lambda statement: statement.record_execute_complete(),
    "first batch": lambda statement: statement.record_first_batch_ready(),
    "consumed": lambda statement: statement.record_results_consumed(),
    "error": lambda statement: statement.record_error(ValueError()),
    "another error": lambda statement: statement.record_error(KeyError()),
    "retries": lambda statement: setattr(statement, "retry_count", 0),
    "chunk id": lambda statement: setattr(statement, "chunk_id", 5),
    "compressed": lambda statement: setattr(statement, "is_compressed", True),
    "internal": lambda statement: setattr(statement, "is_internal_call", True),
    "type": lambda statement: setattr(statement, "statement_type", schema.StatementType.QUERY),
    "operation": lambda statement: setattr(
        statement, "operation_type", schema.OperationType.CANCEL_STATEMENT
    ),
    "format": lambda statement: setattr(
        statement, "result_format", schema.ExecutionResultFormat.INLINE_ARROW
    ),
    "its own id": lambda statement: setattr(statement, "statement_id", "01ef-5b7c"),
    "chunks told": lambda statement: statement.set_chunk_details(total_chunks_present=7),
}


@pytest.mark.parametrize("first", _FACTS)
def test_statements_that_differ_in_one_fact_are_not_told_alike(first: str) -> None:
    encoder, session = LogEncoder(), TelemetrySessionContext(session_id="s")
    for fact in (first, *_FACTS):
        statement = StatementTelemetryContext(session)
        _FACTS[fact](statement)
        statement.emit()
        (string,) = encoder.encode_strings([statement])
        (text,) = json.loads(request_body([string or b""], 1))["protoLogs"]
        assert json.loads(text) == json.loads(LogEncoder().encode(statement.frontend_log())), fact


def test_a_statement_that_cannot_be_encoded_takes_no_other_with_it() -> None:
    session = TelemetrySessionContext(session_id="s")
    good, odd, bad = (StatementTelemetryContext(session) for _ in range(3))
    odd.statement_id = "a\ud800b"
    bad.retry_count = object()  # type: ignore[assignment]
    for statement in (good, odd, bad):
        statement.emit()
    strings = LogEncoder().encode_strings([good, odd, bad, "no event", good])  # type: ignore[list-item]
    assert [string is None for string in strings] == [False, False, True, True, False]
    (_, text, _) = json.loads(request_body([string for string in strings if string is not None], 1))[
        "protoLogs"
    ]
    assert json.loads(text)["entry"]["sql_driver_log"]["sql_statement_id"] == "a\ufffdb"


def test_what_a_session_says_is_encoded_once() -> None:
    asked: list[str | None] = []

    class Counting(TelemetrySessionContext, frozen=True):
        def wire_part(self) -> SessionPart:
            asked.append(self.session_id)
            return super().wire_part()

    encoder = LogEncoder()
    for number in range(3000):
        session = Counting(session_id=str(number))
        for _ in range(3):
            statement = StatementTelemetryContext(session)
            statement.emit()
            (string,) = encoder.encode_strings([statement])
            assert string is not None
            assert f'\\"session_id\\":\\"{number}\\"'.encode() in string
    assert len(asked) == 3000
    assert len(encoder._sessions) <= 2048
