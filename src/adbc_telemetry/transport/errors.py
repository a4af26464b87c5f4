"""How a request fails, and which failures are permanent (`is_terminal_error`)."""

from __future__ import annotations

import ssl

from adbc_telemetry.core.http_status import http_status_of

# Of the 4xx only these say "later" and not "never". 413 says "smaller": `export.delivery` splits the batch.
_RETRYABLE_4XX = frozenset({408, 425, 429})


class ExportError(Exception):
    """A request that did not succeed. Its text names no host, no header and no payload."""


class HttpStatusError(ExportError):
    """The other side answered with a status other than 2xx.

    Attributes:
        status: the HTTP status.
        retry_after: seconds for which it asked to be left alone, or None.
    """

    def __init__(self, status: int, retry_after: float | None = None) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.retry_after = retry_after


class RequestFailedError(ExportError):
    """There was no answer: the connection failed, timed out or broke. Worth a retry."""


class UntrustedServerError(ExportError):
    """The server's certificate was not accepted. Trying again would not change it."""


class RequestCancelledError(ExportError):
    """The exporter was closed or preempted, or the export's deadline came, before the request had succeeded."""


class CredentialsChangedError(Exception):
    """The request was not made: its body is meant for a request with credentials, and there are none, or vice versa.

    Attributes:
        anonymous: whether there are none.
    """

    def __init__(self, anonymous: bool) -> None:
        super().__init__()
        self.anonymous = anonymous


def is_terminal_status(status: int) -> bool:
    """Whether an HTTP status says that the same request would never succeed: 3xx, and all 4xx except "later"."""
    return 300 <= status < 500 and status not in _RETRYABLE_4XX


def is_terminal_error(exception: BaseException) -> bool:
    """Whether trying again would be useless.

    HTTP 3xx and 4xx are terminal, except 429, 408 and 425, which ask for another try. So is a certificate that is not
    trusted. 5xx, timeouts, connection errors and unknown exceptions are not.

    The status of an exception is looked for where HTTP libraries keep it (`status`, `status_code`, `code`, or the same
    on its `response`), then on the exceptions that it was raised from.

    Since 0.1.

    Args:
        exception: of this package, or of any HTTP library.

    Returns:
        False also where it is not known.
    """
    seen: set[int] = set()
    error: BaseException | None = exception
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        status = http_status_of(error)
        if status is not None:
            return is_terminal_status(status)
        if isinstance(error, (UntrustedServerError, ssl.SSLCertVerificationError)):
            return True
        error = error.__cause__ or error.__context__
    return False
