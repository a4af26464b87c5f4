"""Connections over ADBC's SQLite, and what OpenTelemetry gets of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from support.spans import Spans

THREE_ROWS = "SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3"


@pytest.fixture
def spans() -> Spans:
    from support.spans import Spans

    return Spans()


@pytest.fixture
def raw() -> Iterator[Any]:
    sqlite = pytest.importorskip("adbc_driver_sqlite.dbapi")
    with sqlite.connect() as connection:
        yield connection


@pytest.fixture
def connection(raw: Any, spans: Spans) -> Any:
    return spans.follow(raw)


@pytest.fixture
def cursor(connection: Any) -> Iterator[Any]:
    with connection.cursor() as cursor:
        yield cursor
