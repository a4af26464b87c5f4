"""Who may talk to the collector."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("starlette")

import urllib3
from starlette.responses import Response

from adbc_telemetry.collector.access import AccessControl, is_loopback
from adbc_telemetry.collector.server import Collector, CollectorError
from support.collecting import TIMEOUT

TOKEN = "0123456789abcdef"
OPEN = AccessControl(Response(), token=None, hosts=["telemetry.example"])
GUARDED = AccessControl(Response(), token=TOKEN, hosts=None)
ORIGIN = "http://127.0.0.1:8317"


def answer(app: AccessControl, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str]]:
    """The status and the headers of an answer."""
    given = {
        "host": "127.0.0.1:8317",
        **{name.replace("_", "-").lower(): value for name, value in headers.items()},
    }
    scope = {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def ask(app: AccessControl, path: str, method: str = "GET", **headers: str) -> int:
    return answer(app, path, method, **headers)[0]


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()


@pytest.mark.parametrize("path", ["/telemetry-ext", "/", "/api/status", "/metrics", "/nowhere"])
@pytest.mark.parametrize(
    "credentials",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Token {TOKEN}",
        basic("wrong"),
        "Basic !!!",
        TOKEN,
    ],
)
def test_without_the_token_there_is_401(path: str, credentials: str) -> None:
    method = "POST" if path == "/telemetry-ext" else "GET"
    assert ask(GUARDED, path, method, Authorization=credentials) == 401


@pytest.mark.parametrize("credentials", [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(TOKEN)])
def test_with_the_token_there_are_answers(credentials: str) -> None:
    assert ask(GUARDED, "/telemetry-ext", "POST", Authorization=credentials) == 200
    for path in ("/", "/api/status", "/metrics"):
        assert ask(GUARDED, path, Authorization=credentials) == 200


def test_health_and_events_without_auth_need_no_token() -> None:
    assert ask(GUARDED, "/healthz") == 200
    assert ask(GUARDED, "/telemetry-unauth", "POST") == 200


def test_a_browser_is_told_to_ask_for_the_token() -> None:
    _, headers = answer(GUARDED, "/")
    assert "Basic" in headers["www-authenticate"]


@pytest.mark.parametrize("path", ["/telemetry-ext", "/telemetry-unauth"])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1"])
def test_a_web_page_of_another_origin_cannot_post(path: str, origin: str) -> None:
    assert ask(OPEN, path, "POST", Origin=origin) == 403


def test_the_collector_s_own_page_may_ask() -> None:
    assert ask(OPEN, "/api/status", Origin=ORIGIN, Sec_Fetch_Site="same-origin") == 200


@pytest.mark.parametrize("path", ["/", "/api/status", "/healthz"])
def test_another_page_can_load_nothing_from_here(path: str) -> None:
    for site in ("cross-site", "same-site"):
        assert ask(OPEN, path, Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors") == 403


def test_a_link_on_another_page_leads_to_the_page_and_no_further() -> None:
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert ask(OPEN, "/", **link) == 200
    assert ask(OPEN, "/api/status", **link) == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8317", "127.0.0.1.evil.example", "", "[", "192.0.2.1"]
)
def test_a_name_that_was_pointed_at_loopback_is_refused(host: str) -> None:
    assert ask(OPEN, "/api/status", Host=host) == 403
    assert ask(OPEN, "/telemetry-unauth", "POST", Host=host) == 403


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:8317", "127.9.9.9", "[::1]:8317", "Telemetry.Example"]
)
def test_loopback_s_names_and_those_that_are_allowed_are_served(host: str) -> None:
    assert ask(OPEN, "/healthz", Host=host) == 200


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.0.2.1"])
def test_without_a_token_only_loopback_is_listened_on(tmp_path: Path, host: str) -> None:
    with pytest.raises(
        CollectorError, match=r"without a token a collector serves this machine alone.*--token-file"
    ):
        Collector(tmp_path / "store", host).start()
    assert not (tmp_path / "store").exists()


def test_with_a_token_all_addresses_may_be_listened_on(tmp_path: Path) -> None:
    with Collector(tmp_path / "store", "0.0.0.0", token=TOKEN) as collector:
        url = f"http://127.0.0.1:{collector.url.rpartition(':')[2]}/metrics"
        for headers, status in (({}, 401), ({"Authorization": f"Bearer {TOKEN}"}, 200)):
            found = urllib3.request("GET", url, headers=headers, retries=False, timeout=TIMEOUT)
            assert found.status == status


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("", False), ("0.0.0.0", False)],
)
def test_what_loopback_is(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
