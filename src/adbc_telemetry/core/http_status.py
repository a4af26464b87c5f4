"""The HTTP status that an exception carries."""

from __future__ import annotations

from adbc_telemetry.core.guard import never_raises


def _unknown(error: Exception, holder: object, name: str) -> object:
    return None


@never_raises(_unknown)
def attribute_of(holder: object, name: str) -> object:
    """An attribute of a foreign object, or None: a property of it may raise."""
    return getattr(holder, name, None)


def http_status_of(error: BaseException) -> int | None:
    """The status, from where HTTP libraries keep it: `status`, `status_code` or `code`, also on the `response`."""
    for holder in (error, attribute_of(error, "response")):
        for name in ("status", "status_code", "code"):
            status = attribute_of(holder, name)
            if isinstance(status, int) and 100 <= status <= 599:
                return int(status)
    return None
