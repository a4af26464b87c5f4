"""The schema as a tree of fields, with what drivers are known to add to it."""

from __future__ import annotations

import re
from enum import Enum
from types import NoneType
from typing import Any, Final, get_args

import msgspec

from adbc_telemetry import schema
from adbc_telemetry.collector.intake.fields import (
    EnumField,
    Field,
    FlagField,
    IntegerField,
    MessageField,
    TextField,
    TextsField,
    WordField,
    WorkspaceField,
)
from adbc_telemetry.collector.intake.limits import INT32_FIELDS, INT32_MAX, INT64_MAX, PRIVATE_FIELDS


def _camel_case(name: str) -> str:
    """The name that protobuf's JSON gives a field unless it is told to keep the original one."""
    return re.sub("_([a-z0-9])", lambda match: match[1].upper(), name)


def _fields_of(message: type[msgspec.Struct], path: str) -> dict[str, Field]:
    fields: dict[str, Field] = {}
    for field in msgspec.structs.fields(message):
        if field.name in PRIVATE_FIELDS:
            _add(fields, WordField(field.name, f"{path}.{field.name}"))
        else:
            (kind,) = (each for each in get_args(field.type) if each is not NoneType)
            _add(fields, _field(kind, field.name, f"{path}.{field.name}" if path else field.name))
    if message is schema.FrontendLogContext:
        # The C# driver says the time here.
        _add(fields, IntegerField("timestamp_millis", f"{path}.timestamp_millis", INT64_MAX))
    return fields


def _add(fields: dict[str, Field], field: Field) -> None:
    fields[field.name] = fields[_camel_case(field.name)] = field


def _field(kind: Any, name: str, path: str) -> Field:
    if name == "workspace_id":
        return WorkspaceField(name, path)
    if kind is str:
        return TextField(name, path)
    if kind is bool:
        return FlagField(name, path)
    if kind is int:
        return IntegerField(name, path, INT32_MAX if name in INT32_FIELDS else INT64_MAX)
    if kind == list[str]:
        return TextsField(name, path)
    if issubclass(kind, Enum):
        return EnumField(
            name, path, list(kind.__members__)
        )  # on the wire, they are numbered from 0 in this order
    return MessageField(name, path, _fields_of(kind, path))


LOG: Final = MessageField("", "", _fields_of(schema.TelemetryFrontendLog, ""))
"""`TelemetryFrontendLog`."""
