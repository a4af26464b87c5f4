"""The array of a request's logs is handed on as it came only if each log in it was recognised."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("starlette")

from adbc_telemetry.collector.intake import InvalidRequest, read_request
from support.collecting import a_log, altered, encoded

GOOD = encoded(a_log())
FIELD = altered("entry.sql_driver_log.new_field", 1)
PRIVATE = altered("entry.sql_driver_log.error_info.stack_trace", "SECRET")


def body(*logs: object) -> bytes:
    request = {"uploadTime": 1, "items": [], "protoLogs": logs}
    return json.dumps(request, separators=(",", ":")).encode()


def test_the_array_of_our_own_sender_is_handed_on() -> None:
    array = read_request(body(GOOD, GOOD)).array
    assert array is not None
    assert json.loads(array) == [GOOD, GOOD]


@pytest.mark.parametrize("log", [FIELD, PRIVATE, "no JSON", 7, altered("entry", 1)])
def test_an_array_with_any_other_log_is_not(log: object) -> None:
    assert read_request(body(GOOD, log)).array is None


@pytest.mark.parametrize(
    "text",
    [
        b'{"uploadTime":1,"items":[],"protoLogs":[%b],"protoLogs":[%b]}',
        b'{"uploadTime":1,"items":[],"protoLogs":[%b],"proto\\u004cogs":[%b]}',
        b'{"uploadTime":1,"items":[],"protoLogs":[%b],"proto_logs":[%b]}',
        b'{"protoLogs":[%b],"uploadTime":1,"items":[],"protoLogs":[%b]}',
    ],
)
def test_a_second_array_cannot_hide_behind_the_first(text: bytes) -> None:
    first, second = json.dumps(PRIVATE).encode(), json.dumps(GOOD).encode()
    assert read_request(text % (first, second)).array is None
    assert read_request(text % (second, first)).array is None


@pytest.mark.parametrize("line_end", [b"\n", b"\r"])
def test_an_array_of_several_lines_is_not_handed_on(line_end: bytes) -> None:
    found = read_request(body(GOOD, GOOD).replace(b'","', b'",' + line_end + b'"'))
    assert (len(found.logs), found.array) == (2, None)


def test_an_array_that_is_torn_is_no_request() -> None:
    with pytest.raises(InvalidRequest):
        read_request(b'{"uploadTime":1,"items":[],"protoLogs":["a]}')
