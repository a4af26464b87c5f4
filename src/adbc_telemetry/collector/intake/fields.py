"""The kinds of fields, and what each takes: the reading rules of protobuf's JSON, and a little more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from adbc_telemetry.collector.intake.limits import INT64_MAX, PRIVATE_FIELDS, PUBLIC_WORDS
from adbc_telemetry.collector.intake.unknown import UnknownNames

# Bounded, so that no number of endless digits is made.
_INTEGER: Final = re.compile(r"-?[0-9]{1,30}", re.ASCII)
_NUMBER: Final = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][-+]?[0-9]{1,3})?", re.ASCII)
# Names, without underscores and in small letters, under which drivers send the text of an error.
_PRIVATE_NAMES: Final = frozenset({name.replace("_", "") for name in PRIVATE_FIELDS} | {"errormessage"})


class Refused(Exception):
    """A log that cannot be taken. The message is the reason: our words and the schema's names only."""


class Findings:
    """What is noticed while a log is read."""

    def __init__(self) -> None:
        self.unknown: Final = UnknownNames()
        self.private: Final[list[tuple[dict[str, Any], str]]] = []
        """Where private texts stand: the object and the name in it."""

    def pass_over(self, holder: dict[str, Any], name: str, path: str) -> None:
        """Note a field of `holder` that the schema does not know. Private texts in it are found at any depth."""
        if self._note_if_private(holder, name):
            return
        self.unknown.add_field(path, name)
        self._look_for_private(holder[name])

    def _note_if_private(self, holder: dict[str, Any], name: str) -> bool:
        private = name.replace("_", "").lower() in _PRIVATE_NAMES
        if private and holder[name] is not None:
            self.private.append((holder, name))
        return private

    def _look_for_private(self, value: Any) -> None:
        if type(value) is dict:
            for name, inner in value.items():
                if not self._note_if_private(value, name):
                    self._look_for_private(inner)
        elif type(value) is list:
            for inner in value:
                self._look_for_private(inner)


class Field:
    """A field of the schema.

    Attributes:
        name: its name on the wire.
        path: the names from the log down to it.
    """

    __slots__ = ("name", "path")

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path

    def read(self, value: Any, findings: Findings) -> Any:
        """A value, which is never null, in the wire's own form. None when it counts as absent.

        Raises:
            Refused: when it is no value of this field.
        """
        raise NotImplementedError

    def _wrong_type(self) -> Refused:
        return Refused(f"wrong type at {self.path}")

    def _out_of_range(self) -> Refused:
        return Refused(f"number out of range at {self.path}")


class TextField(Field):
    """`string`."""

    __slots__ = ()

    def read(self, value: Any, findings: Findings) -> str:
        if type(value) is not str:
            raise self._wrong_type()
        return value


class TextsField(Field):
    """`repeated string`."""

    __slots__ = ()

    def read(self, value: Any, findings: Findings) -> list[str]:
        if type(value) is not list or not all(type(text) is str for text in value):
            raise self._wrong_type()
        return value


class FlagField(Field):
    """`bool`."""

    __slots__ = ()

    def read(self, value: Any, findings: Findings) -> bool:
        if type(value) is not bool:
            raise self._wrong_type()
        return value


class IntegerField(Field):
    """`int32` or `int64`: a number, also as text, and also `12.0` or `1e3`."""

    __slots__ = ("_greatest",)

    def __init__(self, name: str, path: str, greatest: int) -> None:
        super().__init__(name, path)
        self._greatest = greatest

    def read(self, value: Any, findings: Findings) -> int | None:
        number = value if type(value) is int else whole_number(value)
        if number is None:
            raise self._wrong_type()
        if not -self._greatest - 1 <= number <= self._greatest:
            raise self._out_of_range()
        return number


class WorkspaceField(IntegerField):
    """The workspace's id: other text than a number is kept in the log as it came."""

    __slots__ = ()

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name, path, INT64_MAX)

    def read(self, value: Any, findings: Findings) -> int | None:
        if type(value) is str and not _is_int64(whole_number(value)):
            findings.unknown.add_value(self.path, value)
            return None
        return super().read(value, findings)


class EnumField(Field):
    """An enum: by name or by number. One that is not known counts as absent and is kept in the log as it came."""

    __slots__ = ("_names",)

    def __init__(self, name: str, path: str, names: list[str]) -> None:
        super().__init__(name, path)
        self._names: dict[str | int, str] = {name: name for name in names} | dict(enumerate(names))

    def read(self, value: Any, findings: Findings) -> str | None:
        if type(value) is not str:
            value = value if type(value) is int else whole_number(value)
            if value is None:
                raise self._wrong_type()
            if not _is_int64(value):
                raise self._out_of_range()
        elif value not in self._names and (number := whole_number(value)) is not None and _is_int64(number):
            value = number
        known = self._names.get(value)
        if known is None:
            findings.unknown.add_value(self.path, value)
        return known


class WordField(Field):
    """A field for the text of an error, which is dropped unless it is one of the public words."""

    __slots__ = ()

    @staticmethod
    def takes(value: Any) -> bool:
        """Whether it is one of the words and nothing else."""
        return type(value) is str and value in PUBLIC_WORDS

    def read(self, value: Any, findings: Findings) -> str:
        """See `Field`."""
        word: str = value
        return word


class MessageField(Field):
    """A message, with its fields by each of the names that they may come under."""

    __slots__ = ("_fields",)

    def __init__(self, name: str, path: str, fields: Mapping[str, Field]) -> None:
        super().__init__(name, path)
        self._fields = fields

    def read(self, value: Any, findings: Findings) -> dict[str, Any]:
        if type(value) is not dict:
            raise self._wrong_type()
        message: dict[str, Any] = {}
        fields = self._fields
        for name, inner in value.items():
            field = fields.get(name)
            if field is None or (type(field) is WordField and not field.takes(inner)):
                findings.pass_over(value, name, self.path)
            elif inner is not None:
                read = field.read(inner, findings)
                if read is not None:
                    message[field.name] = read
        return message


def whole_number(value: Any) -> int | None:
    """The whole number that a value stands for, None where it stands for none."""
    if type(value) is float:
        return int(value) if value.is_integer() else None
    if type(value) is not str:
        return value if type(value) is int else None
    if _INTEGER.fullmatch(value):
        return int(value)
    if _NUMBER.fullmatch(value):
        number = Decimal(value)  # exact, where a float would round
        return int(number) if number == number.to_integral_value() else None
    return None


def _is_int64(number: int | None) -> bool:
    return number is not None and -INT64_MAX - 1 <= number <= INT64_MAX
