"""What the body of a request may be, and what is bounded before it is built."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("starlette")

from adbc_telemetry import schema
from adbc_telemetry.collector.intake import (
    MAX_ERRORS,
    MAX_LOGS,
    Intake,
    InvalidRequest,
    Refusal,
    TooManyLogs,
    read_request,
)
from support.collecting import a_log, altered, encoded, request_body

DEEP = "The body holds more than 100 objects and arrays inside one another."
PRIVATE = schema.DriverErrorInfo(stack_trace="x")
MEBIBYTE = 1024 * 1024
LEAST = '{"frontend_log_event_id":"1","entry":{"sql_driver_log":{}}}'
ONE = json.dumps(LEAST).encode()


@pytest.mark.parametrize(
    "body",
    [
        b'{"uploadTime": 1, "items": [], "protoLogs": [%b]}',
        b'{"protoLogs": [%b]}',
        b'{"proto_logs": [%b], "upload_time": "2026-07-30T10:11:12Z"}',
        b'{"uploadTime": "1764000000000", "items": null, "protoLogs": [%b]}',
        b'{"uploadTime": null, "items": [{"a": [1, {}]}], "protoLogs": [%b]}',
        b'{"items": "x", "newer": {"protoLogs": [1]}, "protoLogs": [%b], "last": 1e999}',
        b'\n{ "protoLogs" : [ %b ] }\n',
        b'{"protoLogs": null, "proto_logs": [%b]}',
        b'{"newer": "\\"' + b"[" * 200 + b'\\"", "a": ' + b"[" * 99 + b"]" * 99 + b', "protoLogs": [%b]}',
    ],
)
def test_the_rest_of_a_request_is_passed_over(body: bytes) -> None:
    assert [log.text for log in read_request(body % ONE).logs] == [LEAST]


@pytest.mark.parametrize("body", [b"{}", b'{"protoLogs": null}', b'{"protoLogs": []}', b'{"items": ["a"]}'])
def test_a_request_without_logs_is_one(body: bytes) -> None:
    assert read_request(body) == Intake([], [], {}, 0)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "The body is not JSON."),
        (b"SECRET", "The body is not JSON."),
        (b"\xff\xfe", "The body is not JSON."),
        (b'{"protoLogs": [%b], "SECRET": NaN}' % ONE, "The body is not JSON."),
        (b'{"protoLogs": [%b' % ONE, "The body is not JSON."),
        (b'{"protoLogs": [%b]} {}' % ONE, "The body is not JSON."),
        (b'{"protoLogs": ["\\ud800"]}', "The body is not JSON."),
        (b"[]", "The body is not an object in which protoLogs is an array."),
        (b"null", "The body is not an object in which protoLogs is an array."),
        (b'{"protoLogs": "SECRET"}', "The body is not an object in which protoLogs is an array."),
        (b'{"protoLogs": {"SECRET": 1}}', "The body is not an object in which protoLogs is an array."),
        (b'{"SECRET":' + b"[" * 100_000, DEEP),
        (b'{"protoLogs": [' + b"[" * 100_000, DEEP),
        (b'{"SECRET":{"protoLogs":' * 100_000, DEEP),
        (b'{"SECRET": "]]", "a": ' + b"[" * 100 + b"]" * 100 + b"}", DEEP),
        (b'{"SECRET": "\\\\", "a": ' + b"[" * 100 + b'"]]]"' + b"]" * 100 + b"}", DEEP),
        (b'{"protoLogs": [1, ' + b"[" * 100_000, DEEP),
    ],
)
def test_a_body_of_another_shape_is_no_request(body: bytes, why: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_request(body)
    assert not isinstance(caught.value, TooManyLogs)
    assert str(caught.value) == why


@pytest.mark.parametrize(
    ("element", "why"),
    [
        (b"5", "not a string"),
        (b"1e999", "not a string"),
        (b"null", "not a string"),
        (b'{"SECRET": [1, {"a": "b,c"}]}', "not a string"),
        (b'["SECRET"]', "not a string"),
        (b'"\xff"', "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
    ],
)
def test_an_element_that_is_no_text_is_refused_by_itself(element: bytes, why: str) -> None:
    intake = read_request(b'{"protoLogs": [%b, %b, %b]}' % (ONE, element, ONE))
    assert [log.text for log in intake.logs] == [LEAST, LEAST]
    assert intake.refusals == [Refusal(1, why)]


def test_an_error_says_where_it_is() -> None:
    bad = altered("entry.sql_driver_log.sql_operation.retry_count", "two")
    assert read_request(request_body(bad)).errors == [
        "protoLogs[0] was refused: wrong type at entry.sql_driver_log.sql_operation.retry_count."
    ]


def test_errors_are_bounded_and_every_refusal_is_counted() -> None:
    intake = read_request(request_body(*["bad"] * 1000, encoded(a_log())))
    assert (len(intake.logs), len(intake.refusals)) == (1, 1000)
    assert len(intake.errors) == MAX_ERRORS + 1
    assert intake.errors[-1] == f"{1000 - MAX_ERRORS} more were refused."


def test_a_request_has_so_many_logs_at_most() -> None:
    assert len(read_request(request_body(*[LEAST] * MAX_LOGS)).logs) == MAX_LOGS
    with pytest.raises(TooManyLogs, match=r"The request holds more than 10000 logs\."):
        read_request(request_body(*[LEAST] * (MAX_LOGS + 1)))


def test_so_many_large_logs_are_taken() -> None:
    large = encoded(a_log(auth_type="x" * 700))
    body = request_body(*[large] * MAX_LOGS)
    assert len(body) > 12 * MEBIBYTE
    assert len(read_request(body).logs) == MAX_LOGS


def test_logs_of_a_million_values_are_too_many() -> None:
    """They would keep a core busy for seconds."""
    nested = json.dumps({"newer": [[]] * 100_000})
    assert read_request(request_body(nested)).refusals == [Refusal(0, "no event id")]
    with pytest.raises(TooManyLogs, match=r"The body holds more than 1000000 objects and arrays\."):
        read_request(request_body(*[nested] * 10))


def filled(unit: bytes, *, before: bytes = b'{"protoLogs":[', size: int = 16 * MEBIBYTE) -> bytes:
    return before + unit * (size // len(unit)) + unit.rstrip(b",") + b"]}"


def log_of(inside: bytes) -> bytes:
    return b'"{\\"newer\\":[' + inside + b'1]}",'


HOSTILE: dict[str, Callable[[], bytes]] = {
    "empty texts": lambda: filled(b'"",'),
    "short texts": lambda: filled(b'"ab",'),
    "short texts in a small body": lambda: filled(b'"ab",', size=4 * MEBIBYTE - 100),
    "texts that end in a backslash": lambda: filled(b'"a\\\\",'),
    "numbers": lambda: filled(b"1,"),
    "numbers in a small body": lambda: filled(b"1,", size=1_900_000),
    "objects": lambda: filled(b"{},"),
    "objects in a small body": lambda: filled(b"{},", size=900_000),
    "arrays": lambda: filled(b"[],"),
    "items": lambda: filled(b'{"a":"b"},', before=b'{"protoLogs":[],"items":['),
    "brackets": lambda: b"[" * (16 * MEBIBYTE),
    "a number of a million digits": lambda: b'{"protoLogs":["1' + b"0" * 1_000_000 + b'"]}',
    "a log of one text": lambda: filled(b"x", before=b'{"protoLogs":["') + b'"',
    "logs of arrays": lambda: filled(log_of(b"[]," * 300_000)),
    "logs of names": lambda: filled(
        b'"{' + b",".join(b'\\"k%d\\":1' % number for number in range(70_000)) + b'}",', size=4 * MEBIBYTE
    ),
    "logs of backslashes": lambda: filled(b'"' + b"\\\\\\\\" * 250_000 + b'\\\\ud800",'),
    "logs of wide characters and private texts": lambda: request_body(
        *[encoded(a_log(auth_type="\U0001f600" + "x" * 1000, error_info=PRIVATE))] * MAX_LOGS
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_body_costs_little_memory_and_time(body: Callable[[], bytes]) -> None:
    sent = body()
    tracemalloc.start()
    started = time.process_time()
    try:
        with suppress(InvalidRequest):
            read_request(sent)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 100 * MEBIBYTE  # the body itself comes on top
    assert time.process_time() - started < 10  # tracing included, which makes it several times as slow


SMALL_STACK = """
import json, threading
from adbc_telemetry.collector.intake import InvalidRequest, read_request

def read():
    for opening in ("[", '{"a":'):
        nested = opening * 150_000
        print(read_request(json.dumps({"protoLogs": ['{"a":' + nested]}).encode()).errors)
        for body in ('{"protoLogs":[' + nested, '{"a":' + nested, '{"items":' + nested, nested):
            try:
                read_request(body.encode())
            except InvalidRequest as error:
                print(error)

threading.stack_size(256 * 1024)
thread = threading.Thread(target=read)
thread.start()
thread.join()
"""


@pytest.mark.slow
def test_deep_nesting_does_not_end_a_process_whose_threads_have_small_stacks() -> None:
    """In a process of its own: without a limit, the decoder's recursion overruns the stack."""
    ended = subprocess.run([sys.executable, "-c", SMALL_STACK], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    refused = "['protoLogs[0] was refused: nested too deeply.']"
    assert ended.stdout.splitlines() == [refused, DEEP, DEEP, DEEP, DEEP] * 2
