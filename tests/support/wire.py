"""The wire's messages as in `wire-schema.json`: protobuf's strict parser, and a strategy for arbitrary logs."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from hypothesis import strategies as st

from adbc_telemetry import schema

WIRE: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "wire-schema.json").read_text())
FIELDS = [(message, name) for message, fields in WIRE["messages"].items() for name in fields]
ENUMS = {
    "DriverMode.Type": schema.DriverMode,
    "Statement.Type": schema.StatementType,
    "Operation.Type": schema.OperationType,
    "ExecutionResult.Format": schema.ExecutionResultFormat,
    "VolumeOperation.Type": schema.VolumeOperationType,
    "DriverProxy.Auth": schema.DriverProxyAuth,
    "DriverAuthMech.Type": schema.DriverAuthMech,
    "DriverAuthFlow.Type": schema.DriverAuthFlow,
}
Field = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    "string": Field.TYPE_STRING,
    "int64": Field.TYPE_INT64,
    "int32": Field.TYPE_INT32,
    "bool": Field.TYPE_BOOL,
}


def _build_pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="telemetry.proto", package="logging", syntax="proto2")
    for full_name, values in WIRE["enums"].items():
        holder, kind = full_name.split(".")
        nested = file.message_type.add(name=holder).enum_type.add(name=kind)
        for name, number in values.items():
            nested.value.add(name=name, number=number)
    for name, fields in WIRE["messages"].items():
        message = file.message_type.add(name=name)
        for field_name, facts in fields.items():
            kind = facts["type"].removeprefix("repeated ")
            field = message.field.add(name=field_name, number=facts["number"])
            repeated = facts["type"].startswith("repeated ")
            field.label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
            if kind in SCALARS:
                field.type = SCALARS[kind]
            else:
                field.type = Field.TYPE_ENUM if kind in WIRE["enums"] else Field.TYPE_MESSAGE
                field.type_name = f".logging.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


POOL = _build_pool()
SqlDriverLog = message_factory.GetMessageClass(POOL.FindMessageTypeByName("logging.OssSqlDriverTelemetryLog"))


def parse_strictly(sql_driver_log: Any) -> Any:
    return json_format.Parse(json.dumps(sql_driver_log), SqlDriverLog(), ignore_unknown_fields=False)


def messages() -> st.SearchStrategy[Any]:
    text = st.text(st.characters(codec="utf-8"), max_size=20)
    by_kind: dict[str, st.SearchStrategy[Any]] = {
        "string": text,
        "repeated string": st.lists(text, max_size=3),
        "bool": st.booleans(),
        "int32": st.integers(-(2**31), 2**31 - 1),
        "int64": st.integers(-(2**63), 2**63 - 1),
        **{name: st.sampled_from(list(members)) for name, members in ENUMS.items()},
    }

    def build(message: str) -> st.SearchStrategy[Any]:
        fields = {
            name: st.none() | (by_kind[facts["type"]] if facts["type"] in by_kind else build(facts["type"]))
            for name, facts in WIRE["messages"][message].items()
        }
        return st.builds(getattr(schema, message), **fields)

    return build("OssSqlDriverTelemetryLog")


def assert_same(struct: Any, parsed: Any) -> None:
    for name in struct.__struct_fields__:
        mine = getattr(struct, name)
        if isinstance(mine, list):
            assert list(getattr(parsed, name)) == mine
        elif mine is None:
            field = parsed.DESCRIPTOR.fields_by_name[name]
            assert not getattr(parsed, name) if field.is_repeated else not parsed.HasField(name)
        elif isinstance(mine, msgspec.Struct):
            assert_same(mine, getattr(parsed, name))
        elif isinstance(mine, enum.Enum):
            field = parsed.DESCRIPTOR.fields_by_name[name]
            assert field.enum_type.values_by_number[getattr(parsed, name)].name == mine.value
        else:
            assert getattr(parsed, name) == mine
