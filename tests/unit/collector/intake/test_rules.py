"""How a log is read that is not in the wire's own form: protobuf's JSON rules, and what each breach costs."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("starlette")

from adbc_telemetry.collector.intake import AcceptedLog, Intake, read_request
from adbc_telemetry.collector.intake.unknown import MAX_NAMES, OTHER
from support.collecting import a_log, altered, encoded, request_body
from support.wire import ENUMS, WIRE

SQL = "entry.sql_driver_log"
LATENCY = f"{SQL}.operation_latency_ms"
PORT = f"{SQL}.driver_connection_params.host_info.port"
TYPE = f"{SQL}.sql_operation.statement_type"
FLAG = f"{SQL}.sql_operation.is_compressed"


def read(*texts: str) -> Intake:
    return read_request(request_body(*texts))


def accepted(text: str) -> AcceptedLog:
    intake = read(text)
    assert intake.errors == []
    return intake.logs[0]


def canonical(text: str) -> Any:
    log = accepted(text)
    return json.loads(log.text if log.canonical is None else log.canonical)


def value_at(path: str, log: Any) -> Any:
    for name in path.split("."):
        log = log.get(name, {})
    return log


def reason(text: str) -> str:
    intake = read(encoded(a_log()), text, encoded(a_log()))
    assert len(intake.logs) == 2, "a log that is refused must not cost the others"
    ((index, why),) = intake.refusals
    assert index == 1
    assert intake.errors == [f"protoLogs[1] was refused: {why}."]
    assert "SECRET" not in why
    return why


# The fast path


def test_our_own_log_is_kept_as_it_came_and_is_canonical() -> None:
    log = a_log()
    text = encoded(log)
    assert read(text) == Intake([AcceptedLog(log.frontend_log_event_id or "", text, None)], [], {}, 0)


@pytest.mark.parametrize(
    "spelled",
    [
        pytest.param(
            lambda text: json.dumps(json.loads(text.replace("a driver", r"\" \\"))), id="backslashes"
        ),
        pytest.param(lambda text: json.dumps(json.loads(text)), id="spaces"),
        pytest.param(lambda text: json.dumps(json.loads(text), indent=2), id="lines"),
        pytest.param(lambda text: text.replace("a driver", "a \\u0064river"), id="escapes"),
        pytest.param(lambda text: text.replace("a driver", 'é \\\\ \U0001f600 \\"'), id="not ASCII"),
    ],
)
def test_other_spellings_of_the_canonical_form_are_canonical(spelled: Any) -> None:
    text = spelled(encoded(a_log()))
    log = accepted(text)
    assert (log.text, log.canonical) == (text, None)


def test_the_least_log_is_taken() -> None:
    text = '{"frontend_log_event_id":"1","entry":{"sql_driver_log":{}}}'
    assert accepted(text) == AcceptedLog("1", text, None)


# Names


def test_names_in_camel_case_are_known() -> None:
    text = (
        '{"workspaceId":5,"frontendLogEventId":"1","context":{"clientContext":{"userAgent":"a"}},'
        '"entry":{"sqlDriverLog":{"sqlOperation":{"operationDetail":{"nOperationStatusCalls":3}}}}}'
    )
    assert canonical(text) == {
        "workspace_id": 5,
        "frontend_log_event_id": "1",
        "context": {"client_context": {"user_agent": "a"}},
        "entry": {"sql_driver_log": {"sql_operation": {"operation_detail": {"n_operation_status_calls": 3}}}},
    }
    assert accepted(text).text == text


def test_of_a_name_that_stands_twice_the_last_one_wins_everywhere() -> None:
    text = '{"frontend_log_event_id":"1","frontend_log_event_id":"2","entry":{"sql_driver_log":{}}}'
    log = accepted(text)
    assert log == AcceptedLog("2", '{"frontend_log_event_id":"2","entry":{"sql_driver_log":{}}}', None)


def test_a_repeated_name_is_noticed_when_wide_characters_make_up_for_its_length() -> None:
    repeated = '"auth_type":"",'
    wide = "é" * len(repeated)  # each takes a byte more than characters
    text = f'{{"frontend_log_event_id":"1","entry":{{"sql_driver_log":{{{repeated}"auth_type":"{wide}"}}}}}}'
    assert accepted(text).text == text.replace(repeated, "")


def test_a_log_may_be_nested_and_hold_brackets() -> None:
    text = encoded(a_log(auth_type="[" * 200))[:-1] + ',"newer":' + "[" * 99 + '"]]"' + "]" * 99 + "}"
    assert accepted(text).text == text


# Values


@pytest.mark.parametrize(
    ("sent", "read_as"),
    [
        (12, 12),
        (12.0, 12),
        ("12", 12),
        ("-12", -12),
        ("12.0", 12),
        ("1e3", 1000),
        ("1.5E+1", 15),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (str(2**63 - 1), 2**63 - 1),
        ("9007199254740993.0", 9007199254740993),
        ("9223372036854775807.0", 2**63 - 1),
    ],
)
def test_integers_come_as_numbers_and_as_text(sent: object, read_as: int) -> None:
    assert value_at(LATENCY, canonical(altered(LATENCY, sent))) == read_as


def test_a_number_with_an_exponent_is_an_integer_when_it_is_whole() -> None:
    text = encoded(a_log()).replace('"operation_latency_ms":12', '"operation_latency_ms":1e3')
    assert value_at(LATENCY, canonical(text)) == 1000


@pytest.mark.parametrize(
    "value", [True, 12.5, "12.5", "", "twelve", " 12", "0x12", "１２", "1_000", [12], {"SECRET": 1}]
)
def test_what_is_no_integer_costs_the_log(value: object) -> None:
    assert reason(altered(LATENCY, value)) == f"wrong type at {LATENCY}"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (LATENCY, 2**63),
        (LATENCY, -(2**63) - 1),
        (LATENCY, str(2**63)),
        (LATENCY, "9223372036854775808.0"),
        (LATENCY, "1e300"),
        (LATENCY, "-1e999"),
        (LATENCY, "9" * 30),
        (LATENCY, 1e300),
        (LATENCY, 10**40),
        (PORT, 2**31),
        (PORT, -(2**31) - 1),
        (PORT, str(2**31)),
        ("workspace_id", 2**63),
        (TYPE, 2**63),
    ],
)
def test_a_number_beyond_its_type_costs_the_log(path: str, value: object) -> None:
    assert reason(altered(path, value)) == f"number out of range at {path}"


def test_a_number_that_no_reader_takes_costs_the_log() -> None:
    assert reason(encoded(a_log())[:-1] + ',"SECRET":1e999}') == "number out of range"


@pytest.mark.parametrize(
    ("sent", "read_as"),
    [("QUERY", "QUERY"), (1, "QUERY"), (0, "TYPE_UNSPECIFIED"), (5.0, "VOLUME"), ("5", "VOLUME")],
)
def test_enums_come_by_name_and_by_number(sent: object, read_as: str) -> None:
    assert value_at(TYPE, canonical(altered(TYPE, sent))) == read_as


@pytest.mark.parametrize("kind", ENUMS)
def test_enums_are_numbered_as_on_the_wire(kind: str) -> None:
    assert list(WIRE["enums"][kind].items()) == [
        (name, number) for number, name in enumerate(ENUMS[kind].__members__)
    ]


@pytest.mark.parametrize(
    ("sent", "counted"),
    [
        ("MERGE", f"{TYPE}=MERGE"),
        (99, f"{TYPE}=99"),
        ("99", f"{TYPE}=99"),
        ("query", f"{TYPE}=query"),
        ("", OTHER),
        ("two words", OTHER),
        ("X" * 101, OTHER),
    ],
)
def test_an_enum_that_is_not_known_is_counted_and_kept_in_the_text(sent: object, counted: str) -> None:
    text = altered(TYPE, sent)
    intake = read(text)
    assert intake.unknown == {counted: 1}
    assert intake.logs[0].text == text
    assert value_at(TYPE, canonical(text)) == {}


@pytest.mark.parametrize("value", [True, [], {}, 1.5])
def test_what_is_no_enum_costs_the_log(value: object) -> None:
    assert reason(altered(TYPE, value)) == f"wrong type at {TYPE}"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (FLAG, 1),
        (FLAG, "true"),
        (f"{SQL}.session_id", 5),
        (f"{SQL}.session_id", ["SECRET"]),
        (f"{SQL}.sql_operation", "SECRET"),
        (f"{SQL}.sql_operation", []),
        (f"{SQL}.driver_connection_params", {"non_proxy_hosts": "SECRET"}),
        (f"{SQL}.driver_connection_params", {"non_proxy_hosts": ["SECRET", None]}),
        ("entry", "SECRET"),
        ("context", 5),
        ("frontend_log_event_id", 5),
    ],
)
def test_a_value_of_a_wrong_type_costs_the_log(path: str, value: object) -> None:
    (inner,) = value if isinstance(value, dict) else ("",)
    assert reason(altered(path, value)) == f"wrong type at {f'{path}.{inner}'.rstrip('.')}"


@pytest.mark.parametrize(
    "path", [LATENCY, TYPE, FLAG, f"{SQL}.session_id", f"{SQL}.sql_operation", "context", "workspace_id"]
)
def test_null_is_as_good_as_absent(path: str) -> None:
    with_null, without = altered(path, None), altered(path, ...)
    assert value_at(path, canonical(with_null)) == {}
    assert accepted(with_null).text == with_null
    assert accepted(without).canonical is None


# What a log must have


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("frontend_log_event_id", ..., "no event id"),
        ("frontend_log_event_id", None, "no event id"),
        ("frontend_log_event_id", "", "no event id"),
        ("frontend_log_event_id", "x" * 129, "event id longer than 128 characters"),
        ("entry", ..., "no entry.sql_driver_log"),
        ("entry", None, "no entry.sql_driver_log"),
        ("entry", {"SECRET": {}}, "no entry.sql_driver_log"),
        ("entry.sql_driver_log", ..., "no entry.sql_driver_log"),
        ("entry.sql_driver_log", None, "no entry.sql_driver_log"),
    ],
)
def test_a_log_without_what_it_must_have_is_refused(path: str, value: object, why: str) -> None:
    assert reason(altered(path, value)) == why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ("SECRET", "not JSON"),
        ('{"SECRET": NaN}', "not JSON"),
        ('{"SECRET": 1} 2', "not JSON"),
        ('["SECRET"]', "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"SECRET":' * 5_000 + "1" + "}" * 5_000, "nested too deeply"),
        ('{"SECRET":' + "[" * 100 + "]" * 100 + "}", "nested too deeply"),
        ("[" * 900_000, "nested too deeply"),
        (" " * (1024 * 1024 + 1), "larger than 1048576 bytes"),
    ],
)
def test_what_is_no_log_is_refused(text: str, why: str) -> None:
    assert reason(text) == why


@pytest.mark.parametrize(
    "event_id", ["20260730101112-0a1b2c3d", "x", "é" * 128, "00000000-0000-0000-0000-000000000000"]
)
def test_an_event_id_is_any_text(event_id: str) -> None:
    log = accepted(altered("frontend_log_event_id", event_id))
    assert (log.event_id, log.canonical) == (event_id, None)


@pytest.mark.parametrize(("sent", "read_as"), [("5", 5), (5, 5), ("ws-a", {}), ("", {}), (str(2**63), {})])
def test_the_workspace_is_a_number_or_a_text(sent: object, read_as: object) -> None:
    text = altered("workspace_id", sent)
    assert value_at("workspace_id", canonical(text)) == read_as
    assert accepted(text).text == text


@pytest.mark.parametrize(
    ("context", "read_as"),
    [
        ({"timestamp_millis": "7"}, {"client_context": {"timestamp_millis": 7}}),
        ({"timestampMillis": 7, "client_context": None}, {"client_context": {"timestamp_millis": 7}}),
        (
            {"client_context": {"user_agent": "a"}, "timestamp_millis": 7},
            {"client_context": {"user_agent": "a", "timestamp_millis": 7}},
        ),
        (
            {"timestamp_millis": 7, "client_context": {"timestamp_millis": 8}},
            {"client_context": {"timestamp_millis": 8}},
        ),
    ],
)
def test_the_time_may_stand_beside_the_clients_context(context: object, read_as: object) -> None:
    assert canonical(altered("context", context))["context"] == read_as


# What the schema does not know


def test_unknown_fields_are_counted_by_their_path_and_kept_in_the_text() -> None:
    first = altered(f"{SQL}.sql_operation.newer", {"a": [1, None, {"b": 2}]})
    second = altered("newer", None)
    intake = read(first, first, second)
    assert intake.unknown == {f"{SQL}.sql_operation.newer": 2, "newer": 1}
    assert [log.text for log in intake.logs] == [first, first, second]
    assert "newer" not in f"{canonical(first)}{canonical(second)}"


@pytest.mark.parametrize("name", ["", "two words", "a.b", "'; DROP", "é", "x" * 101, "1st"])
def test_a_name_that_looks_like_none_is_counted_without_it(name: str) -> None:
    assert read(json.dumps({**json.loads(encoded(a_log())), name: 1})).unknown == {OTHER: 1}


def test_the_names_that_are_counted_apart_are_bounded() -> None:
    texts = [
        json.dumps({**json.loads(encoded(a_log())), **{f"n{k}_{i}": 1 for i in range(150)}}) for k in range(3)
    ]
    unknown = read(*texts).unknown
    assert len(unknown) == MAX_NAMES + 1
    assert unknown[OTHER] == 450 - MAX_NAMES
    assert len(
        read(json.dumps({**json.loads(encoded(a_log())), **{f"n{i}": 1 for i in range(1000)}})).unknown
    ) == (MAX_NAMES + 1)


def test_what_is_unknown_in_a_refused_log_is_not_counted() -> None:
    assert read(json.dumps({"newer": 1, "frontend_log_event_id": 5})).unknown == {}


# Private texts


@pytest.mark.parametrize(
    "path",
    [
        f"{SQL}.error_info.stack_trace",
        f"{SQL}.error_info.stackTrace",
        f"{SQL}.error_info.error_message",
        f"{SQL}.newer.inner.stackTrace",
        f"{SQL}.StackTrace",
        "stack_trace",
    ],
)
@pytest.mark.parametrize("value", ["SECRET", ["SECRET"], {"text": "SECRET"}])
def test_a_private_text_is_dropped_wherever_it_stands(path: str, value: object) -> None:
    sent = altered(path, value)
    intake = read(sent)
    (log,) = intake.logs
    assert "SECRET" not in f"{log}"
    assert intake.dropped_private == 1
    without = json.loads(sent)
    parent, _, name = path.rpartition(".")
    del (value_at(parent, without) if parent else without)[name]
    assert json.loads(log.text) == without


def test_a_private_text_in_an_array_is_dropped() -> None:
    intake = read(altered("newer", [[{"stack_trace": "SECRET", "kept": 1}, {"stack_trace": "SECRET"}]]))
    assert json.loads(intake.logs[0].text)["newer"] == [[{"kept": 1}, {}]]
    assert intake.dropped_private == 2


def test_a_private_text_does_not_survive_behind_a_name_that_stands_twice() -> None:
    text = (
        '{"frontend_log_event_id":"1","entry":{"sql_driver_log":'
        '{"error_info":{"st\\u0061ck_trace":"SECRET"},"error_info":{"error_name":"E"}}}}'
    )
    log = accepted(text)
    assert "SECRET" not in f"{log}"
    assert json.loads(log.text)["entry"] == {"sql_driver_log": {"error_info": {"error_name": "E"}}}


def test_a_name_that_stands_twice_hides_nothing_behind_odd_spellings() -> None:
    text = (
        '{"frontend_log_event_id":"1","entry":{"sql_driver_log" : {"error_info" :{"stack_trace" :"SECRET"},'
        '"auth_type":"\\u005c","session_id":"\\\\","error_info":{}}}}'
    )
    assert "SECRET" not in f"{accepted(text)}"


def test_no_private_text_where_null_stands() -> None:
    text = altered(f"{SQL}.error_info.stack_trace", None)
    intake = read(text)
    assert (intake.logs[0].text, intake.dropped_private) == (text, 0)


# Unicode


@pytest.mark.parametrize(
    ("sent", "read_as"),
    [
        ("\\ud83d\\ude00", "\U0001f600"),
        ("\\ud83d", "�"),
        ("\\ude00", "�"),
        ("\\ud83d\\ud83d\\ude00", "�\U0001f600"),
        ("\\\\ud83d\\ud83d", "\\ud83d�"),
    ],
)
def test_half_a_pair_of_surrogates_is_replaced(sent: str, read_as: str) -> None:
    log = accepted(encoded(a_log(auth_type="AUTH")).replace("AUTH", sent))
    assert json.loads(log.text)["entry"]["sql_driver_log"]["auth_type"] == read_as
    assert log.canonical is None or json.loads(log.canonical) == json.loads(log.text)
