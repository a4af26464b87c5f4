"""Fixtures of ADBC and plain PEP 249 connections, with and without instrumentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from adbc_telemetry import install, instrument, uninstall
from adbc_telemetry.testing import CapturingExporter
from support.databases import PLAIN, Database, database_of

# The module skips where ADBC is not installed. So the fixtures import it, and not this file, which all tests here load.
if TYPE_CHECKING:
    from support.adbc import Recording

ENDPOINT = "telemetry.example"


@pytest.fixture
def recording() -> Recording:
    from support.adbc import Recording

    return Recording()


@pytest.fixture(params=["sqlite", "duckdb"])
def connect(request: pytest.FixtureRequest) -> Callable[..., Any]:
    from support.adbc import connect_duckdb, connect_sqlite

    return connect_sqlite if request.param == "sqlite" else connect_duckdb


@pytest.fixture
def connection(connect: Callable[..., Any], recording: Recording) -> Iterator[Any]:
    from support.adbc import enabled

    with connect() as raw:
        yield instrument(raw, ENDPOINT, config=enabled(), exporter=recording)


@pytest.fixture
def sqlite(recording: Recording) -> Iterator[Any]:
    from support.adbc import connect_sqlite, enabled

    with connect_sqlite() as raw:
        yield instrument(raw, ENDPOINT, config=enabled(), exporter=recording)


@pytest.fixture
def installed(recording: Recording) -> Iterator[Recording]:
    from support.adbc import enabled

    install(ENDPOINT, config=enabled(), exporter=recording)
    yield recording
    uninstall()


@pytest.fixture(params=PLAIN)
def database(request: pytest.FixtureRequest) -> Database:
    return database_of(request, request.param)


@pytest.fixture
def captured() -> CapturingExporter:
    return CapturingExporter()
