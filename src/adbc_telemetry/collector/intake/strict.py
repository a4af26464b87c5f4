"""The fast path: recognises a log in the wire's own form by one decode.

The checks are types. From the messages of `schema` stricter clones are derived once, with the integer ranges of the
wire, enums as plain names, null and private texts refused, so that msgspec checks a log while it reads it.
"""

from __future__ import annotations

from enum import Enum
from types import NoneType
from typing import Annotated, Any, Final, Literal, cast, get_args

import msgspec

from adbc_telemetry import schema
from adbc_telemetry.collector.intake.duplicates import has_repeated_names
from adbc_telemetry.collector.intake.limits import (
    INT32_FIELDS,
    INT32_MAX,
    INT64_MAX,
    MAX_EVENT_ID,
    PRIVATE_FIELDS,
    PUBLIC_WORDS,
)

_Int32 = Annotated[int, msgspec.Meta(ge=-INT32_MAX - 1, le=INT32_MAX)]
_Int64 = Annotated[int, msgspec.Meta(ge=-INT64_MAX - 1, le=INT64_MAX)]
_EventId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_EVENT_ID)]

_REQUIRED_FIELDS: Final = frozenset({"frontend_log_event_id", "entry", "sql_driver_log"})


def event_id_if_canonical(text: str) -> str | None:
    """The event's id when the log is in the wire's own form. None when it takes a closer look."""
    try:
        log = _decode(text)
    except (msgspec.DecodeError, UnicodeError):
        return None
    encoded = _encode(log)
    # No JSON of the same values is shorter than msgspec's, so with the same length nothing was said twice. This is
    # the usual case, and saves counting.
    compact = len(encoded) == len(text) and text.isascii()
    if not compact and has_repeated_names(text, encoded):
        return None
    return log.frontend_log_event_id


def _strict(message: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The strict clone of a message: nothing optional but by absence, and of private texts the public words only."""
    fields: list[Any] = []
    for field in msgspec.structs.fields(message):
        is_private = field.name in PRIVATE_FIELDS
        strict_type = Literal[PUBLIC_WORDS] if is_private else _strict_type(field.name, field.type)
        if field.name in _REQUIRED_FIELDS:
            fields.append((field.name, strict_type))
        else:
            fields.append((field.name, strict_type, msgspec.field(default=msgspec.UNSET)))
    return msgspec.defstruct(
        message.__name__, fields, forbid_unknown_fields=True, frozen=True, kw_only=True, gc=False
    )


def _strict_type(name: str, declared: Any) -> Any:
    (plain,) = (each for each in get_args(declared) if each is not NoneType)
    if name == "frontend_log_event_id":
        return _EventId
    if plain is int:
        return _Int32 if name in INT32_FIELDS else _Int64
    if isinstance(plain, type) and issubclass(plain, msgspec.Struct):
        return _strict(plain)
    if isinstance(plain, type) and issubclass(plain, Enum):
        return Literal[tuple(plain.__members__)]
    return plain


_StrictLog: Final = cast(type[schema.TelemetryFrontendLog], _strict(schema.TelemetryFrontendLog))
_decode: Final = msgspec.json.Decoder(_StrictLog).decode
_encode: Final = msgspec.json.Encoder().encode
