"""Takes the pictures of the page for the documentation: `make pictures`."""

from __future__ import annotations

import math
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import sync_playwright

from support.event_stores import EventStore, an_event
from support.page_server import CHROMIUM, READY, PageServer

DAY: Final = 86_400
EVENTS: Final = 60_000
DRIVERS: Final = [
    ("ADBC PostgreSQL", "1.9.0", 12, 5),
    ("ADBC PostgreSQL", "1.8.0", 14, 3),
    ("databricks-sql-python", "4.1.2", 90, 4),
    ("ADBC SQLite", "1.9.0", 2, 2),
    ("ADBC Databricks (C#)", "0.21.0", 80, 2),
]
OPERATIONS: Final = [
    ("EXECUTE_STATEMENT", "QUERY", 1.0, 9),
    ("EXECUTE_STATEMENT", "UPDATE", 0.6, 3),
    ("CREATE_SESSION", None, 2.5, 1),
    ("DELETE_SESSION", None, 0.2, 1),
    ("LIST_TABLES", "METADATA", 1.6, 1),
    ("LIST_COLUMNS", "METADATA", 1.4, 1),
]
HOSTS: Final = ["analytics.example", "orders.example", "reports.example", "staging.example"]
ERRORS: Final = ["OperationalError", "TimeoutError", "ProgrammingError", "IntegrityError"]
STATUS: Final[dict[str, object]] = {
    "version": "0.2.0",
    "store": {
        "path": "/var/lib/adbc-telemetry",
        "bytes": 912_400_000,
        "free_bytes": 41_800_000_000,
        "journal_bytes": 3_400_000,
        "events": 9_871_402,
        "newest_commit_age_seconds": 0.8,
        "problems": [],
    },
    "refused": {"operation_latency_ms is not a number": 14, "the log is not JSON": 3},
    "unknown_fields": {"context.client_context.client_type": 12_043, "sql_operation.is_prepared": 877},
}
VIEWS: Final[dict[str, dict[str, Any]]] = {
    "light": {"viewport": {"width": 1280, "height": 1500}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 1500}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 1400}, "color_scheme": "light"},
}


def main(docs: Path) -> None:
    if CHROMIUM is None:
        sys.exit("There is no Chromium here; install it: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        store = EventStore(Path(folder) / "store")
        store.add_file(a_day(random.Random(4)), received=time.time())
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 9 * DAY))
        with PageServer(store, {**STATUS, "started_at": started}) as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for name, options in VIEWS.items():
                context = browser.new_context(**options, timezone_id="UTC", locale="en-GB")
                page = context.new_page()
                page.goto(f"{server.url}/?refresh=0")
                page.wait_for_selector(READY, state="attached")
                page.wait_for_selector("#latency .scatterlayer .trace >> nth=2", state="attached")
                page.evaluate("() => Promise.all(document.getAnimations().map((each) => each.finished))")
                page.screenshot(path=docs / f"collector-{name}.png")
                context.close()
            browser.close()


def a_day(rng: random.Random) -> list[dict[str, Any]]:
    """Busier by day than by night, with an hour in which one host does not answer."""
    now = time.time()
    events: list[dict[str, Any]] = []
    while len(events) < EVENTS:
        ago = rng.random() * DAY
        hours = (now - ago) % DAY / 3600
        if rng.random() > 0.25 + 0.75 * max(0.0, math.sin((hours - 5) / 14 * math.pi)):
            continue
        driver, version, usual, _ = rng.choices(DRIVERS, [each[3] for each in DRIVERS])[0]
        operation, statement_type, factor, _ = rng.choices(OPERATIONS, [each[3] for each in OPERATIONS])[0]
        host = rng.choices(HOSTS, [5, 4, 2, 1])[0]
        is_ill = host == "orders.example" and 3.0 < ago / 3600 < 4.2
        fails = rng.random() < (0.35 if is_ill else 0.012)
        events.append(
            an_event(
                at=now - ago,
                driver=driver,
                version=version,
                operation=operation,
                statement_type=statement_type,
                host=host,
                error=rng.choices(ERRORS, [1, 12, 0, 0] if is_ill else [4, 1, 3, 1])[0] if fails else None,
                ms=int(usual * factor * rng.lognormvariate(0, 0.8) * (4 if is_ill else 1)),
            )
        )
    return events


if __name__ == "__main__":
    main(Path(sys.argv[1]))
