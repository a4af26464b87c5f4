"""Whatever protobuf writes as JSON, in any of its options, the intake reads as the same message."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("duckdb")
pytest.importorskip("starlette")

from adbc_telemetry.collector.intake import read_request
from support.collecting import request_body
from support.wire import FIELDS, SqlDriverLog, messages, parse_strictly

OPTIONS = st.fixed_dictionaries(
    {
        "preserving_proto_field_name": st.booleans(),
        "use_integers_for_enums": st.booleans(),
        "always_print_fields_with_no_presence": st.booleans(),
        "indent": st.sampled_from([None, 0, 2]),
        "sort_keys": st.booleans(),
        "ensure_ascii": st.booleans(),
    }
)
# How the log around the message is written: protobuf knows nothing of it.
SHELLS = st.sampled_from(
    [
        '{"frontend_log_event_id": "1", "entry": {"sql_driver_log": %s}}',
        '{"entry": {"sqlDriverLog": %s}, "frontendLogEventId": "1"}',
        '{"context": null, "workspace_id": null, "entry": {"sqlDriverLog": %s}, "frontend_log_event_id": "1"}',
    ]
)


def every_field() -> Any:
    """A message in which each field of the schema is set."""

    def fill(message: Any) -> Any:
        for field in message.DESCRIPTOR.fields:
            if field.message_type is not None:
                fill(getattr(message, field.name)).SetInParent()
            elif field.is_repeated:
                getattr(message, field.name).append(field.name)
            elif field.enum_type is not None:
                setattr(message, field.name, field.enum_type.values[-1].number)
            else:
                setattr(message, field.name, {9: field.name, 8: True}.get(field.type, field.number))
        return message

    return fill(SqlDriverLog())


def without_private_texts(message: Any) -> Any:
    copy: Any = SqlDriverLog()
    copy.CopyFrom(message)
    if copy.HasField("error_info"):
        copy.error_info.ClearField("stack_trace")
    return copy


def assert_read(message: Any, shell: str, options: dict[str, Any]) -> None:
    text = shell % json_format.MessageToJson(message, **options)
    intake = read_request(request_body(text))
    assert (intake.refusals, intake.unknown) == ([], {})
    ((event_id, kept, canonical),) = intake.logs
    assert event_id == "1"
    private = message.error_info.HasField("stack_trace")
    assert intake.dropped_private == private
    if not private:
        assert kept == text
    read = json.loads(kept if canonical is None else canonical)
    assert parse_strictly(read["entry"]["sql_driver_log"]) == without_private_texts(message)


@given(messages(), SHELLS, OPTIONS)
def test_a_message_is_read_as_it_was_written(struct: Any, shell: str, options: dict[str, Any]) -> None:
    assert_read(parse_strictly(msgspec.to_builtins(struct)), shell, options)


@given(SHELLS, OPTIONS)
def test_a_message_of_all_fields_is_read_as_it_was_written(shell: str, options: dict[str, Any]) -> None:
    assert_read(every_field(), shell, options)


def test_the_message_of_all_fields_has_them_all() -> None:
    def count(message: Any) -> int:
        return sum(1 + (count(value) if field.message_type else 0) for field, value in message.ListFields())

    hosts = 3  # the same message three times over
    host_fields = sum(1 for name, _ in FIELDS if name == "HostDetails")
    assert count(every_field()) == len(FIELDS) + (hosts - 1) * host_fields


def test_a_field_that_the_intake_forgets_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from adbc_telemetry.collector.intake.fields import FlagField

    monkeypatch.setattr(FlagField, "read", lambda *_: None)
    with pytest.raises(AssertionError):
        assert_read(every_field(), '{"frontendLogEventId": "1", "entry": {"sqlDriverLog": %s}}', {})
