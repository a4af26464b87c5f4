"""The text of a statement without its literals, in every dialect tried; what cannot be parsed is left out."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adbc_telemetry.otel.query_text import LONGEST_TEXT, query_text

SECRET = "s3cr3t"
DIALECTS = [
    *("postgres", "sqlite", "duckdb", "snowflake", "bigquery", "databricks", "tsql", "mysql", "trino"),
    *("redshift", "clickhouse", "spark", "oracle", "exasol", "singlestore", None),
]

# For each: the dialects that know it; all, where there are none.
SECRETS: list[tuple[str, tuple[str | None, ...]]] = [
    (f"SELECT '{SECRET}' FROM t", ()),
    (f"SELECT * FROM t WHERE a = '{SECRET}' AND b = 4711 AND c < -47.11", ()),
    (f"SELECT 'it''s {SECRET}' FROM t", ()),
    (f"INSERT INTO t (a, b) VALUES ('{SECRET}', 4711), ('b', 1e4711)", ()),
    (f"UPDATE t SET a = '{SECRET}' WHERE b IN (4711, 4712, 4713)", ()),
    (f"DELETE FROM t WHERE a LIKE '%{SECRET}%'", ()),
    (f"SELECT a /* {SECRET} */ FROM t -- 4711", ()),
    (f"WITH c AS (SELECT '{SECRET}' AS x FROM t) SELECT * FROM c WHERE x BETWEEN 4711 AND 4712", ()),
    (f"SELECT CASE WHEN a = '{SECRET}' THEN 4711 ELSE 0 END FROM t", ()),
    (f"SELECT CAST('{SECRET}' AS VARCHAR(4711)) FROM t", ()),
    (f"SELECT DATE '4711-01-01', INTERVAL '4711' DAY, '{SECRET}' FROM t", ("postgres", "duckdb", "trino")),
    (f"SELECT $${SECRET}$$, $tag${SECRET}$tag$ FROM t", ("postgres", "duckdb", "redshift")),
    (f"SELECT E'\\'{SECRET}', U&'{SECRET}', X'4711', B'1' FROM t", ("postgres",)),
    (f"SELECT a -> '$.{SECRET}', b ->> '{SECRET}' FROM t", ("postgres", "duckdb", "sqlite", "mysql")),
    (f"SELECT {{'{SECRET}': 4711}}, ['{SECRET}'] FROM t", ("duckdb",)),
    (f"SELECT * FROM read_csv('/home/{SECRET}.csv')", ("duckdb",)),
    (f"SELECT * FROM '/home/{SECRET}.csv'", ("duckdb", None)),
    (f"COPY t FROM '/home/{SECRET}.csv'", ("duckdb", "postgres", "snowflake")),
    (
        f"SELECT \"{SECRET}\", 'it\\'s {SECRET}' FROM t",
        ("mysql", "bigquery", "databricks", "spark", "singlestore"),
    ),
    (f'SELECT "{SECRET}", 4711 FROM t', ("sqlite", "tsql", None)),
    (f"SELECT r'{SECRET}', '''{SECRET}''' FROM t", ("bigquery",)),
    ("SELECT 4711L, 47.11BD FROM t", ("databricks", "spark")),
    # Elsewhere, as in MySQL, this is a name.
    ("SELECT 4711_4711 FROM t", ("postgres", "sqlite", "duckdb", "trino", "clickhouse", "oracle", None)),
    (f"SELECT N'{SECRET}', 0x4711 FROM t", ("tsql", "mysql")),
    (f"SELECT q'[it's {SECRET}]' FROM t", ("oracle",)),
    (f"CREATE USER u PASSWORD '{SECRET}'", ()),
    (f"ALTER USER u WITH PASSWORD '{SECRET}'", ()),
    (f"CREATE SECRET s (TYPE s3, KEY_ID '{SECRET}')", ("duckdb",)),
    (f"CREATE STAGE s CREDENTIALS = (AWS_KEY_ID = '{SECRET}')", ("snowflake",)),
    (f"CALL f('{SECRET}', 4711)", ()),
    (f"SELECT $${SECRET}$$ FROM t", ()),
    (f"SELECT $tag${SECRET}$tag$ FROM t", ()),
    (f"CREATE FUNCTION f() RETURNS INT LANGUAGE PYTHON AS $$ {SECRET} $$", ()),
    (f"SET password = '{SECRET}'", ()),
    (f"SET password = {SECRET}", ()),
    (f"PRAGMA key = {SECRET}", ()),
    (f"PRAGMA key({SECRET})", ()),
    (f"PRAGMA key = '{SECRET}'", ("sqlite", "duckdb")),
    (f"ATTACH '{SECRET}.db' AS x", ("sqlite", "duckdb")),
    (f"COMMENT ON TABLE t IS '{SECRET}'", ()),
    (
        f"INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = '{SECRET}'",
        ("postgres", "sqlite", "duckdb"),
    ),
    (f"SELECT 1; SELECT '{SECRET}'; DROP TABLE t", ()),
    (f"EXPLAIN SELECT '{SECRET}' FROM t", ()),
    (f"SELECT '{SECRET}", ()),
    (f"SELEKT '{SECRET}'", ()),
]
CASES = [(sql, dialect) for sql, known in SECRETS for dialect in (known or DIALECTS)]


@pytest.mark.parametrize(("sql", "dialect"), CASES)
def test_no_literal_and_no_comment_is_left(sql: str, dialect: str | None) -> None:
    read = query_text(sql, dialect)
    assert read is None or not any(
        part in told for part in (SECRET, "4711") for told in (read.text, read.summary or "")
    )


def test_most_of_what_programs_send_can_be_read() -> None:
    usual = [(sql, dialect) for sql, known in SECRETS[:8] for dialect in DIALECTS if not known]
    # In BigQuery quotes are not doubled.
    assert [case for case in usual if query_text(*case) is None] == [(SECRETS[2][0], "bigquery")]


@given(secret=st.text(min_size=1, max_size=20), dialect=st.sampled_from(DIALECTS))
def test_a_literal_of_any_characters_is_replaced_or_the_text_left_out(
    secret: str, dialect: str | None
) -> None:
    quoted = secret.replace("'", "''")
    read = query_text(f"SELECT a FROM t WHERE b = '{quoted}' AND c = 1", dialect)
    assert read is None or read.text == "SELECT a FROM t WHERE b = ? AND c = ?"


@pytest.mark.parametrize(
    ("sql", "dialect", "text"),
    [
        ("select  a,\n b from T where x = $1", "postgres", "select a, b from T where x = $1"),
        (
            "SELECT a FROM t WHERE x = ?1 AND y = :name",
            "sqlite",
            "SELECT a FROM t WHERE x = ?1 AND y = :name",
        ),
        ("SELECT a FROM t WHERE x = @p", "bigquery", "SELECT a FROM t WHERE x = @p"),
        ("SELECT a FROM t WHERE x IN (1, 2, 3)", "duckdb", "SELECT a FROM t WHERE x IN (?)"),
        ('SELECT "a" FROM "t"', "postgres", 'SELECT "a" FROM "t"'),
        (
            'SELECT "a" FROM "t"',
            "sqlite",
            'SELECT ? FROM "t"',
        ),  # SQLite takes a name that it does not know for a string
        ("SELECT 1", "sqlite", "SELECT ?"),
        ("SELECT 10L, 1.5BD FROM t", "databricks", "SELECT ?, ? FROM t"),
    ],
)
def test_all_but_literals_stays_as_it_was_written(sql: str, dialect: str, text: str) -> None:
    read = query_text(sql, dialect)
    assert read is not None
    assert read.text == text


# The examples of the conventions: "Generating a summary of the query".
@pytest.mark.parametrize(
    ("sql", "summary"),
    [
        ("SELECT * FROM wuser_table WHERE username = ?", "SELECT wuser_table"),
        (
            "INSERT INTO shipping_details (order_id, address) SELECT order_id, address FROM orders WHERE order_id = ?",
            "INSERT shipping_details SELECT orders",
        ),
        ("SELECT * FROM songs, artists WHERE songs.artist_id = artists.id", "SELECT songs artists"),
        (
            "SELECT order_date FROM (SELECT * FROM orders o JOIN customers c ON o.customer_id = c.customer_id)",
            "SELECT SELECT orders customers",
        ),
        ("SELECT * FROM \"song list\", 'artists'", "SELECT \"song list\" 'artists'"),
        ("WITH c AS (SELECT * FROM a) SELECT * FROM c JOIN b ON c.x = b.x", "SELECT a SELECT b"),
        ("UPDATE s.t SET a = 1", "UPDATE s.t"),
        ("DROP TABLE t", "DROP t"),
    ],
)
def test_a_summary_names_operations_and_tables(sql: str, summary: str) -> None:
    read = query_text(sql, "sqlite")
    assert read is not None
    assert read.summary == summary


def test_a_summary_is_cut_between_two_names() -> None:
    tables = [f"a_table_with_a_long_name_{number}" for number in range(20)]
    read = query_text(f"SELECT * FROM {', '.join(tables)}", "duckdb")
    assert read is not None
    assert read.summary is not None
    assert len(read.summary) <= 255
    assert read.summary.split(" ") == ["SELECT", *tables][: len(read.summary.split(" "))]


def test_a_backslash_leaves_a_text_of_an_unknown_dialect_out() -> None:
    assert query_text("SELECT 'a\\b' FROM t", None) is None
    assert query_text("SELECT 'a\\b' FROM t", "postgres") is not None


def test_a_very_long_text_is_left_out() -> None:
    assert query_text(f"SELECT {', '.join(['a'] * LONGEST_TEXT)} FROM t", "duckdb") is None


def test_the_parser_logs_nothing_of_a_text_that_it_does_not_know(caplog: Any) -> None:
    with caplog.at_level(logging.DEBUG):
        assert query_text(f"CREATE USER nobody_else PASSWORD '{SECRET}'", "postgres") is None
    assert SECRET not in caplog.text
    logging.getLogger("sqlglot").warning("of the program's own")
    assert "of the program's own" in caplog.text
