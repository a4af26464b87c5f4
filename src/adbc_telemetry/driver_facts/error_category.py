"""Exceptions as one of a fixed list of words: what went wrong, without a text of the program's.

The class's name says which class of which driver; the category says the same for all drivers. It is decided by codes
and types alone: SQLSTATE, ADBC's status, an HTTP status, SQLite's name of an error, the names of the exception's
classes. No text is looked at, and no driver is imported.

The meaning of the codes: SQL:2016 and Appendix A of PostgreSQL's manual for SQLSTATE, `AdbcStatusCode` of `adbc.h`,
RFC 9110 for HTTP, PEP 249 for the classes that all drivers share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Final

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.http_status import attribute_of, http_status_of


class ErrorCategory(str, Enum):
    """What went wrong. The value is the word that travels."""

    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    AUTH = "auth"
    """Who one is was not believed."""
    PERMISSION = "permission"
    """What one may do does not suffice."""
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    SYNTAX = "syntax"
    """The statement is at fault."""
    CONSTRAINT = "constraint"
    DATA = "data"
    """A value is out of range, or of the wrong type."""
    INVALID_ARGUMENT = "invalid_argument"
    INVALID_STATE = "invalid_state"
    """Not now: the cursor is closed, say."""
    NOT_SUPPORTED = "not_supported"
    CONNECTION = "connection"
    TLS = "tls"
    RATE_LIMIT = "rate_limit"
    UNAVAILABLE = "unavailable"
    """The server is there and serves nothing at present."""
    RESOURCES = "resources"
    """Memory, disk, or another limit."""
    TRANSACTION = "transaction"
    """A deadlock, a conflict, or a state of the transaction that does not allow it."""
    IO = "io"
    INTERNAL = "internal"
    OTHER = "other"
    """Nothing that is known says more."""


def _other(error: Exception, exception: BaseException) -> ErrorCategory:
    return ErrorCategory.OTHER


@never_raises(_other)
def error_category(exception: BaseException) -> ErrorCategory:
    """The category of an exception, or else of the exceptions that it was raised from. Never raises.

    Codes beat types, because a driver raises the same class for many reasons: SQLSTATE first, then ADBC's status,
    HTTP's, SQLite's, then the class and its bases, the nearest first.
    """
    found: ErrorCategory | None = None
    for error in _chain(exception):
        category = _of_codes(error) or _of_type(error)
        found = category or found
        if category is not None and type(error).__name__ not in _WRAPPERS:
            break
    return found or ErrorCategory.OTHER


def _of_codes(error: BaseException) -> ErrorCategory | None:
    return _of_sqlstate(error) or _of_adbc_status(error) or _of_http_status(error) or _of_sqlite(error)


_LONGEST_CHAIN: Final = 8


def _chain(exception: BaseException) -> Iterator[BaseException]:
    """The exception and those behind it, each once."""
    seen: set[int] = set()
    error: object = exception
    while isinstance(error, BaseException) and id(error) not in seen and len(seen) < _LONGEST_CHAIN:
        seen.add(id(error))
        yield error
        # urllib3 and urllib keep the failure of the last try in `reason`.
        reason = attribute_of(error, "reason")
        hidden = error.__suppress_context__
        error = (
            error.__cause__
            or (reason if isinstance(reason, BaseException) else None)
            or (None if hidden else error.__context__)
        )


_STATES: Final[Mapping[str, ErrorCategory]] = {
    "0A": ErrorCategory.NOT_SUPPORTED,
    "08": ErrorCategory.CONNECTION,
    "21": ErrorCategory.DATA,
    "22": ErrorCategory.DATA,
    "23": ErrorCategory.CONSTRAINT,
    "24": ErrorCategory.INVALID_STATE,
    "25": ErrorCategory.TRANSACTION,
    "25P04": ErrorCategory.TIMEOUT,
    "28": ErrorCategory.AUTH,
    "2D": ErrorCategory.TRANSACTION,
    "34": ErrorCategory.NOT_FOUND,
    "3B": ErrorCategory.TRANSACTION,
    "3D": ErrorCategory.NOT_FOUND,
    "3F": ErrorCategory.NOT_FOUND,
    "40": ErrorCategory.TRANSACTION,
    "42": ErrorCategory.SYNTAX,
    "42501": ErrorCategory.PERMISSION,
    "42P01": ErrorCategory.NOT_FOUND,
    "42P02": ErrorCategory.NOT_FOUND,
    "42S02": ErrorCategory.NOT_FOUND,
    "42S22": ErrorCategory.NOT_FOUND,
    "42703": ErrorCategory.NOT_FOUND,
    "42704": ErrorCategory.NOT_FOUND,
    "42883": ErrorCategory.NOT_FOUND,
    "42S01": ErrorCategory.ALREADY_EXISTS,
    "42P04": ErrorCategory.ALREADY_EXISTS,
    "42P06": ErrorCategory.ALREADY_EXISTS,
    "42P07": ErrorCategory.ALREADY_EXISTS,
    "42710": ErrorCategory.ALREADY_EXISTS,
    "44": ErrorCategory.CONSTRAINT,
    "53": ErrorCategory.RESOURCES,
    "54": ErrorCategory.RESOURCES,
    "55": ErrorCategory.INVALID_STATE,
    "55P03": ErrorCategory.TIMEOUT,
    "57": ErrorCategory.UNAVAILABLE,
    "57014": ErrorCategory.CANCELLED,
    "57P05": ErrorCategory.TIMEOUT,
    "58": ErrorCategory.IO,
    "HY008": ErrorCategory.CANCELLED,
    "HYT00": ErrorCategory.TIMEOUT,
    "HYT01": ErrorCategory.TIMEOUT,
    "HYC00": ErrorCategory.NOT_SUPPORTED,
    "XX": ErrorCategory.INTERNAL,
}
"""By the whole SQLSTATE, else by its class, which are its first two characters."""


def _of_sqlstate(error: BaseException) -> ErrorCategory | None:
    for name in ("sqlstate", "pgcode"):
        state = attribute_of(error, name)
        if isinstance(state, str) and len(state) == 5:
            return _STATES.get(state) or _STATES.get(state[:2])
    return None


_ADBC: Final[Mapping[str, ErrorCategory]] = {
    "NOT_IMPLEMENTED": ErrorCategory.NOT_SUPPORTED,
    "NOT_FOUND": ErrorCategory.NOT_FOUND,
    "ALREADY_EXISTS": ErrorCategory.ALREADY_EXISTS,
    "INVALID_ARGUMENT": ErrorCategory.INVALID_ARGUMENT,
    "INVALID_STATE": ErrorCategory.INVALID_STATE,
    "INVALID_DATA": ErrorCategory.DATA,
    "INTEGRITY": ErrorCategory.CONSTRAINT,
    "INTERNAL": ErrorCategory.INTERNAL,
    "IO": ErrorCategory.IO,
    "CANCELLED": ErrorCategory.CANCELLED,
    "TIMEOUT": ErrorCategory.TIMEOUT,
    "UNAUTHENTICATED": ErrorCategory.AUTH,
    "UNAUTHORIZED": ErrorCategory.PERMISSION,
}


def _of_adbc_status(error: BaseException) -> ErrorCategory | None:
    status = attribute_of(error, "status_code")
    # By the enum's name: the same small numbers mean other things elsewhere, gRPC's among them.
    if isinstance(status, Enum) and type(status).__name__ == "AdbcStatusCode":
        return _ADBC.get(status.name)
    return None


_HTTP: Final[Mapping[int, ErrorCategory]] = {
    400: ErrorCategory.INVALID_ARGUMENT,
    401: ErrorCategory.AUTH,
    403: ErrorCategory.PERMISSION,
    404: ErrorCategory.NOT_FOUND,
    407: ErrorCategory.AUTH,
    408: ErrorCategory.TIMEOUT,
    409: ErrorCategory.TRANSACTION,
    422: ErrorCategory.INVALID_ARGUMENT,
    429: ErrorCategory.RATE_LIMIT,
    500: ErrorCategory.INTERNAL,
    501: ErrorCategory.NOT_SUPPORTED,
    502: ErrorCategory.UNAVAILABLE,
    503: ErrorCategory.UNAVAILABLE,
    504: ErrorCategory.TIMEOUT,
}


def _of_http_status(error: BaseException) -> ErrorCategory | None:
    status = http_status_of(error)
    return None if status is None else _HTTP.get(status)


_SQLITE: Final[Mapping[str, ErrorCategory]] = {
    "SQLITE_AUTH": ErrorCategory.PERMISSION,
    "SQLITE_BUSY": ErrorCategory.TIMEOUT,
    "SQLITE_CANTOPEN": ErrorCategory.IO,
    "SQLITE_CONSTRAINT": ErrorCategory.CONSTRAINT,
    "SQLITE_CORRUPT": ErrorCategory.IO,
    "SQLITE_FULL": ErrorCategory.RESOURCES,
    "SQLITE_INTERNAL": ErrorCategory.INTERNAL,
    "SQLITE_INTERRUPT": ErrorCategory.CANCELLED,
    "SQLITE_IOERR": ErrorCategory.IO,
    "SQLITE_LOCKED": ErrorCategory.TRANSACTION,
    "SQLITE_MISMATCH": ErrorCategory.DATA,
    "SQLITE_MISUSE": ErrorCategory.INVALID_STATE,
    "SQLITE_NOMEM": ErrorCategory.RESOURCES,
    "SQLITE_NOTADB": ErrorCategory.IO,
    "SQLITE_PERM": ErrorCategory.PERMISSION,
    "SQLITE_RANGE": ErrorCategory.INVALID_ARGUMENT,
    "SQLITE_READONLY": ErrorCategory.PERMISSION,
    "SQLITE_TOOBIG": ErrorCategory.RESOURCES,
    "SQLITE_ERROR": ErrorCategory.SYNTAX,  # in its documentation: generic, of the SQL in nearly all cases
}


def _of_sqlite(error: BaseException) -> ErrorCategory | None:
    name = attribute_of(error, "sqlite_errorname")  # from Python 3.11 on
    if not isinstance(name, str):
        return None
    return _SQLITE.get("_".join(name.split("_", 2)[:2]))  # SQLITE_CONSTRAINT of SQLITE_CONSTRAINT_UNIQUE


def _names(category: ErrorCategory, names: str) -> dict[str, ErrorCategory]:
    return dict.fromkeys(names.split(), category)


_TYPES: Final[Mapping[str, ErrorCategory]] = {
    **_names(
        ErrorCategory.TIMEOUT,
        "TimeoutError Timeout ConnectTimeout ReadTimeout ConnectTimeoutError ReadTimeoutError "
        "QueryTimeout LockTimeout HTTPTimeoutException PoolTimeout MaxRetryDurationError",
    ),
    **_names(
        ErrorCategory.CANCELLED, "CancelledError KeyboardInterrupt InterruptException QueryCanceledError"
    ),
    **_names(
        ErrorCategory.AUTH,
        "AuthenticationError AuthenticationException UnauthenticatedError FlightUnauthenticatedError",
    ),
    **_names(
        ErrorCategory.PERMISSION,
        "PermissionError PermissionException PermissionDenied InsufficientPrivilege FlightUnauthorizedError",
    ),
    **_names(ErrorCategory.NOT_FOUND, "FileNotFoundError NotFoundError NotFound CatalogException"),
    **_names(ErrorCategory.ALREADY_EXISTS, "FileExistsError AlreadyExists"),
    **_names(
        ErrorCategory.SYNTAX, "SyntaxError ParserException BinderException SyntaxException ProgrammingError"
    ),
    **_names(ErrorCategory.CONSTRAINT, "IntegrityError ConstraintException"),
    **_names(
        ErrorCategory.DATA,
        "DataError ConversionException OutOfRangeException TypeMismatchException ArrowInvalid "
        "InvalidTypeException UnicodeError OverflowError",
    ),
    **_names(ErrorCategory.INVALID_ARGUMENT, "ValueError TypeError InvalidInputException"),
    **_names(
        ErrorCategory.INVALID_STATE, "InterfaceError SessionAlreadyClosedError CursorAlreadyClosedError"
    ),
    **_names(
        ErrorCategory.NOT_SUPPORTED,
        "NotSupportedError NotImplementedError NotImplementedException ArrowNotImplementedError",
    ),
    **_names(
        ErrorCategory.CONNECTION,
        "ConnectionError gaierror herror NewConnectionError NameResolutionError ProxyError ConnectError "
        "ConnectionException RemoteDisconnected IncompleteRead ProtocolError MaxRetryError "
        "FlightUnavailableError TTransportException HTTPException",
    ),
    **_names(ErrorCategory.TLS, "SSLError SSLCertVerificationError CertificateError"),
    **_names(ErrorCategory.RATE_LIMIT, "RateLimitError TooManyRequests TelemetryRateLimitError"),
    **_names(ErrorCategory.RESOURCES, "MemoryError OutOfMemoryException RecursionError ArrowMemoryError"),
    **_names(ErrorCategory.TRANSACTION, "TransactionException TransactionError"),
    **_names(ErrorCategory.IO, "OSError IOException BrokenPipeError"),
    **_names(ErrorCategory.INTERNAL, "InternalError InternalException SystemError AssertionError"),
}
"""By the name of a class: Python's own, those of PEP 249, and those that drivers and HTTP libraries share."""

# These wrap another failure: what is behind them says more.
_WRAPPERS: Final = frozenset({"MaxRetryError", "ConnectionError", "ProtocolError", "URLError"})


def _of_type(error: BaseException) -> ErrorCategory | None:
    for kind in type(error).__mro__:
        category = _TYPES.get(kind.__name__)
        if category is not None:
            return category
    return None


CODES: Final = (_STATES, _ADBC, _HTTP, _SQLITE, _TYPES)
"""All tables, in the order in which they are asked; for the documentation."""
