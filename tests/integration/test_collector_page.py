"""The page in a real browser: each control used, nothing loaded from elsewhere, no violation of accessibility.

Skipped where there is no Chromium; it is not downloaded.
"""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("plotly")
playwright_api = pytest.importorskip("playwright.sync_api")

from support.event_stores import EventStore, an_event  # noqa: E402
from support.page_server import CHROMIUM, READY, PageServer  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None, reason="there is no Chromium here; install it: apt-get install chromium"
    ),
    pytest.mark.timeout(180),
]

STATUS: dict[str, object] = {
    "version": "1.2.3",
    "started_at": "2026-03-01T12:00:00Z",
    "store": {"path": "a folder", "bytes": 1_500_000, "free_bytes": 2_000_000_000, "problems": []},
    "refused": {"the log is not JSON": 7},
    "unknown_fields": {"entry.sql_driver_log.a_new_field": 12},
}
HOSTILE = '<img src=x onerror="document.title=1"><b>bold</b>'


def fill(store: EventStore) -> None:
    rng, now = random.Random(1), time.time()
    events = [
        an_event(
            at=now - rng.randrange(3600),
            operation=rng.choice(["EXECUTE_STATEMENT", "CREATE_SESSION"]),
            driver=rng.choice(["one", "two"]),
            version=rng.choice(["1", "2"]),
            host=rng.choice(["a.example", "b.example"]),
            error=rng.choice([None, None, "TimeoutError"]),
            ms=rng.randrange(2000),
        )
        for _ in range(400)
    ]
    store.add_file(
        [*events, an_event(at=now - 60, driver=HOSTILE, host=HOSTILE, error=HOSTILE, ms=99_999)], received=now
    )


@pytest.fixture
def empty(tmp_path: Path) -> EventStore:
    return EventStore(tmp_path / "store")


@pytest.fixture
def server(empty: EventStore) -> Iterator[PageServer]:
    fill(empty)
    with PageServer(empty, STATUS) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright_api.sync_playwright() as playwright:
        # The tests may run as root. Chromium's sandbox does not.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """A page that must not complain, nor ask another origin for anything."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(30_000)
        self.url = url
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._see)

    def _note(self, message: Any) -> None:
        # A 401 is the answer that the page waits for; browsers report it all the same.
        if message.type in ("error", "warning") and "401" not in message.text:
            self.complaints.append(message.text)

    def _see(self, request: Any) -> None:
        if not request.url.startswith((self.url, "blob:", "data:")):
            self.foreign.append(request.url)

    def open(self, query: str = "") -> Page:
        self.page.goto(f"{self.url}/{query}")
        self.page.wait_for_selector(READY, state="attached")
        return self.page

    def settle(self) -> None:
        # It may be over before the test looks.
        with contextlib.suppress(playwright_api.TimeoutError):
            self.page.wait_for_selector('#figures[aria-busy="true"]', state="attached", timeout=2000)
        self.page.wait_for_selector(READY, state="attached")


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, timezone_id="UTC", locale="en-GB")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield context
    context.close()


@pytest.fixture
def watched(context: BrowserContext, server: PageServer) -> Iterator[Watched]:
    watched = Watched(context, server.url)
    yield watched
    assert watched.complaints == []
    assert watched.foreign == []


def figure(page: Page, name: str) -> str:
    return page.locator(f"#tiles div:has(dt:text-is('{name}')) dd").inner_text()


def wait_for_events(page: Page, number: str) -> None:
    page.wait_for_function(
        "expected => document.querySelector('#tiles dd')?.textContent === expected", arg=number
    )


def violations(page: Page) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]


def test_the_first_screen_shows_all_panels(watched: Watched) -> None:
    page = watched.open()
    assert figure(page, "Events") == "401"
    for panel in ("operations", "drivers", "hosts", "errors", "slowest", "newest", "refused", "unknown"):
        assert page.locator(f"#{panel} tbody tr").count() >= 1
    assert page.locator("#rate .bars .point").count() > 10
    assert page.locator("#latency .scatterlayer .trace").count() == 3
    assert "1.5 MB" in page.locator("#store").inner_text()
    assert "the log is not JSON" in page.locator("#refused").inner_text()
    assert "a_new_field" in page.locator("#unknown").inner_text()
    assert page.locator("#health").inner_text() == "Collecting"


def test_what_events_say_is_text(watched: Watched) -> None:
    page = watched.open()
    assert page.locator("#figures b, main img").count() == 0
    assert page.title().startswith("Collector")
    page.locator("#hosts button", has_text=HOSTILE).click()
    wait_for_events(page, "1")
    assert HOSTILE in page.locator("#filters").inner_text()
    assert page.locator("#figures b, main img").count() == 0


def test_a_click_filters_and_the_address_keeps_it(watched: Watched) -> None:
    page = watched.open()
    page.locator("#drivers button", has_text="one").first.click()
    watched.settle()
    page.locator("#operations button", has_text="CREATE_SESSION").click()
    watched.settle()
    page.locator("#tiles button").click()  # the share of errors
    watched.settle()
    assert {"driver=one", "operation=CREATE_SESSION", "error=*"} <= set(page.url.partition("?")[2].split("&"))
    shown = figure(page, "Events")
    assert int(shown) < 200
    address = page.url

    page.go_back()
    page.wait_for_function("shown => document.querySelector('#tiles dd').textContent !== shown", arg=shown)
    page.go_forward()
    wait_for_events(page, shown)

    page.goto(address)  # as one who was sent it
    wait_for_events(page, shown)
    page.locator(".chip", has_text="one").click()
    watched.settle()
    assert "driver=" not in page.url
    page.get_by_role("button", name="Clear all").click()
    wait_for_events(page, "401")
    assert page.locator("#filters").is_hidden()


def test_the_range_is_chosen_typed_and_drawn(watched: Watched) -> None:
    page = watched.open()
    page.select_option("#range", "15m")
    watched.settle()
    assert "since=15m" in page.url
    few = int(figure(page, "Events"))
    assert 0 < few < 401
    page.select_option("#range", "all")
    wait_for_events(page, "401")

    page.select_option("#range", "custom")
    page.fill("#from", "2020-01-01T00:00")
    page.fill("#to", "2020-01-02T00:00")
    page.get_by_role("button", name="Show", exact=True).click()
    page.wait_for_selector("#nothing:not([hidden])")
    assert "since=2020-01-01T00:00:00Z" in page.url.replace("%3A", ":")
    page.get_by_role("button", name="Show everything").click()
    wait_for_events(page, "401")

    page.select_option("#range", "1h")
    watched.settle()
    page.wait_for_selector("#rate .bars .point")
    plot = page.locator("#rate .nsewdrag").first.bounding_box()
    assert plot is not None
    middle = plot["y"] + plot["height"] / 2
    page.mouse.move(plot["x"] + plot["width"] * 0.3, middle)
    page.mouse.down()
    page.mouse.move(plot["x"] + plot["width"] * 0.7, middle, steps=8)
    page.mouse.up()
    page.wait_for_url(re.compile("until="))


def test_an_interval_is_chosen_by_keyboard_in_the_table_of_a_chart(watched: Watched) -> None:
    page = watched.open("?since=1h")
    page.locator("summary", has_text="Events over time as a table").focus()
    page.keyboard.press("Enter")
    page.locator("#rate-table button").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("until="))
    watched.settle()
    assert page.locator("#custom").is_visible()


def test_an_event_is_opened_with_its_log(watched: Watched) -> None:
    page = watched.open()
    page.locator("#slowest tbody button").first.click()
    page.wait_for_selector("#event[open]")
    assert "99999" in page.locator("#event-facts").inner_text()
    assert '"operation_latency_ms": 99999' in page.locator("#event-log").inner_text()
    assert violations(page) == []
    page.get_by_role("button", name="Copy the log").click()
    assert '"frontend_log_event_id"' in page.evaluate("navigator.clipboard.readText()")
    page.keyboard.press("Escape")
    assert page.locator("#event").is_hidden()
    page.locator("#newest tbody button").first.click()
    page.get_by_role("button", name="Close").click()
    assert page.locator("#event").is_hidden()


def test_new_events_appear_by_themselves_until_live_is_turned_off(
    watched: Watched, server: PageServer
) -> None:
    page = watched.open("?refresh=60")
    server.store.add_segment([an_event(at=time.time(), host="just-now.example")], received=time.time())
    page.wait_for_selector("#newest tr.new:has-text('just-now.example')")
    live = page.locator("#live")
    live.click()
    assert live.get_attribute("aria-pressed") == "false"
    page.locator("#reload").click()
    wait_for_events(page, "402")


def test_refresh_theme_and_link(watched: Watched) -> None:
    page = watched.open()
    page.select_option("#refresh", "5")
    watched.settle()
    assert "refresh=5" in page.url
    background = "getComputedStyle(document.body).backgroundColor"
    seen = {page.evaluate(background)}
    page.locator("#theme").click()
    page.locator("#theme").click()
    assert page.locator("#theme").inner_text() == "Theme: dark"
    seen.add(page.evaluate(background))
    assert len(seen) == 2
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.locator("#share").click()
    assert page.evaluate("navigator.clipboard.readText()") == page.url


def test_each_panel_is_downloaded_as_csv_and_json(watched: Watched) -> None:
    page = watched.open("?driver=one")
    links = page.locator(".exports a")
    assert links.count() >= 18
    for place in range(links.count()):
        address = links.nth(place).get_attribute("href") or ""
        answer = page.request.get(watched.url + address)
        assert answer.ok
        kind = "text/csv" if "format=csv" in address else "application/json"
        assert answer.headers["content-type"].startswith(kind)
        assert "driver=one" in address or "status" in address
    with page.expect_download() as download:
        page.get_by_label("Operations as CSV").click()
    assert download.value.suggested_filename == "operations.csv"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_each_theme_and_width_is_accessible_and_fits(
    browser: Browser, server: PageServer, scheme: Any, width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    watched = Watched(context, server.url)
    page = watched.open("?error=*&driver=one&refresh=0")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for summary in page.locator("summary").all():
        summary.click()
    assert violations(page) == []
    assert watched.complaints == []
    context.close()


def test_the_keyboard_reaches_each_control_and_its_place_is_seen(watched: Watched) -> None:
    page = watched.open("?refresh=0")
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "[document.activeElement.id || document.activeElement.className, "
                "getComputedStyle(document.activeElement).outlineStyle]"
            )
        )
    names = [name for name, _ in reached]
    assert names[:6] == ["skip", "range", "refresh", "reload", "share", "theme"]
    assert all(outline != "none" for _, outline in reached)


def test_an_empty_collector_says_how_to_send_a_first_event(
    context: BrowserContext, empty: EventStore
) -> None:
    with PageServer(empty, STATUS) as server:
        watched = Watched(context, server.url)
        page = watched.open()
        page.wait_for_selector("#welcome:not([hidden])")
        assert violations(page) == []
        page.get_by_role("button", name="Copy the command").click()
        command = page.evaluate("navigator.clipboard.readText()")
        assert command.startswith(f"curl {server.url}/telemetry-unauth")
        page.get_by_role("button", name="Copy the Python").click()
        assert server.url in page.evaluate("navigator.clipboard.readText()")
        empty.add_segment([an_event(at=time.time())], received=time.time())
        wait_for_events(page, "1")
        assert page.locator("#welcome").is_hidden()
        assert watched.complaints == []


def test_a_collector_with_a_token_is_asked_for_it(context: BrowserContext, empty: EventStore) -> None:
    fill(empty)
    with PageServer(empty, STATUS, token="a secret") as server:
        watched = Watched(context, server.url)
        page = watched.page
        page.goto(server.url)
        page.wait_for_selector("#login[open]")
        assert violations(page) == []
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#login-problem:has-text('Try another')")
        page.fill("#token", "a secret")
        page.keyboard.press("Enter")
        wait_for_events(page, "401")
        with page.expect_download() as download:
            page.get_by_label("Hosts as CSV").click()
        assert download.value.suggested_filename == "hosts.csv"
        assert "secret" not in page.url
        assert page.evaluate("localStorage.length") == 0
        page.reload()
        wait_for_events(page, "401")
        assert watched.complaints == []


def test_a_collector_that_stops_is_reported_and_found_again(
    context: BrowserContext, server: PageServer
) -> None:
    watched = Watched(context, server.url)
    page = watched.open("?refresh=0")
    context.set_offline(True)
    page.locator("#reload").click()
    page.wait_for_selector("#problem:not([hidden])")
    assert "does not answer" in page.locator("#problem").inner_text()
    assert violations(page) == []
    context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector("#problem", state="hidden")


def test_problems_of_the_store_are_shown(watched: Watched, server: PageServer) -> None:
    server.status["store"] = {"problems": ["The disk is full; make room."]}
    page = watched.open()
    page.wait_for_selector("#health:text-is('Not well')")
    assert "The disk is full" in page.locator("#store").inner_text()
