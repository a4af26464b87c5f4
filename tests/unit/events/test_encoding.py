"""The wire: what is sent parses, strictly, with protobuf's own JSON parser, field by field."""

from __future__ import annotations

import enum
import itertools
import json
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adbc_telemetry import schema
from adbc_telemetry.events.encoding import LogEncoder, escaped, request_body, split_strings
from support.wire import ENUMS, FIELDS, WIRE, assert_same, messages, parse_strictly


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
    members: list[enum.Enum] = list(ENUMS[name])
    assert [member.value for member in members] == list(WIRE["enums"][name])
    assert [member.name for member in members] == list(WIRE["enums"][name])


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


@settings(max_examples=150)
@given(st.lists(messages(), min_size=1, max_size=4), st.integers(0, 2**53))
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


def test_the_parts_of_a_session_are_encoded_once() -> None:
    encoder = LogEncoder()
    calls: list[object] = []
    real = encoder._encoder

    class Counting:
        def encode(self, value: object) -> bytes:
            calls.append(value)
            return real.encode(value)

        def encode_lines(self, values: Any) -> bytes:
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
