"""Promise 12, with real drivers: nothing of the user is in what is sent, logged or spooled, in success or failure."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from adbc_telemetry import TelemetryConfiguration, instrument
from adbc_telemetry.context import StatementTelemetryContext
from support.databases import ADBC, PLAIN, WAYS
from support.server import Reply, TelemetryServer, refused_url

SENTINEL = "sentinel"  # part of all that must not be seen, and of nothing else


def open_adbc_sqlite(folder: Path, _: pytest.FixtureRequest) -> Any:
    dbapi = pytest.importorskip("adbc_driver_sqlite.dbapi")
    return dbapi.connect(f"file:{folder}/sentinel_file.db?sentinel_option=sentinel_password")


def open_adbc_duckdb(folder: Path, _: pytest.FixtureRequest) -> Any:
    return pytest.importorskip("adbc_driver_duckdb.dbapi").connect(str(folder / "sentinel_file.db"))


def uri_of(request: pytest.FixtureRequest) -> str:
    """Of a user, an application and a schema with sentinels for names, and a password."""
    psycopg = pytest.importorskip("psycopg")
    server = request.getfixturevalue("postgres")
    with psycopg.connect(server.uri(), autocommit=True) as admin:
        admin.execute("DROP SCHEMA IF EXISTS sentinel_schema CASCADE")
        if not admin.execute("SELECT 1 FROM pg_roles WHERE rolname = 'sentinel_user'").fetchone():
            admin.execute("CREATE ROLE sentinel_user SUPERUSER LOGIN")
        admin.execute("CREATE SCHEMA sentinel_schema")
    plain = str(server.uri()).replace("user=postgres", "user=sentinel_user")
    options = quote("-csearch_path=sentinel_schema", safe="")
    return f"{plain}&password=sentinel_password&application_name=sentinel_application&options={options}"


def open_adbc_postgresql(_: Path, request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip("adbc_driver_postgresql.dbapi").connect(uri_of(request))


def open_sqlite3(folder: Path, _: pytest.FixtureRequest) -> Any:
    return sqlite3.connect(folder / "sentinel_file.db")


def open_duckdb(folder: Path, _: pytest.FixtureRequest) -> Any:
    return pytest.importorskip("duckdb").connect(str(folder / "sentinel_file.db"))


def open_psycopg(_: Path, request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip("psycopg").connect(uri_of(request))


OPEN: dict[str, Callable[[Path, pytest.FixtureRequest], Any]] = {
    "ADBC SQLite": open_adbc_sqlite,
    "ADBC DuckDB": open_adbc_duckdb,
    "ADBC PostgreSQL": open_adbc_postgresql,
    "sqlite3": open_sqlite3,
    "duckdb": open_duckdb,
    "psycopg": open_psycopg,
}
MARKS = {"ADBC PostgreSQL": "$1", "psycopg": "%s"}


def work(connection: Any, name: str, open_file: Path) -> Iterator[Callable[[], object]]:
    """Steps with a sentinel in all that the program says; some succeed and some fail, by the driver."""
    mark = MARKS.get(name, "?")
    cursor = connection.cursor()
    yield lambda: cursor.execute("CREATE TABLE sentinel_table (sentinel_column VARCHAR(40))")
    yield lambda: cursor.execute("INSERT INTO sentinel_table VALUES ('sentinel_literal')")
    yield lambda: cursor.execute(f"INSERT INTO sentinel_table VALUES ({mark})", ("sentinel_parameter",))
    yield lambda: cursor.executemany(f"INSERT INTO sentinel_table VALUES ({mark})", [("sentinel_many",)])
    yield connection.commit
    query = "SELECT sentinel_column AS sentinel_alias FROM sentinel_table /* sentinel_comment */"
    yield lambda: cursor.execute(query).fetchall()
    yield lambda: cursor.execute(query).fetchone()
    yield lambda: cursor.execute("SELECT sentinel_missing FROM sentinel_nowhere")
    yield connection.rollback
    yield lambda: cursor.execute("sentinel_nonsense")
    yield connection.rollback
    yield lambda: cursor.execute(
        "SELECT CAST('sentinel_text' || sentinel_column AS INT) / 0 FROM sentinel_table"
    )
    yield cursor.fetchall
    yield connection.rollback
    yield lambda: cursor.execute(f"ATTACH '{open_file}/sentinel_folder/none' AS sentinel_attached")
    yield connection.rollback
    yield lambda: cursor.execute(query, {"sentinel_name": "sentinel_value"})
    yield connection.rollback
    yield lambda: cursor.executescript("SELECT 'sentinel_script'; sentinel_nonsense")
    yield connection.rollback
    yield lambda: cursor.callproc("sentinel_procedure", ("sentinel_argument",))
    if name in ADBC:
        import pyarrow

        table = pyarrow.table({"sentinel_field": ["sentinel_value"]})
        yield lambda: cursor.adbc_ingest("sentinel_ingested", table)
        yield lambda: cursor.adbc_ingest("sentinel_ingested", table)
        yield connection.rollback
        yield lambda: cursor.adbc_ingest("sentinel_ingested", table, mode="sentinel_mode")
        yield lambda: cursor.adbc_prepare(query)
        yield lambda: cursor.adbc_execute_schema(query)
        yield lambda: cursor.adbc_execute_partitions(query)
        yield lambda: cursor.adbc_read_partition(b"sentinel_partition")
        yield lambda: cursor.execute(query).fetch_arrow_table()
        yield lambda: cursor.execute(query).fetch_df()
        yield lambda: cursor.execute(query).fetch_polars()
        yield lambda: cursor.execute(query).fetch_record_batch().read_all()
        yield lambda: pyarrow.table(cursor.execute(query).fetch_arrow())
        yield lambda: connection.adbc_get_table_schema("sentinel_table")
        yield lambda: connection.adbc_get_table_schema("sentinel_none", db_schema_filter="sentinel_schema")
        yield connection.rollback
        yield lambda: connection.adbc_get_objects(
            catalog_filter="sentinel_catalog", table_name_filter="sentinel_filter"
        ).read_all()
        yield lambda: connection.adbc_get_objects(depth="sentinel_depth")
        yield lambda: connection.adbc_get_statistics(table_name_filter="sentinel_table").read_all()
        yield connection.rollback
        yield lambda: connection.adbc_connection.set_options(sentinel_option="sentinel_value")
        yield connection.adbc_get_info
    yield cursor.close
    yield connection.close


def run(steps: Iterator[Callable[[], object]]) -> int:
    """How many steps fail with a sentinel in their message or traceback."""
    failures = 0
    for step in steps:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - what fails, fails by the driver
            failures += SENTINEL in "".join(traceback.format_exception(error))
    return failures


def assert_no_sentinel(*texts: bytes | str) -> None:
    for text in texts:
        plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        assert SENTINEL not in plain.lower(), plain[max(0, plain.lower().index(SENTINEL) - 200) :][:400]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "sentinel_folder"
    made.mkdir()
    return made


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def texts_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [caplog.text, *(repr(vars(record)) for record in caplog.records if record.name != "root")]


@pytest.mark.parametrize("name", WAYS)
def test_nothing_of_the_users_is_sent_or_logged(
    name: str,
    folder: Path,
    server: TelemetryServer,
    logged: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    connection = instrument(
        OPEN[name](folder, request),
        server.url,
        config=TelemetryConfiguration(enabled=True),
        auth=lambda: {"Authorization": "Bearer sentinel_token"},
    )
    assert run(work(connection, name, folder)) > 3
    assert len(server.accepted) > 10
    for sent in server.requests:
        headers = {key: value for key, value in sent.headers.items() if key != "Authorization"}
        assert_no_sentinel(sent.path, repr(headers), sent.raw, sent.body)
    assert_no_sentinel(*texts_of(logged))


@pytest.mark.parametrize("name", ["ADBC SQLite", "sqlite3"])
@pytest.mark.parametrize("status", [400, 413, 503])
def test_nothing_of_the_users_is_sent_or_logged_when_the_endpoint_fails(
    status: int,
    name: str,
    folder: Path,
    server: TelemetryServer,
    logged: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    server.always = lambda _: Reply(status=status, body=b"sentinel_answer")
    config = TelemetryConfiguration(enabled=True, batch_size=5, max_retries=1, retry_delay_ms=1)
    connection = instrument(OPEN[name](folder, request), server.url, config=config)
    assert run(work(connection, name, folder)) > 3
    assert server.requests
    for sent in server.requests:
        assert_no_sentinel(repr(sent.headers), sent.raw)
    assert_no_sentinel(*texts_of(logged))


@pytest.mark.parametrize("name", WAYS)
def test_nothing_of_the_users_is_spooled(
    name: str,
    folder: Path,
    logged: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    spool = folder / "sentinel_spool"
    config = TelemetryConfiguration(enabled=True, max_retries=0, retry_delay_ms=1, spool_dir=spool)
    connection = instrument(OPEN[name](folder, request), refused_url(), config=config)
    assert run(work(connection, name, folder)) > 3
    spooled = [path.read_bytes() for path in spool.rglob("*") if path.is_file()]
    assert sum(map(len, spooled)) > 1000
    assert_no_sentinel(*spooled, *(path.name for path in spool.rglob("*")), *texts_of(logged))


@pytest.mark.parametrize("name", ["ADBC SQLite", *PLAIN[:1]])
def test_errors_of_telemetry_itself_are_logged_without_their_messages(
    name: str,
    folder: Path,
    logged: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError(f"sentinel_message {args} {kwargs}")

    config = TelemetryConfiguration(enabled=True, max_retries=0)
    connection = instrument(OPEN[name](folder, request), refused_url(), config=config)
    monkeypatch.setattr(StatementTelemetryContext, "record_execute_complete", broken)
    assert run(work(connection, name, folder)) > 3
    with contextlib.suppress(Exception):
        connection.close()
    assert "ZeroDivisionError" in logged.text
    assert_no_sentinel(*texts_of(logged))
