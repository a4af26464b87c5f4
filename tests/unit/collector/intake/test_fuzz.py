"""Whatever is sent: no exception but `InvalidRequest`, and what is taken is sound.

`benchmarks/fuzz_intake.py` does the same for as long as one likes.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("duckdb")
pytest.importorskip("starlette")

from adbc_telemetry.collector.intake import Intake, InvalidRequest
from support.bodies import random_body, read_soundly
from support.collecting import a_log, encoded, request_body
from support.wire import FIELDS

_NAMES = st.sampled_from(sorted({name for _, name in FIELDS})) | st.text(max_size=5)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=10)
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=10,
)


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    read_soundly(body)


@given(st.binary(max_size=200))
def test_any_bytes_as_a_log(text: bytes) -> None:
    read_soundly(b'{"protoLogs":["' + text + b'"]}')


@given(st.dictionaries(st.sampled_from(["protoLogs", "proto_logs", "items", "uploadTime"]), _JSON))
def test_any_json_as_a_request(request: Any) -> None:
    read_soundly(json.dumps(request).encode())


@given(st.lists(_JSON, max_size=3))
def test_any_json_as_a_log(logs: list[Any]) -> None:
    result = read_soundly(request_body(*(json.dumps(log) for log in logs)))
    assert isinstance(result, Intake)
    assert len(result.logs) + len(result.refusals) == len(logs)


@given(st.lists(_NAMES, max_size=5), _JSON)
def test_any_json_anywhere_in_a_log(path: list[str], value: Any) -> None:
    log = json.loads(encoded(a_log()))
    inner = log["entry"]["sql_driver_log"]
    for name in path:
        if isinstance(inner.get(name), dict):
            inner = inner[name]
        else:
            inner[name] = value
            break
    read_soundly(request_body(json.dumps(log)))


@given(st.integers(0, 2**32))
def test_damaged_requests(seed: int) -> None:
    read_soundly(random_body(seed))


def test_damaged_requests_are_of_every_kind() -> None:
    """Otherwise the test above tests less than it seems to."""
    results = [read_soundly(random_body(seed)) for seed in range(300)]
    intakes = [result for result in results if isinstance(result, Intake)]
    assert sum(isinstance(result, InvalidRequest) for result in results) > 20
    assert sum(bool(intake.logs) for intake in intakes) > 50
    assert len({refusal.reason for intake in intakes for refusal in intake.refusals}) > 10
    assert sum(bool(intake.unknown) for intake in intakes) > 50
    assert sum(bool(intake.dropped_private) for intake in intakes) > 20
