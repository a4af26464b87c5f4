"""schemathesis asks a real collector all that its OpenAPI description allows, and what it does not allow."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("schemathesis")
pytest.importorskip("duckdb")
pytest.importorskip("starlette")
if sys.platform == "win32":
    pytest.skip("the collector's process is watched as on POSIX", allow_module_level=True)

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from support.collector_process import Collecting, collecting, log_text, request_of

# Not the checks that positive data is taken and negative data refused: a range of time may be empty, and the intake
# takes much that no schema describes.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
OPERATIONS = 18


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collecting]:
    with collecting(tmp_path_factory.mktemp("schema")) as running:
        names = {
            "system_configuration": {"driver_name": "d", "driver_version": "1"},
            "error_info": {"error_name": "E"},
        }
        texts = [log_text(f"event-{number}", operation_latency_ms=number, **names) for number in range(50)]
        assert running.post(request_of(texts)).status == 200
        yield running


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_every_operation_answers_as_described(collector: Collecting, mode: str) -> None:
    url = f"http://127.0.0.1:{collector.port}"
    description = schemathesis.openapi.from_url(f"{url}/openapi.json")
    asked: dict[str, int] = {}
    for result in description.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]  # an error of the description would fail here
        if mode == "NEGATIVE" and not (operation.query or operation.headers or operation.body):
            continue  # nothing can be wrong about it

        def ask(case: Any) -> None:
            asked[case.operation.label] = asked.get(case.operation.label, 0) + 1
            case.call_and_validate(base_url=url, checks=CHECKS)

        examine = settings(
            max_examples=15,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        cases = operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode.lower()))
        examine(given(case=cases)(ask))()
    assert len(asked) >= (OPERATIONS if mode == "POSITIVE" else OPERATIONS - 5), sorted(asked)
    assert sum(asked.values()) > 100
    assert collector.ask("GET", "/healthz").status == 200
    assert "failed" not in collector.log
