"""What may stand in an event: each `as_...` returns a value as the wire's type, or None where it is no such value.

A driver may set a fact to anything, and nothing checks it there. The event is not lost for that: the fact is left out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, TypeVar, get_args

from msgspec import Struct
from msgspec.structs import fields, replace

from adbc_telemetry.core.guard import never_raises

E = TypeVar("E", bound=Enum)
Message = TypeVar("Message", bound=Struct)

INT64: Final = 2**63
"""Whole numbers are from `-INT64` to below it."""


def _no_such_value(error: Exception, *_: object) -> Any:
    return None


@never_raises(_no_such_value)
def as_text(value: object) -> str | None:
    """A text; one of a class of its own becomes a plain one."""
    return str.__str__(value) if isinstance(value, str) else None


@never_raises(_no_such_value)
def as_flag(value: object) -> bool | None:
    """True or False, and nothing that merely counts as one of them."""
    return value if isinstance(value, bool) else None


@never_raises(_no_such_value)
def as_whole(value: Any) -> int | None:
    """A whole number that fits into 64 bits, also of another library; not a bool, nor a float."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return None
    number = int(value.__index__())
    return number if -INT64 <= number < INT64 else None


@never_raises(_no_such_value)
def as_member(kind: type[E], value: object) -> E | None:
    """A member of an enum of the wire, also by its name as a text. Any other text gives None."""
    if isinstance(value, kind):
        return value
    return kind.__members__.get(value) if type(value) is str else None


def as_message(kind: type[Message], value: object) -> Message | None:
    """A message, without those of its fields that hold no such value."""
    if not isinstance(value, kind):
        return None
    sound: dict[str, object] = {}
    for name, read in _readers_of(kind).items():
        told = getattr(value, name)
        if told is not None and (kept := read(told)) is not told:
            sound[name] = kept
    return replace(value, **sound) if sound else value


def _as_texts(value: object) -> list[str] | None:
    sound = isinstance(value, list) and all(type(text) is str for text in value)
    return value if sound else None  # type: ignore[return-value]


_SCALARS: Final[dict[object, Callable[[Any], Any]]] = {
    str: as_text,
    bool: as_flag,
    int: as_whole,
    list[str]: _as_texts,
}


@functools.cache
def _readers_of(kind: type[Struct]) -> dict[str, Callable[[Any], Any]]:
    return {field.name: _reader_of(field.type) for field in fields(kind)}


def _reader_of(kind: Any) -> Callable[[Any], Any]:
    (type_,) = (each for each in get_args(kind) if each is not type(None))  # each is optional
    if type_ in _SCALARS:
        return _SCALARS[type_]
    return functools.partial(as_member if issubclass(type_, Enum) else as_message, type_)
