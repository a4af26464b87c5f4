"""Of the text of an error, the bare words of the fixed list are kept, and nothing else."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("starlette")

from adbc_telemetry.collector.intake import read_request
from adbc_telemetry.collector.intake.results import AcceptedLog
from adbc_telemetry.collector.intake.strict import event_id_if_canonical
from adbc_telemetry.driver_facts.error_category import ErrorCategory
from support.collecting import altered, request_body

ERROR = "entry.sql_driver_log.error_info"


def read(text: str) -> tuple[AcceptedLog, int]:
    intake = read_request(request_body(text))
    (log,) = intake.logs
    assert intake.unknown == {}
    return log, intake.dropped_private


@pytest.mark.parametrize("name", ["stack_trace", "stackTrace"])
@pytest.mark.parametrize("category", ErrorCategory)
def test_a_word_of_the_list_is_kept(category: ErrorCategory, name: str) -> None:
    text = altered(f"{ERROR}.{name}", category.value)
    log, dropped = read(text)
    assert (log.text, dropped) == (text, 0)
    told = json.loads(log.text if log.canonical is None else log.canonical)
    assert told["entry"]["sql_driver_log"]["error_info"] == {"stack_trace": category.value}


def test_a_log_with_a_word_takes_the_fast_path() -> None:
    text = json.dumps(json.loads(altered(f"{ERROR}.stack_trace", "timeout")), separators=(",", ":"))
    assert event_id_if_canonical(text)
    assert not event_id_if_canonical(text.replace('"timeout"', '"timeout at line 3"'))


@pytest.mark.parametrize(
    "text", ["timeout: SECRET", "Timeout", "timeout ", " timeout", "", "timeout\n", "tıme", "TIMEOUT"]
)
def test_what_is_merely_like_a_word_is_dropped(text: str) -> None:
    log, dropped = read(altered(f"{ERROR}.stack_trace", text))
    assert dropped == 1
    assert json.loads(log.text)["entry"]["sql_driver_log"]["error_info"] == {}


@pytest.mark.parametrize("value", [["timeout"], {"timeout": "timeout"}, 1, True])
def test_a_word_within_something_else_is_dropped(value: object) -> None:
    log, dropped = read(altered(f"{ERROR}.stack_trace", value))
    assert dropped == 1
    assert json.loads(log.text)["entry"]["sql_driver_log"]["error_info"] == {}


@pytest.mark.parametrize("path", ["stack_trace", "entry.stack_trace", f"{ERROR}.error_message"])
def test_a_word_in_another_place_is_dropped(path: str) -> None:
    intake = read_request(request_body(altered(path, "timeout")))
    assert intake.dropped_private == 1
    assert "timeout" not in intake.logs[0].text


def test_a_word_hides_no_text_under_the_same_name() -> None:
    for names in (("stack_trace", "stack_trace"), ("stack_trace", "stackTrace")):
        for values in (("SECRET", "timeout"), ("timeout", "SECRET")):
            inner = ",".join(f'"{name}":"{value}"' for name, value in zip(names, values, strict=True))
            text = '{"frontend_log_event_id":"1","entry":{"sql_driver_log":{"error_info":{' + inner + "}}}}"
            log, _ = read(text)
            assert "SECRET" not in f"{log}"
