"""The category of an error: by codes and types, never by text, and without a driver."""

from __future__ import annotations

import asyncio
import concurrent.futures
import enum
import socket
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from adbc_telemetry.driver_facts.error_category import ErrorCategory, error_category


def of_class(name: str, *bases: type[BaseException], **attributes: Any) -> BaseException:
    """An exception of a driver that is not known."""
    kind: type[BaseException] = type(name, bases or (Exception,), attributes)
    return kind()


def test_there_are_about_twenty_bare_words() -> None:
    words = [category.value for category in ErrorCategory]
    assert 18 <= len(set(words)) == len(words) <= 24
    assert all(word.replace("_", "").isalpha() and word.islower() for word in words)


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("57014", "cancelled"),
        ("HYT00", "timeout"),
        ("55P03", "timeout"),
        ("28P01", "auth"),
        ("28000", "auth"),
        ("42501", "permission"),
        ("42P01", "not_found"),
        ("3D000", "not_found"),
        ("42P07", "already_exists"),
        ("42601", "syntax"),
        ("42000", "syntax"),
        ("23505", "constraint"),
        ("22012", "data"),
        ("0A000", "not_supported"),
        ("08006", "connection"),
        ("53300", "resources"),
        ("40P01", "transaction"),
        ("57P01", "unavailable"),
        ("58030", "io"),
        ("XX000", "internal"),
    ],
)
def test_the_sqlstate_decides_before_all_else(state: str, word: str) -> None:
    assert error_category(of_class("OperationalError", sqlstate=state)).value == word
    assert error_category(of_class("IntegrityError", pgcode=state)).value == word


@pytest.mark.parametrize("state", ["", "00000", "ZZ999", "42", 42, None, b"42601", "42601 and more"])
def test_a_sqlstate_that_says_nothing_leaves_it_to_the_class(state: object) -> None:
    assert error_category(of_class("IntegrityError", sqlstate=state)) is ErrorCategory.CONSTRAINT


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("NOT_IMPLEMENTED", "not_supported"),
        ("NOT_FOUND", "not_found"),
        ("ALREADY_EXISTS", "already_exists"),
        ("INVALID_ARGUMENT", "invalid_argument"),
        ("INVALID_STATE", "invalid_state"),
        ("INVALID_DATA", "data"),
        ("INTEGRITY", "constraint"),
        ("INTERNAL", "internal"),
        ("IO", "io"),
        ("CANCELLED", "cancelled"),
        ("TIMEOUT", "timeout"),
        ("UNAUTHENTICATED", "auth"),
        ("UNAUTHORIZED", "permission"),
    ],
)
def test_the_status_of_adbc_decides(status: str, word: str) -> None:
    manager = pytest.importorskip("adbc_driver_manager")
    error = manager.OperationalError("no", status_code=manager.AdbcStatusCode[status])
    assert error_category(error).value == word


def test_every_status_of_adbc_that_is_a_failure_has_a_category() -> None:
    manager = pytest.importorskip("adbc_driver_manager")
    for status in manager.AdbcStatusCode:
        category = error_category(manager.Error("no", status_code=status))
        assert (category is ErrorCategory.OTHER) == (status.name in ("OK", "UNKNOWN"))


def test_the_small_numbers_of_other_protocols_are_not_taken_for_adbc_s() -> None:
    class StatusCode(enum.IntEnum):
        CANCELLED = 1

    assert error_category(of_class("RpcError", status_code=StatusCode.CANCELLED)) is ErrorCategory.OTHER
    assert error_category(of_class("RpcError", status_code=11)) is ErrorCategory.OTHER


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (400, "invalid_argument"),
        (401, "auth"),
        (403, "permission"),
        (404, "not_found"),
        (408, "timeout"),
        (429, "rate_limit"),
        (500, "internal"),
        (501, "not_supported"),
        (502, "unavailable"),
        (503, "unavailable"),
        (504, "timeout"),
    ],
)
def test_the_status_of_http_decides_wherever_libraries_keep_it(status: int, word: str) -> None:
    response = type("Response", (), {"status_code": status})()
    for error in (
        of_class("HTTPStatusError", response=response),
        of_class("ApiError", status=status),
        of_class("ApiError", status_code=status),
        of_class("ApiError", code=status),
    ):
        assert error_category(error).value == word


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (TimeoutError(), "timeout"),
        (asyncio.TimeoutError(), "timeout"),
        (concurrent.futures.TimeoutError(), "timeout"),
        (urllib3.exceptions.ReadTimeoutError(None, "/", None), "timeout"),  # type: ignore[arg-type]
        (asyncio.CancelledError(), "cancelled"),
        (concurrent.futures.CancelledError(), "cancelled"),
        (KeyboardInterrupt(), "cancelled"),
        (PermissionError(), "permission"),
        (FileNotFoundError(), "not_found"),
        (ConnectionRefusedError(), "connection"),
        (BrokenPipeError(), "io"),
        (socket.gaierror(), "connection"),
        (ssl.SSLCertVerificationError(), "tls"),
        (ssl.SSLError(), "tls"),
        (MemoryError(), "resources"),
        (NotImplementedError(), "not_supported"),
        (OSError(), "io"),
        (ValueError(), "invalid_argument"),
        (TypeError(), "invalid_argument"),
        (Exception("anything"), "other"),
        (LookupError(), "other"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_class_decides_where_there_is_no_code(error: BaseException, word: str) -> None:
    assert error_category(error).value == word


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("ProgrammingError", "syntax"),
        ("IntegrityError", "constraint"),
        ("DataError", "data"),
        ("NotSupportedError", "not_supported"),
        ("InternalError", "internal"),
        ("InterfaceError", "invalid_state"),
        ("OperationalError", "other"),
        ("DatabaseError", "other"),
    ],
)
def test_the_classes_of_pep_249_are_known_in_every_driver(name: str, word: str) -> None:
    base = type(name, (Exception,), {"__module__": "a_driver_of_tomorrow"})
    assert error_category(of_class("ItsOwn", base)).value == word


def test_the_nearest_class_decides() -> None:
    database_error = type("DatabaseError", (Exception,), {})
    internal = type("InternalError", (database_error,), {})
    assert error_category(of_class("TimeoutError", internal)) is ErrorCategory.TIMEOUT
    assert error_category(of_class("Mine", internal)) is ErrorCategory.INTERNAL


@pytest.mark.skipif(sys.version_info < (3, 11), reason="sqlite3 tells no name of an error before")
@pytest.mark.parametrize(
    ("sql", "word"),
    [("selekt", "syntax"), ("insert into t values (1)", "constraint"), ("select 1/", "syntax")],
)
def test_real_errors_of_sqlite(sql: str, word: str) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (a primary key)")
    connection.execute("insert into t values (1)")
    with pytest.raises(sqlite3.Error) as failed:
        connection.execute(sql)
    connection.close()
    assert error_category(failed.value).value == word


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("selekt", "syntax"),
        ("select * from missing", "not_found"),
        ("select cast('a' as int)", "data"),
        ("insert into t values (1)", "constraint"),
        ("select missing from t", "syntax"),
    ],
)
def test_real_errors_of_duckdb(sql: str, word: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        connection.execute("create table t (a int primary key)")
        connection.execute("insert into t values (1)")
        with pytest.raises(duckdb.Error) as failed:
            connection.execute(sql)
    assert error_category(failed.value).value == word


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("UniqueViolation", "constraint"),
        ("UndefinedTable", "not_found"),
        ("SyntaxError", "syntax"),
        ("QueryCanceled", "cancelled"),
        ("DeadlockDetected", "transaction"),
        ("InsufficientPrivilege", "permission"),
        ("InvalidPassword", "auth"),
        ("TooManyConnections", "resources"),
        ("AdminShutdown", "unavailable"),
    ],
)
def test_errors_of_psycopg(name: str, word: str) -> None:
    errors = pytest.importorskip("psycopg.errors")
    assert error_category(getattr(errors, name)()).value == word


# What is behind an exception


def raised(
    make: Callable[[], BaseException], behind: BaseException, *, hidden: bool = False
) -> BaseException:
    try:
        try:
            raise behind
        except type(behind):
            if hidden:
                raise make() from None
            raise make()  # noqa: B904 - the context is what is tested
    except BaseException as error:  # noqa: BLE001
        return error


def test_an_error_that_says_nothing_is_told_by_what_it_was_raised_from() -> None:
    operational = type("OperationalError", (Exception,), {})
    error = operational()
    error.__cause__ = ConnectionResetError()
    assert error_category(error) is ErrorCategory.CONNECTION
    assert error_category(raised(operational, TimeoutError())) is ErrorCategory.TIMEOUT
    assert error_category(raised(operational, TimeoutError(), hidden=True)) is ErrorCategory.OTHER


def test_an_error_that_says_enough_is_not_told_by_what_was_handled_just_then() -> None:
    assert error_category(raised(ValueError, TimeoutError())) is ErrorCategory.INVALID_ARGUMENT


def test_the_failure_of_the_last_try_says_more_than_that_there_were_too_many() -> None:
    def last(reason: Exception) -> ErrorCategory:
        return error_category(urllib3.exceptions.MaxRetryError(None, "/", reason))  # type: ignore[arg-type]

    assert last(ssl.SSLError()) is ErrorCategory.TLS
    assert last(TimeoutError()) is ErrorCategory.TIMEOUT
    assert last(Exception()) is ErrorCategory.CONNECTION


def test_a_circle_of_causes_ends() -> None:
    first, second = Exception(), Exception()
    first.__cause__, second.__cause__ = second, first
    assert error_category(first) is ErrorCategory.OTHER


# What it must not do


@given(
    st.text() | st.sampled_from(["timeout", "permission denied", "syntax error at or near", "429", "57014"])
)
def test_no_text_changes_the_category(text: str) -> None:
    error = of_class("Error")
    error.args = (text,)
    error.__dict__.update(message=text, msg=text, diag=text)
    assert error_category(error) is ErrorCategory.OTHER


def test_an_exception_that_raises_whatever_it_is_asked_has_a_category_all_the_same() -> None:
    class Hostile(TimeoutError):
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError("sentinel")

    assert error_category(Hostile()) in ErrorCategory
    assert error_category("no exception") is ErrorCategory.OTHER  # type: ignore[arg-type]


def test_no_driver_is_imported() -> None:
    program = (
        "import sys; from adbc_telemetry.driver_facts.error_category import error_category;"
        "error_category(OSError());"
        "print(sorted({'sqlite3', 'ssl', 'urllib3', 'adbc_driver_manager', 'duckdb'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.strip() == "[]"
