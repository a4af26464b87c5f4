"""The collector is what its OpenAPI description says, for data that the description allows and for other data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import urllib3

pytest.importorskip("duckdb")
pytest.importorskip("starlette")
pytest.importorskip("schemathesis")

from support.collecting import a_log, encoded, request_body
from support.collectors import collecting

# The description cannot say that a body must have the encoding that its header names, or what a time looks like.
LEFT_OUT = "positive_data_acceptance"


@pytest.mark.timeout(180)
def test_no_request_finds_a_server_error_or_an_answer_that_is_not_described(tmp_path: Path) -> None:
    with collecting(tmp_path / "store") as running:
        body = request_body(*(encoded(a_log()) for _ in range(100)))
        assert urllib3.request("POST", f"{running.url}/telemetry-unauth", body=body).status == 200
        command = [str(Path(sys.executable).with_name("st")), "run", f"{running.url}/openapi.json"]
        command += ["--max-examples", "15", "--seed", "1", "--exclude-checks", LEFT_OUT]
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": ""},
            timeout=170,
            check=False,
        )
    assert ended.returncode == 0, ended.stdout[-5000:]
    assert "Tested: 18" in ended.stdout
