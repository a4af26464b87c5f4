"""What may be told of a statement's text where the user has asked for it: the text without literals, and a summary.

The text is read by sqlglot. Each literal's token becomes `?`; comments are dropped; all else stays as the program has
written it, with single blanks. A text that sqlglot cannot parse, or parses as a command that it knows no more of, is
left out: where its literals are is not certain then. So are the texts of `SET` and `PRAGMA`, whose values may be bare
words. In some databases double quotes may be around strings. So in the
SQL of SQLite, and of databases whose dialect is not known, such a name becomes `?` too unless it is a table's.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import re
import threading
from collections.abc import Container, Iterator, Sequence
from typing import Any, Final, NamedTuple

from adbc_telemetry.core.guard import never_raises

LONGEST_TEXT: Final = 5_000
"""In characters. To parse takes about a millisecond for a hundred of them, so that a longer text is left out."""

_LONGEST_SUMMARY: Final = 255  # as the conventions have it
_TEXTS_AT_MOST: Final = 512


class QueryText(NamedTuple):
    """What is told of a text.

    Attributes:
        text: `db.query.text`.
        summary: `db.query.summary`: operations and the tables that they are applied to.
    """

    text: str
    summary: str | None


def prepare() -> None:
    """Import the parser, so that the first statement need not wait for it.

    Raises:
        ImportError: the package `sqlglot` is not installed.
    """
    importlib.import_module("sqlglot")


def _left_out(error: Exception, sql: str, dialect: str | None) -> QueryText | None:
    return None


class _Quiet(threading.local):
    """Keeps sqlglot, which logs the texts that it does not know, from logging ours."""

    reading = False

    def filter(self, record: logging.LogRecord) -> bool:
        return not self.reading


_quiet: Final = _Quiet()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    logging.getLogger("sqlglot").addFilter(_quiet)  # of the same filter, a logger takes one
    _quiet.reading = True
    try:
        yield
    finally:
        _quiet.reading = False


@functools.lru_cache(maxsize=_TEXTS_AT_MOST)
@never_raises(_left_out)
def query_text(sql: str, dialect: str | None) -> QueryText | None:
    """What may be told of a statement; None where it cannot be read.

    Args:
        sql: the statement.
        dialect: sqlglot's name of its dialect; None where it is not known.
    """
    if len(sql) > LONGEST_TEXT:
        return None
    if dialect is None and "\\" in sql:  # where a string ends depends on the dialect
        return None
    with _silence():
        return _read(sql, dialect)


def _read(sql: str, dialect: str | None) -> QueryText | None:
    import sqlglot
    from sqlglot import exp

    tokens = sqlglot.tokenize(sql, read=dialect)
    parsed = sqlglot.parse(_readable(sql, tokens), read=dialect, error_level=sqlglot.ErrorLevel.RAISE)
    statements = [each for each in parsed if each is not None]
    if not statements or any(each.find(exp.Command, exp.Set, exp.Pragma) for each in statements):
        return None
    tables = _tables(tokens, statements, strings_too=dialect == "sqlite")
    text = _sanitised(sql, tokens, tables, quotes_strings=dialect in (None, "sqlite", "tsql"))
    if _BITTEN(text) or _DOLLARS(text):
        return None
    kept = {sql[token.start : token.end + 1] for index, token in enumerate(tokens) if index in tables}
    if _has_literals(text, dialect, kept):
        return None
    return QueryText(_IN.sub(r"\1(?)", text), _summary(sql, tokens, tables))


# A number that sqlglot ends earlier than the database: `1_000`.
_BITTEN: Final = re.compile(r"\?[^\W\d]").search

# What is left of a string in dollars, which the dialect, as sqlglot knows it, has not: `$$it's a secret$$`.
_DOLLARS: Final = re.compile(r"\$\w*\$").search

# IN (?, ?, ?): how many there are says little, and would make a text of its own of each number.
_IN: Final = re.compile(r"(\bIN ?)\(\?(?:, ?\?)+\)", re.IGNORECASE)

_LITERALS: Final = frozenset(
    (
        *("STRING", "NUMBER", "BIT_STRING", "HEX_STRING", "BYTE_STRING", "NATIONAL_STRING", "RAW_STRING"),
        *("HEREDOC_STRING", "UNICODE_STRING", "TRUE", "FALSE"),
    )
)


def _is_literal(tokens: Sequence[Any], index: int) -> bool:
    kind = tokens[index].token_type.name
    return kind in _LITERALS and not (kind == "NUMBER" and _is_of_a_parameter(tokens, index))


def _is_of_a_parameter(tokens: Sequence[Any], index: int) -> bool:
    """Whether this is the number of `$1` or `?1`."""
    if index == 0 or tokens[index].token_type.name != "NUMBER":
        return False
    before = tokens[index - 1]
    return before.token_type.name in ("PARAMETER", "PLACEHOLDER") and before.end + 1 == tokens[index].start


def _readable(sql: str, tokens: Sequence[Any]) -> str:
    """The text with `?` for `?1`, which sqlglot does not know; all else is where it was."""
    for index, token in enumerate(tokens):
        if _is_of_a_parameter(tokens, index) and tokens[index - 1].token_type.name == "PLACEHOLDER":
            sql = sql[: token.start] + " " * (token.end + 1 - token.start) + sql[token.end + 1 :]
    return sql


def _sanitised(sql: str, tokens: Sequence[Any], tables: dict[int, int], quotes_strings: bool) -> str:
    pieces: list[str] = []
    in_tables = {index for first, last in tables.items() for index in range(first, last + 1)}
    end = 0
    for index, token in enumerate(tokens):
        if pieces and token.start < end:  # `10L` is three tokens in one place
            continue
        if pieces and token.start > end:  # blanks, or a comment
            pieces.append(" ")
        text = sql[token.start : token.end + 1]
        may_be_string = quotes_strings and token.token_type.name == "IDENTIFIER" and text[0] in "\"'"
        if index not in in_tables and (may_be_string or _is_literal(tokens, index)):
            text = "?"
        pieces.append(text)
        end = token.end + 1
    return "".join(pieces)


def _has_literals(text: str, dialect: str | None, kept: Container[str]) -> bool:
    """Whether literals are left, but for those that are names of tables: the last look at what is to be told."""
    import sqlglot

    tokens = sqlglot.tokenize(text, read=dialect)
    return any(
        _is_literal(tokens, index) and text[token.start : token.end + 1] not in kept
        for index, token in enumerate(tokens)
    )


def _tables(tokens: Sequence[Any], statements: Sequence[Any], strings_too: bool) -> dict[int, int]:
    """The names of tables in the text: the index of the first token of each, and that of its last.

    In some databases a string in the place of a table is a path, as in DuckDB; in SQLite it is a name.
    """
    from sqlglot import exp

    index_of = {token.start: index for index, token in enumerate(tokens)}
    found: dict[int, int] = {}
    for statement in statements:
        shared = {each.alias_or_name.lower() for each in statement.find_all(exp.CTE)}
        for table in statement.find_all(exp.Table):
            parts = [part for part in table.parts if isinstance(part, exp.Identifier)]
            places = sorted(index_of[part.meta["start"]] for part in parts if "start" in part.meta)
            is_shared = len(parts) == 1 and table.name.lower() in shared
            is_path = not strings_too and any(tokens[place].token_type.name == "STRING" for place in places)
            if places and not is_shared and not is_path:
                found[places[0]] = places[-1]
    return found


_OPERATIONS: Final = frozenset(
    (
        *(
            "SELECT",
            "INSERT",
            "UPDATE",
            "DELETE",
            "MERGE",
            "CREATE",
            "DROP",
            "ALTER",
            "TRUNCATE",
            "COPY",
            "VALUES",
        ),
        *(
            "DESCRIBE",
            "SHOW",
            "SET",
            "USE",
            "ANALYZE",
            "PRAGMA",
            "REFRESH",
            "GRANT",
            "REVOKE",
            "BEGIN",
            "COMMIT",
        ),
        *(
            "ROLLBACK",
            "ATTACH",
            "DETACH",
            "PIVOT",
            "REPLACE",
            "EXECUTE",
            "COMMENT",
            "KILL",
            "CACHE",
            "UNCACHE",
        ),
    )
)
# Words that are an operation only where a statement begins: `ON CONFLICT DO UPDATE`, `FOR UPDATE`.
_BEGINNINGS: Final = frozenset({"SEMICOLON", "L_PAREN", "R_PAREN", "DESCRIBE", "ALIAS"})


def _summary(sql: str, tokens: Sequence[Any], tables: dict[int, int]) -> str | None:
    words: list[str] = []
    length = 0
    for word in _words(sql, tokens, tables):
        length += len(word) + 1
        if length > _LONGEST_SUMMARY + 1:
            break
        words.append(word)
    return " ".join(words) or None


def _words(sql: str, tokens: Sequence[Any], tables: dict[int, int]) -> Iterator[str]:
    for index, token in enumerate(tokens):
        kind = token.token_type.name
        if index in tables:
            yield sql[token.start : tokens[tables[index]].end + 1]
        elif kind == "SELECT" or (
            kind in _OPERATIONS and (index == 0 or tokens[index - 1].token_type.name in _BEGINNINGS)
        ):
            yield sql[token.start : token.end + 1]
