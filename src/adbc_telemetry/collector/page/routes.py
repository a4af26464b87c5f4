"""The routes of the page and its API."""

from __future__ import annotations

from collections.abc import Callable

from starlette.routing import BaseRoute

from adbc_telemetry.collector.queries.service import QueryService


def page_routes(queries: QueryService, status: Callable[[], dict[str, object]]) -> list[BaseRoute]:
    """The routes of the page and its API.

    Args:
        queries: answers the panels' questions; stays the caller's to close.
        status: what `/api/status` says: `version`, `started_at` (ISO time), `store` (`path`, `bytes`, `free_bytes`,
            `journal_bytes`, `events`, `duplicates`, `newest_commit_age_seconds`, `problems`), `refused` (events by
            reason) and `unknown_fields` (events by name). All of them may be missing.
    """
    return []
