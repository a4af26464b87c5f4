"""Who may talk to the collector."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("starlette")

import urllib3

from adbc_telemetry.collector.access import is_loopback
from adbc_telemetry.collector.server import Collector, CollectorError
from support.collecting import TIMEOUT, a_log, encoded, request_body

TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def open_collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Collector(
        tmp_path_factory.mktemp("open") / "store", allowed_hosts=["telemetry.example"]
    ) as collector:
        yield collector.url


@pytest.fixture(scope="module")
def guarded_collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Collector(tmp_path_factory.mktemp("guarded") / "store", token=TOKEN) as collector:
        yield collector.url


def ask(url: str, path: str, method: str = "GET", **headers: str) -> int:
    return urllib3.request(
        method,
        url + path,
        body=request_body(encoded(a_log())) if method == "POST" else None,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        timeout=TIMEOUT,
        retries=False,
    ).status


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
def test_without_the_token_there_is_401(guarded_collector: str, path: str, credentials: str) -> None:
    method = "POST" if path == "/telemetry-ext" else "GET"
    assert ask(guarded_collector, path, method, Authorization=credentials) == 401


@pytest.mark.parametrize("credentials", [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(TOKEN)])
def test_with_the_token_there_are_answers(guarded_collector: str, credentials: str) -> None:
    assert ask(guarded_collector, "/telemetry-ext", "POST", Authorization=credentials) == 200
    for path in ("/", "/api/status", "/metrics"):
        assert ask(guarded_collector, path, Authorization=credentials) == 200


def test_health_and_events_without_auth_need_no_token(guarded_collector: str) -> None:
    assert ask(guarded_collector, "/healthz") == 200
    assert ask(guarded_collector, "/telemetry-unauth", "POST") == 200


def test_a_browser_is_told_to_ask_for_the_token(guarded_collector: str) -> None:
    answer = urllib3.request("GET", guarded_collector, retries=False, timeout=TIMEOUT)
    assert "Basic" in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("path", ["/telemetry-ext", "/telemetry-unauth"])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1"])
def test_a_web_page_of_another_origin_cannot_post(open_collector: str, path: str, origin: str) -> None:
    assert ask(open_collector, path, "POST", Origin=origin) == 403


def test_the_collector_s_own_page_may_ask(open_collector: str) -> None:
    assert ask(open_collector, "/api/status", Origin=open_collector, Sec_Fetch_Site="same-origin") == 200


@pytest.mark.parametrize("path", ["/", "/api/status", "/healthz"])
def test_another_page_can_load_nothing_from_here(open_collector: str, path: str) -> None:
    for site in ("cross-site", "same-site"):
        assert ask(open_collector, path, Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors") == 403


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:8317", "127.9.9.9", "[::1]:8317", "Telemetry.Example"]
)
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert ask(open_collector, "/", **link) == 200
    assert ask(open_collector, "/api/status", **link) == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8317", "127.0.0.1.evil.example", "", "[", "192.0.2.1"]
)
def test_a_name_that_was_pointed_at_loopback_is_refused(open_collector: str, host: str) -> None:
    assert ask(open_collector, "/api/status", Host=host) == 403
    assert ask(open_collector, "/telemetry-unauth", "POST", Host=host) == 403


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:8317", "127.9.9.9", "[::1]:8317", "Telemetry.Example"]
)
def test_loopback_s_names_and_those_that_are_allowed_are_served(open_collector: str, host: str) -> None:
    assert ask(open_collector, "/healthz", Host=host) == 200


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.0.2.1"])
def test_without_a_token_only_loopback_is_listened_on(tmp_path: Path, host: str) -> None:
    with pytest.raises(
        CollectorError, match=r"without a token a collector serves this machine alone.*--token-file"
    ):
        Collector(tmp_path / "store", host).start()
    assert not (tmp_path / "store").exists()


def test_with_a_token_all_addresses_may_be_listened_on(tmp_path: Path) -> None:
    with Collector(tmp_path / "store", "0.0.0.0", token=TOKEN) as collector:
        port = collector.url.rpartition(":")[2]
        assert (
            ask(f"http://127.0.0.1:{port}", "/api/status", Authorization=f"Bearer {TOKEN}", Host="any.name")
            == 200
        )


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("", False), ("0.0.0.0", False)],
)
def test_what_loopback_is(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
