"""Statements, which become strings of a request without being logs in between."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adbc_telemetry import StatementTelemetryContext, TelemetrySessionContext, schema
from adbc_telemetry.core.ids import next_number
from adbc_telemetry.events.encoding import LogEncoder, SessionPart, request_body
from adbc_telemetry.events.statement import LoggedStatement, StatementRecord
from adbc_telemetry.testing import FakeClock
from support.wire import assert_same, messages, parse_strictly

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
        error_categories=draw(st.booleans()),
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
    statement.volume_operation = draw(st.none() | st.sampled_from(schema.VolumeOperationType) | _ODD)
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
    make: Any = StatementRecord  # mypy does not see the fields of its base
    record: StatementRecord = make(
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
    return record


@settings(max_examples=3 * settings().max_examples)
@given(st.lists(_statements() | _records() | messages(), min_size=1, max_size=5))
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
        sent = log.entry.sql_driver_log if log.entry and "\ufffd" not in text else decoded(received)
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
    "volume": lambda statement: setattr(statement, "volume_operation", schema.VolumeOperationType.PUT),
}


@pytest.mark.parametrize("first", _FACTS)
def test_statements_that_differ_in_one_fact_are_not_told_alike(first: str) -> None:
    encoder = LogEncoder()
    sessions = [TelemetrySessionContext(session_id="s", error_categories=told) for told in (False, True)]
    for fact, session in itertools.product((first, *_FACTS), sessions):
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
