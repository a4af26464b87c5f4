"""Which database it is and where it is, from what the driver and its options say."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes.db_attributes import DbSystemNameValues

from adbc_telemetry.otel.systems import (
    BY_DRIVER,
    BY_PACKAGE,
    Place,
    place_of,
    place_of_pep249,
    system_of_driver,
    system_of_package,
)

OURS = {"databricks", "duckdb", "snowflake", "bigquery", "spark", "monetdb", "exasol", "singlestore"}


@pytest.mark.parametrize(
    ("driver", "system"),
    [
        ("ADBC SQLite Driver", "sqlite"),
        ("ADBC PostgreSQL Driver", "postgresql"),
        ("ADBC DuckDB Driver", "duckdb"),
        ("duckdb", "duckdb"),
        ("ADBC Flight SQL Driver - Go", "other_sql"),
        ("ADBC Snowflake Driver - Go", "snowflake"),
        ("ADBC Driver Foundry Driver for Google BigQuery", "bigquery"),
        ("ADBC Driver Foundry Driver for Microsoft SQL Server", "microsoft.sql_server"),
        ("ADBC Databricks Driver - Go", "databricks"),
        ("something new", "other_sql"),
        (None, "other_sql"),
    ],
)
def test_a_system_s_name_comes_from_what_the_driver_calls_itself(driver: str | None, system: str) -> None:
    assert system_of_driver(driver).name == system


def test_each_name_is_well_known_or_a_product_s_in_lower_case() -> None:
    names = {system.name for table in (BY_DRIVER, BY_PACKAGE) for system in table.values()}
    well_known = {each.value for each in DbSystemNameValues}
    assert names - well_known == OURS
    assert all(name == name.lower() for name in names)


def test_each_dialect_is_one_of_the_parser_s() -> None:
    from sqlglot.dialects.dialect import Dialect

    for system in (*BY_DRIVER.values(), *BY_PACKAGE.values()):
        if system.dialect is not None:
            Dialect.get_or_raise(system.dialect)


def test_a_driver_of_pep_249_is_known_by_its_package() -> None:
    assert system_of_package("psycopg").name == "postgresql"
    assert system_of_package("unheard_of").name == "other_sql"


LIBPQ = "/site-packages/adbc_driver_postgresql/libadbc_driver_postgresql.so"
FLIGHT = "/site-packages/adbc_driver_flightsql/libadbc_driver_flightsql.so"


@pytest.mark.parametrize(
    ("options", "place"),
    [
        (
            {"uri": "postgresql://u:secret@db.example:5433/shop?x=secret"},
            ("postgresql", "db.example", 5433, "shop"),
        ),
        ({"uri": "postgresql://db.example:5432/shop"}, ("postgresql", "db.example", None, "shop")),
        ({"uri": "postgresql:///shop?host=/run/pg&port=5433"}, ("postgresql", "/run/pg", 5433, "shop")),
        ({"uri": "postgresql://[::1]/shop"}, ("postgresql", "::1", None, "shop")),
        ({"driver": LIBPQ, "uri": "host=db.example password=secret"}, ("postgresql", None, None, None)),
        (
            {"driver": FLIGHT, "uri": "grpc+tls://sql.example:31337"},
            ("other_sql", "sql.example", 31337, None),
        ),
        ({"driver": FLIGHT, "uri": "grpc+unix:///run/sql.sock"}, ("other_sql", "/run/sql.sock", None, None)),
        (
            {"driver": "libadbc_driver_sqlite.so", "uri": "file:///home/me/secret.db"},
            ("sqlite", None, None, None),
        ),
        (
            {"driver": "/x/_duckdb.so", "entrypoint": "duckdb_adbc_init", "path": "/home/secret"},
            ("duckdb", None, None, None),
        ),
        (
            {
                "driver": "snowflake",
                "adbc.snowflake.sql.uri.host": "acc.snowflakecomputing.com",
                "adbc.snowflake.sql.uri.port": "443",
                "adbc.snowflake.sql.db": "SHOP",
                "adbc.snowflake.sql.schema": "PUBLIC",
                "password": "secret",
            },
            ("snowflake", "acc.snowflakecomputing.com", None, "SHOP|PUBLIC"),
        ),
        ({"uri": "postgresql://me:47#secret@db.example/shop"}, ("postgresql", None, None, None)),
        ({"uri": "postgresql://me:47?secret@db.example/shop"}, ("postgresql", None, None, None)),
        ({"uri": "postgresql://me:47/secret@db.example/shop"}, ("postgresql", None, None, None)),
        ({"driver": "x", "uri": "file:///home/me/secret.db"}, ("other_sql", None, None, None)),
        ({"driver": "x", "uri": "x://db.example/home/me/secret.db"}, ("other_sql", "db.example", None, None)),
        ({"uri": "databricks://token:x@dbc.example/sql/secret"}, ("databricks", "dbc.example", None, None)),
        ({"driver": "x", "uri": "http://[broken"}, ("other_sql", None, None, None)),
        ({}, ("other_sql", None, None, None)),
    ],
)
def test_options_tell_the_place_and_nothing_else(options: dict[str, Any], place: tuple[Any, ...]) -> None:
    found = place_of(options)
    assert (found.system.name, found.address, found.port, found.namespace) == place
    assert "secret" not in repr(found)


def test_a_connection_of_psycopg_tells_where_it_is() -> None:
    class Info:
        host, port, dbname, password = "db.example", 5433, "shop", "secret"

    class Connection:
        info = Info()

    system = system_of_package("psycopg")
    assert place_of_pep249(Connection(), system) == Place(system, "db.example", 5433, "shop")
    assert place_of_pep249(object(), system) == Place(system)
