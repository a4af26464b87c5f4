"""A collector over a real socket, into a real folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from adbc_telemetry.collector.server import Collector
    from support.collecting import Sender


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def collector(store: Path) -> Iterator[Collector]:
    from adbc_telemetry.collector.server import Collector

    with Collector(store) as collector:
        yield collector


@pytest.fixture
def sender(collector: Collector) -> Iterator[Sender]:
    from support.collecting import Sender

    sender = Sender(collector.url)
    yield sender
    sender.pool.close()
