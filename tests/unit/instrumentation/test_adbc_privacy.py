"""Nothing of the user's enters an event of an ADBC connection."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from adbc_telemetry import (
    instrument,
)
from support.adbc import (
    ENDPOINT,
    Recording,
    enabled,
)

dbapi = pytest.importorskip("adbc_driver_manager.dbapi")
_lib = pytest.importorskip("adbc_driver_manager._lib")
pyarrow = pytest.importorskip("pyarrow")
sqlite_dbapi = pytest.importorskip("adbc_driver_sqlite.dbapi")

# Promise 12: private by construction.


def test_nothing_of_the_users_enters_an_event(connect: Any, recording: Recording) -> None:
    connection = instrument(connect(), ENDPOINT, config=enabled(), exporter=recording)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE secret_table (secret_column TEXT)")
        cursor.execute("INSERT INTO secret_table VALUES ('secret_literal')")
        cursor.execute("INSERT INTO secret_table VALUES (?)", ("secret_parameter",))
        cursor.executemany("INSERT INTO secret_table VALUES (?)", [("secret_many",)])
        cursor.execute(
            "SELECT secret_column AS secret_alias FROM secret_table /* secret_comment */"
        ).fetchall()
        cursor.adbc_ingest("secret_ingested", pyarrow.table({"secret_field": ["secret_value"]}))
        connection.adbc_get_table_schema("secret_table")
        connection.adbc_get_objects(
            depth="tables", catalog_filter="secret_catalog", table_name_filter="secret_filter"
        ).read_all()
        for sql in ("SELECT secret_missing FROM secret_nowhere", "secret_nonsense"):
            with pytest.raises(dbapi.Error, match="secret_"):
                cursor.execute(sql)
        with pytest.raises(ValueError, match="secret_depth"):
            connection.adbc_get_objects(depth="secret_depth")
    connection.close()
    assert len(recording.driver_logs()) == 13
    for log in recording.logs:
        assert b"secret_" not in msgspec.json.encode(log)
        assert "secret_" not in repr(log)


def test_credentials_of_the_uri_do_not_enter_an_event(recording: Recording, tmp_path: Any) -> None:
    path = tmp_path / "secret_file.db"
    with instrument(
        sqlite_dbapi.connect(f"file:{path}?secret_password=x"),
        ENDPOINT,
        config=enabled(),
        exporter=recording,
        auth=lambda: {"Authorization": "Bearer secret_token"},
    ) as connection:
        connection.execute("SELECT 1").close()
    assert len(recording.driver_logs()) == 3
    for log in recording.logs:
        assert b"secret_" not in msgspec.json.encode(log)
        assert str(tmp_path).encode() not in msgspec.json.encode(log)
