"""The wire: what is sent parses, strictly, with protobuf's own JSON parser, field by field."""

from __future__ import annotations

import enum
import itertools
import json
import typing
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from adbc_telemetry import StatementTelemetryContext, TelemetrySessionContext, schema
from adbc_telemetry.core.ids import next_number
from adbc_telemetry.events.encoding import LogEncoder, SessionPart, escaped, request_body, split_strings
from adbc_telemetry.events.statement import LoggedStatement, StatementRecord
from adbc_telemetry.testing import FakeClock

WIRE: dict[str, Any] = json.loads((Path(__file__).parents[2] / "data" / "wire-schema.json").read_text())
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


class Whole:
    """A whole number of another library."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


# What a driver may set a fact to by mistake: it is left out, unless it is right after all.
_ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        *("two", "SELECT secret FROM t", "QUERY", "THRIFT", "", "true", "a\ud800"),
        *(0, 1, -1, 2**63, -(2**63) - 1, 0.0, 1.0, 2.5, float("nan"), True, False, Decimal(2)),
        *(schema.DriverMode.SEA, schema.OperationType.TYPE_UNSPECIFIED, schema.VolumeOperationType.QUERY),
        *(b"x", (1, 2), [], {}, object(), object, Whole(7), Whole(2**63)),
    ]
)


@st.composite
def _statements(draw: st.DrawFn) -> StatementTelemetryContext:
    session = TelemetrySessionContext(
        session_id=draw(_TEXT | _ODD),
        workspace_id=draw(st.none() | st.integers(-(2**63), 2**63 - 1) | _ODD),
        auth_type=draw(_TEXT),
        system_configuration=draw(
            st.none() | st.builds(schema.DriverSystemConfiguration, driver_name=_TEXT | _ODD)
        ),
        driver_connection_params=draw(
            st.none()
            | st.builds(schema.DriverConnectionParameters, http_path=_TEXT, auto_commit=st.booleans())
        ),
        default_compression_enabled=draw(st.none() | st.booleans()),
        user_agent=draw(_TEXT),
    )
    statement = StatementTelemetryContext(
        session,
        statement_type=draw(st.none() | st.sampled_from(schema.StatementType) | _ODD),
        operation_type=draw(st.none() | st.sampled_from(schema.OperationType) | _ODD),
        result_format=draw(st.none() | st.sampled_from(schema.ExecutionResultFormat) | _ODD),
        is_internal_call=draw(st.booleans() | _ODD),
    )
    statement.retry_count = draw(st.none() | st.integers(-(2**63), 2**63 - 1) | _ODD)
    statement.chunk_id = draw(st.none() | st.integers(0, 2**63 - 1) | _ODD)
    if draw(st.booleans()):
        statement.is_compressed = draw(st.booleans() | _ODD)
    if draw(st.booleans()):
        statement.statement_id = draw(st.text(st.characters(codec="utf-8"), max_size=20) | st.none() | _ODD)
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
    facts = context.build_telemetry_log().sql_operation  # those of instrumentation are right
    assert facts is not None
    assert facts.operation_detail is not None
    start = draw(st.integers(1, 2**50))
    times = [start + draw(st.integers(0, 10**12)) for _ in range(4)]
    return StatementRecord(
        context.session,
        next_number(),
        facts.statement_type,
        facts.operation_detail.operation_type,
        facts.execution_result,
        facts.is_compressed,
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
        # A lone surrogate, which no UTF-8 can carry, has become another character.
        sent = log.entry.sql_driver_log if "\ufffd" not in text else decoded(received)
        assert_same(sent, parse_strictly(received["entry"]["sql_driver_log"]))


def decoded(log: Any) -> schema.OssSqlDriverTelemetryLog:
    return msgspec.convert(log["entry"]["sql_driver_log"], schema.OssSqlDriverTelemetryLog)


_WRONG: list[tuple[str, Any]] = [
    *[(name, value) for name in ("statement_type", "operation_type", "result_format")
      for value in ("SELECT secret FROM t", "", 7, True, schema.DriverMode.THRIFT, object(), [])],
    *[(name, value) for name in ("is_internal_call", "is_compressed") for value in ("yes", 1, 0.0, object(), [])],
    *[(name, value) for name in ("retry_count", "chunk_id")
      for value in ("two", "2", 2.0, True, 2**63, Decimal(2), object(), [])],
]  # fmt: skip
_PLACES = {
    "statement_type": "statement_type",
    "operation_type": "operation_detail.operation_type",
    "result_format": "execution_result",
    "is_internal_call": "operation_detail.is_internal_call",
    "is_compressed": "is_compressed",
    "retry_count": "retry_count",
    "chunk_id": "chunk_id",
}
_RIGHT: dict[str, Any] = {
    "statement_type": schema.StatementType.QUERY,
    "operation_type": schema.OperationType.EXECUTE_STATEMENT,
    "result_format": schema.ExecutionResultFormat.INLINE_ARROW,
    "is_internal_call": True,
    "is_compressed": True,
    "retry_count": 1,
    "chunk_id": 1,
}


def sent_facts(encoder: LogEncoder, **facts: Any) -> tuple[dict[str, Any], int]:
    """What is sent of a statement's facts, by their names, and how many errors its context counts."""
    statement = StatementTelemetryContext(TelemetrySessionContext(session_id="s"))
    for name, value in facts.items():
        setattr(statement, name, value)
    statement.emit()
    (string,) = encoder.encode_strings([statement])
    (text,) = json.loads(request_body([string or b""], 1))["protoLogs"]
    assert json.loads(text) == json.loads(LogEncoder().encode(statement.frontend_log()))
    log = json.loads(text)["entry"]["sql_driver_log"]
    parse_strictly(log)
    operation = log["sql_operation"]
    flat = {
        **operation,
        **{f"operation_detail.{key}": each for key, each in operation["operation_detail"].items()},
    }
    return {name: flat[place] for name, place in _PLACES.items() if place in flat}, statement.errors


@pytest.mark.parametrize(("name", "wrong"), _WRONG, ids=lambda value: repr(value)[:20])
def test_a_fact_of_the_wrong_type_is_left_out_and_counted_and_costs_nothing_else(
    name: str, wrong: Any
) -> None:
    encoder = LogEncoder()
    right, no_errors = sent_facts(encoder, **_RIGHT)
    assert (set(right), no_errors) == (set(_PLACES), 0)
    without = {key: value for key, value in right.items() if key != name}
    for _ in range(2):  # neither learns from the other how it is written
        assert sent_facts(encoder, **{**_RIGHT, name: wrong}) == (without, 1)
        assert sent_facts(encoder, **_RIGHT) == (right, 0)


class Hostile:
    """Whatever it is asked, it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("sentinel")

    def _raise(self, *_: object) -> Any:
        raise RuntimeError("sentinel")

    __bool__ = __eq__ = __hash__ = __index__ = __int__ = __repr__ = __str__ = _raise


@pytest.mark.parametrize("name", _RIGHT)
def test_a_fact_that_raises_whatever_it_is_asked_is_left_out(name: str) -> None:
    facts, errors = sent_facts(LogEncoder(), **{**_RIGHT, name: Hostile()})
    assert (set(facts), errors) == (set(_RIGHT) - {name}, 1)


def test_texts_that_come_and_go_in_one_place_of_memory_are_told_apart() -> None:
    encoder = LogEncoder()
    for number in range(300):
        name = "QUERY" if number % 3 else f"secret {number}"
        facts, errors = sent_facts(encoder, statement_type="".join(list(name)))
        assert facts.get("statement_type") == ("QUERY" if number % 3 else None)
        assert errors == (0 if number % 3 else 1)


def test_what_is_as_good_as_the_wire_s_type_is_told() -> None:
    class Text(str):
        pass

    encoder = LogEncoder()
    facts, errors = sent_facts(
        encoder, retry_count=Whole(7), statement_type="UPDATE", statement_id=Text("id")
    )
    assert (facts["retry_count"], facts["statement_type"], errors) == (7, "UPDATE", 0)


@pytest.mark.parametrize(
    "operation", [schema.OperationType.CREATE_SESSION, schema.OperationType.DELETE_SESSION]
)
@pytest.mark.parametrize("its_own_id", [False, True])
def test_events_of_a_session_name_no_statement(operation: schema.OperationType, its_own_id: bool) -> None:
    session = TelemetrySessionContext(session_id="s")
    statements = [
        StatementTelemetryContext(session, operation_type=each)
        for each in (operation, schema.OperationType.EXECUTE_STATEMENT, operation)
    ]
    for statement in statements:
        if its_own_id:
            statement.statement_id = "01ef-5b7c"
        statement.emit()
    strings = LogEncoder().encode_strings(statements)
    logs = [
        json.loads(text) for text in json.loads(request_body([s or b"" for s in strings], 1))["protoLogs"]
    ]
    assert ["sql_statement_id" in log["entry"]["sql_driver_log"] for log in logs] == [False, True, False]
    assert len({log["frontend_log_event_id"] for log in logs}) == 3
    for statement, log in zip(statements, logs, strict=True):
        assert log == json.loads(LogEncoder().encode(statement.frontend_log()))


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


@pytest.mark.parametrize("is_consumed", [False, True])
@pytest.mark.parametrize("its_own_id", [False, True])
def test_statements_that_differ_in_numbers_alone_share_a_template_and_keep_their_numbers(
    is_consumed: bool, its_own_id: bool
) -> None:
    encoder, session = LogEncoder(), TelemetrySessionContext(session_id="s")
    for number in (0, 3, 4_001):
        with FakeClock() as clock, StatementTelemetryContext(session) as statement:
            clock.advance_ms(number)
            statement.record_execute_complete()
            clock.advance_ms(number + 1)
            statement.record_first_batch_ready()
            for latency in range(number, number + 1 + number % 7):
                statement.record_poll(latency)
                statement.record_chunk(latency)
            statement.retry_count = statement.chunk_id = number
            if is_consumed:
                clock.advance_ms(number + 5)
                statement.record_results_consumed()
            if its_own_id:
                statement.statement_id = f"statement {number}"
            clock.advance_ms(number)
        (string,) = encoder.encode_strings([statement])
        (text,) = json.loads(request_body([string or b""], 1))["protoLogs"]
        assert json.loads(text) == json.loads(LogEncoder().encode(statement.frontend_log()))
    assert len(encoder._templates) == 1


def test_what_is_no_event_takes_no_other_with_it() -> None:
    session = TelemetrySessionContext(session_id="s")
    good, odd = (StatementTelemetryContext(session) for _ in range(2))
    odd.statement_id = "a\ud800b"
    for statement in (good, odd):
        statement.emit()
    strings = LogEncoder().encode_strings([good, odd, "no event", good])  # type: ignore[list-item]
    assert [string is None for string in strings] == [False, False, True, False]
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
