"""What a sender may send: reads a request's body and tells the good logs from the bad ones.

The checks are types. From the messages of `schema` stricter clones are derived once, with the integer ranges of the
wire, enums as plain names and null refused, so that msgspec checks a log while it reads it, at the speed of C.
"""

from __future__ import annotations

import re
from enum import Enum
from types import NoneType
from typing import Annotated, Any, Final, Literal, NamedTuple, cast, get_args
from uuid import UUID

import msgspec

from adbc_telemetry import schema

MAX_ERRORS: Final = 20
"""Bad logs that an answer names one by one; it counts the others."""

_Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

# Where the wire says int32; all other integers are int64.
_INT32_FIELDS: Final = frozenset(
    {
        "port",
        "string_column_length",
        "n_operation_status_calls",
        "total_chunks_present",
        "total_chunks_iterated",
    }
)
_REQUIRED_FIELDS: Final = frozenset({"frontend_log_event_id", "entry", "sql_driver_log"})


class ReceivedLog(NamedTuple):
    """A good log, decoded and as it was sent."""

    message: schema.TelemetryFrontendLog
    """A strict clone: absent messages are empty ones, enums their names, the event id a `uuid.UUID`."""
    text: str


class Intake(NamedTuple):
    """What became of the logs of one request."""

    logs: list[ReceivedLog]
    errors: list[str]
    """A sentence for each bad log, at most `MAX_ERRORS` and one more; none quotes the log."""


class InvalidRequest(ValueError):
    """The body is not a `TelemetryRequest`; the message says why in a sentence, without quoting it."""


def read_request(body: bytes) -> Intake:
    """Read a request's JSON and every log in it.

    Raises:
        InvalidRequest: when the body is not a `TelemetryRequest`.
    """
    try:
        request = _request_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The body is not a TelemetryRequest: {_reason(error)}.") from None
    logs: list[ReceivedLog] = []
    errors: list[str] = []
    for index, text in enumerate(request.protoLogs):
        try:
            logs.append(ReceivedLog(_log_decoder.decode(text), text))
        except msgspec.DecodeError as error:
            if len(errors) < MAX_ERRORS:
                errors.append(f"protoLogs[{index}] was refused: {_reason(error)}.")
    unnamed = len(request.protoLogs) - len(logs) - len(errors)
    if unnamed:
        errors.append(f"{unnamed} more were refused.")
    return Intake(logs, errors)


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    """`TelemetryRequest` with what must be there and what must not."""

    uploadTime: _Int64
    protoLogs: list[str]
    items: Annotated[list[str], msgspec.Meta(max_length=0)] = []


def _strict(message: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The strict clone of a message: same name, same fields, nothing optional but by absence."""
    fields: list[Any] = []
    for field in msgspec.structs.fields(message):
        strict_type = _strict_type(field.name, field.type)
        if field.name in _REQUIRED_FIELDS:
            fields.append((field.name, strict_type))
        else:
            # An absent message counts as an empty one, so that code that wants a field need not look for its parents.
            absent = strict_type() if _is_message(strict_type) else None
            fields.append((field.name, strict_type, absent))
    return msgspec.defstruct(
        message.__name__, fields, forbid_unknown_fields=True, frozen=True, kw_only=True, gc=False
    )


def _strict_type(name: str, declared: Any) -> Any:
    (plain,) = (each for each in get_args(declared) if each is not NoneType)
    if name == "frontend_log_event_id":
        return UUID
    if plain is int:
        return _Int32 if name in _INT32_FIELDS else _Int64
    if _is_message(plain):
        return _strict(plain)
    if isinstance(plain, type) and issubclass(plain, Enum):
        return Literal[tuple(plain.__members__)]
    return plain


def _is_message(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, msgspec.Struct)


def _field_names(message: type[msgspec.Struct]) -> set[str]:
    names: set[str] = set()
    for field in msgspec.structs.fields(message):
        names.add(field.name)
        if _is_message(field.type):
            names |= _field_names(field.type)
    return names


_StrictLog: Final = cast(type[schema.TelemetryFrontendLog], _strict(schema.TelemetryFrontendLog))
_request_decoder: Final = msgspec.json.Decoder(_Request)
_log_decoder: Final = msgspec.json.Decoder(_StrictLog)
_known_names: Final = frozenset(_field_names(_StrictLog) | _field_names(_Request))


def _reason(error: Exception) -> str:
    """What msgspec found, without the names and values that it quotes from what was sent."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    text = str(error)
    path = re.search(r" - at `\$\.?([\w.\[\]]*)`$", text)
    if text.startswith("Object contains unknown field"):
        what = "an unknown field"
    elif text.startswith("Invalid enum value"):
        what = "an unknown enum name"
    else:
        what = text[: path.start()] if path else text
    # At the top there is no path, and what looks like one was sent.
    if path and all(name in _known_names for name in re.findall(r"[^.\[\]]*[^.\[\]\d][^.\[\]]*", path[1])):
        return f"{what} at {path[1]}" if path[1] else what
    return what
