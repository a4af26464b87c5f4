"""A collector over a real socket, into a real DuckDB file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from adbc_telemetry.collector import Collector
    from support.collecting import Sender


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "telemetry.duckdb"


@pytest.fixture
def collector(database: Path) -> Iterator[Collector]:
    from adbc_telemetry.collector import Collector

    with Collector(database) as collector:
        yield collector


@pytest.fixture
def sender(collector: Collector) -> Iterator[Sender]:
    from support.collecting import Sender

    sender = Sender(collector.url)
    yield sender
    sender.pool.close()
