"""What is told of an error: a code, or the name of its class. Its message may hold the program's data."""

from __future__ import annotations

from typing import Final

from adbc_telemetry.core.guard import never_raises

# Whose SQLSTATE says as much as any code of theirs.
_BY_SQLSTATE: Final = frozenset({"postgresql", "aws.redshift"})
# Whose own codes say more than SQLSTATE, after the conventions for SQL.
_BY_VENDORS_CODE: Final = frozenset(
    {"mysql", "mariadb", "microsoft.sql_server", "oracle.db", "ibm.db2", "sqlite"}
)


def _no_code(error: Exception, failure: BaseException, system: str) -> str | None:
    return None


@never_raises(_no_code)
def status_code(failure: BaseException, system: str) -> str | None:
    """`db.response.status_code`: the SQLSTATE, the vendor's code, or both where it is not clear which says more.

    ADBC's errors have `sqlstate` and `vendor_code`, psycopg's have `sqlstate`, and sqlite3's `sqlite_errorcode`.
    """
    sqlstate = getattr(failure, "sqlstate", None)
    vendor = getattr(failure, "vendor_code", None) or getattr(failure, "sqlite_errorcode", None)
    state = sqlstate.strip("\0 ") if isinstance(sqlstate, str) else ""
    code = str(vendor) if isinstance(vendor, int) and vendor else ""
    if state in ("", "00000"):
        return code or None
    if not code or system in _BY_SQLSTATE:
        return state
    return code if system in _BY_VENDORS_CODE else f"{state}/{code}"


def error_type(failure: BaseException) -> str:
    """The canonical name of the error's class: `adbc_driver_manager.ProgrammingError`, `KeyboardInterrupt`."""
    kind = type(failure)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _no_message(error: Exception, failure: BaseException | None) -> str | None:
    return None


@never_raises(_no_message)
def message_of(failure: BaseException | None) -> str | None:
    """The error's message; None of an error that cannot tell it."""
    return str(failure)
