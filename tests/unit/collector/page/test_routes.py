"""The page's routes, over queries that answer from memory."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("plotly")

from starlette.applications import Starlette
from starlette.testclient import TestClient

from adbc_telemetry.collector.page.openapi import describe
from adbc_telemetry.collector.page.plotly import plotly_js
from adbc_telemetry.collector.page.routes import CONTENT_SECURITY_POLICY, page_routes
from adbc_telemetry.collector.page.tables import to_csv
from adbc_telemetry.collector.queries.answers import PANELS, OperationRow, Panel, Report
from adbc_telemetry.collector.queries.filters import Filter
from adbc_telemetry.collector.queries.service import QueriesUnavailable, QueryService


class Answers(QueryService):
    """Answers without a store, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.busy = False

    async def panel(self, name: str, filter: Filter) -> Panel:
        self.asked.append((name, filter))
        if self.busy:
            raise QueriesUnavailable("Too many questions wait; ask again later.")
        return Panel(columns=["host", "events"], rows=[["=1+1", -3], [None, 2]])

    async def event(self, event_id: str, filter: Filter) -> dict[str, Any] | None:
        return {"event_id": event_id, "log": "{}"} if event_id == "known" else None

    async def report(self, filter: Filter, by: Any = None) -> Report:
        operation = OperationRow(
            operation_type="A", statement_type=None, count=1, errors=0, p50_ms=1, p95_ms=1, p99_ms=1
        )
        return Report(
            events=1,
            errors=0,
            sessions=1,
            statements=1,
            drivers=1,
            first=None,
            last=None,
            operations=[operation],
            top_errors=[],
        )


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def client(answers: Answers) -> TestClient:
    status: dict[str, object] = {"version": "1", "refused": {"not JSON": 3}, "store": {"problems": ["full"]}}
    return TestClient(Starlette(routes=page_routes(answers, lambda: status)))


@pytest.mark.parametrize("name", PANELS)
def test_each_panel_comes_as_json_and_as_csv(client: TestClient, name: str) -> None:
    assert client.get(f"/api/{name}").json()["rows"] == [["=1+1", -3], [None, 2]]
    for answer in (
        client.get(f"/api/{name}?format=csv"),
        client.get(f"/api/{name}", headers={"Accept": "text/csv, */*"}),
    ):
        assert answer.headers["content-type"].startswith("text/csv")
        assert list(csv.reader(io.StringIO(answer.text))) == [["host", "events"], ["'=1+1", "-3"], ["", "2"]]


def test_filters_reach_the_queries(client: TestClient, answers: Answers) -> None:
    assert client.get("/api/hosts?host=a&driver=&since=2026-01-01T00:00:00Z").status_code == 200
    assert answers.asked == [("hosts", Filter(since=1_767_225_600.0, host="a", driver=""))]


@pytest.mark.parametrize(
    "address",
    [
        "/api/hosts?since=yesterday",
        "/api/hosts?colour=red",
        "/api/hosts?host=a&host=b",
        "/api/hosts?format=xml",
        "/api/event",
        "/api/event?id=" + "x" * 1001,
        "/api/report?by=colour",
        "/api/status?since=1h",
    ],
)
def test_a_wrong_question_is_answered_by_one_sentence(client: TestClient, address: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 400
    assert re.fullmatch(r"[A-Z][^.]*\.", answer.json()["error"])


def test_a_refusal_says_when_to_ask_again(client: TestClient, answers: Answers) -> None:
    answers.busy = True
    answer = client.get("/api/summary")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_an_event_a_report_and_the_status(client: TestClient) -> None:
    assert client.get("/api/event?id=known").json()["log"] == "{}"
    assert client.get("/api/event?id=unknown").status_code == 404
    assert client.get("/api/report?by=driver").json()["events"] == 1
    assert client.get("/api/report?format=csv").text.splitlines()[1] == "A,,1,0,1,1,1"
    assert client.get("/api/status").json()["refused"] == {"not JSON": 3}
    assert client.get("/api/status?format=csv").text.split() == [
        "name,value",
        "version,1",
        "refused.not",
        "JSON,3",
        "store.problems,full",
    ]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_what_a_sender_says_is_no_formula(start: str) -> None:
    assert list(csv.reader(io.StringIO(to_csv(["a"], [[start + "1"]]), newline=""))) == [
        ["a"],
        [f"'{start}1"],
    ]


def test_the_page_and_its_files_carry_a_strict_policy(client: TestClient) -> None:
    page = client.get("/")
    files = re.findall(r'(?:src|href)="(/page/[^"]+)"', page.text)
    assert len(files) >= 6
    for answer in (page, *(client.get(file) for file in files)):
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert not re.search(r"<style|<script(?![^>]*\bsrc=)| on\w+=| style=", page.text)
    assert not re.search(r"https?://", page.text), "the page knows no address but its own"


def test_files_beside_the_page_are_not_served(client: TestClient) -> None:
    for name in ("routes.py", "..%2froutes.py", "index.html", "%00"):
        assert client.get(f"/page/{name}").status_code == 404


def test_the_charts_library_comes_compressed_and_is_kept(client: TestClient) -> None:
    path = re.search(r'href="(/page/plotly[^"]+)"', client.get("/").text)
    assert path is not None
    answer = client.get(path[1])
    assert "max-age=31536000" in answer.headers["cache-control"]
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.text.startswith("/**\n* plotly.js")
    assert len(gzip.decompress(plotly_js().compressed)) > len(plotly_js().compressed) * 2
    again = client.get(path[1], headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_description_names_each_route(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert described == json.loads(json.dumps(describe()))
    served = {route.path for route in client.app.routes}  # type: ignore[attr-defined]
    assert {path for path in served if not path.startswith("/page/")} <= set(described["paths"])
    for path in described["paths"]:
        if path.startswith("/api/") and "{" not in path:
            assert path in served
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described)))
    assert references <= set(described["components"]["schemas"])
