"""Values of properties as the wire's types: each reader returns None, or raises, where a value is none of them.

A property may be a text, as in ADBC, or a value of Python's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from adbc_telemetry.schema import DriverProxyAuth

E = TypeVar("E", bound=Enum)

Read = Callable[[Any], Any]

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
_DIGITS: Final = 18  # a number of so many fits into 64 bits
_LONGEST: Final = 1_000
"""Characters of a text. A longer one is cut: a property may hold anything."""


def flag(value: Any) -> bool | None:
    """`True`, and also a text of it."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    return True if word in _TRUE else False if word in _FALSE else None


def count(value: Any) -> int | None:
    """A whole number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    text = str(value).strip()
    number = int(text) if len(text) <= _DIGITS else -1
    return number if number >= 0 else None


def positive(value: Any) -> int | None:
    """A whole number above zero."""
    return count(value) or None


def small(value: Any) -> int | None:
    """A whole number for a field of 32 bits."""
    number = count(value)
    return number if number is not None and number < 2**31 else None


def seconds_of_ms(value: Any) -> int | None:
    """Whole seconds of a number of milliseconds."""
    number = count(value)
    return None if number is None else number // 1000


def word_of(words: Mapping[str, Any]) -> Read:
    """One of a few words, in any case, or an enum's member of that name."""
    return lambda value: words.get(str(value.name if isinstance(value, Enum) else value).strip().lower())


def member_of(kind: type[E]) -> Read:
    """A member of an enum of the wire, also by its name in any case."""

    def read(value: Any) -> E | None:
        return value if isinstance(value, kind) else kind.__members__.get(str(value).strip().upper())

    return read


def text(value: Any) -> str | None:
    """A text that is not empty."""
    return str(value).strip()[:_LONGEST] or None if isinstance(value, str) else None


def texts(value: Any) -> list[str] | None:
    """Texts, also as one with commas. What may hold a password, before an `@`, is left out."""
    parts = value.split(",") if isinstance(value, str) else value
    return [part for each in parts if (part := text(each)) and "@" not in part] or None


def path(value: Any) -> str | None:
    """A path of HTTP, also of a whole URL: without the query, which may hold a token, and without what is before it."""
    told = text(value)
    if told is None or "://" in told:
        return None if told is None else urlsplit(told).path or None
    told = told.partition("?")[0].partition("#")[0]
    return None if "@" in told else told or None


def host(value: Any) -> str | None:
    """The bare name of a host, also of a URL: without scheme, user, password and port."""
    told = text(value)
    if told is None:
        return None
    return urlsplit(told if "//" in told else f"//{told}").hostname


def port(value: Any) -> int | None:
    """A port, also that of a URL."""
    if isinstance(value, str) and "//" in value:
        return urlsplit(value).port
    number = count(value)
    return number if number and number < 65_536 else None


def url(value: Any) -> str | None:
    """Scheme, host, port and path of a URL: no user, no password, no query."""
    told = text(value)
    if told is None:
        return None
    parts = urlsplit(told)
    if not parts.scheme or not parts.hostname:
        return None
    at = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
    return f"{parts.scheme}://{at}{parts.path}"


def proxy_auth(value: Any) -> DriverProxyAuth | None:
    """How a proxy asks who one is; a mere yes means Basic."""
    asked = flag(value)
    if asked is not None:
        return DriverProxyAuth.BASIC if asked else DriverProxyAuth.NONE
    member: DriverProxyAuth | None = member_of(DriverProxyAuth)(value)
    return member
