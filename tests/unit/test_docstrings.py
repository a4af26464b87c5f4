"""Every public name says what it takes, since when it is there, and where the wire's words come from.

`make lint` checks the form (ruff's D and DOC rules): what is returned and what is raised.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

import adbc_telemetry
from adbc_telemetry import schema, testing

NAMES = {
    **{name: getattr(adbc_telemetry, name) for name in adbc_telemetry.__all__ if name != "__version__"},
    **{f"testing.{name}": getattr(testing, name) for name in testing.__all__},
}
MESSAGES = {
    name: value
    for name, value in vars(schema).items()
    if isinstance(value, type) and value.__module__ == schema.__name__ and not name.startswith("_")
}

# For the layers below, and for a fork.
INTERNAL = {"after_fork_in_child", "enqueue_statement", "expire", "hold_nothing_open", "outline", "preempt"}
# `TelemetryClientManager.acquire` and `ConnectionTelemetry.create` make them.
NOT_MADE_BY_USERS = {"ConnectionTelemetry", "TelemetryClientLease"}


def own_docstring(value: Any) -> str:
    return inspect.cleandoc(value.__doc__ or "")


def methods(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties of a class that are ours."""
    for name in dir(kind):
        member = inspect.getattr_static(kind, name)
        member = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        is_ours = inspect.isfunction(member) and str(member.__module__).startswith("adbc_telemetry")
        if is_ours and not name.startswith("_") and name not in INTERNAL:
            yield name, member


def meaning(kind: type, method: str) -> list[str]:
    """What is said of a method: by itself, by its class, and by the protocol that it is part of."""
    protocols = [
        getattr(each, method)
        for each in (adbc_telemetry.TelemetryClientProtocol, adbc_telemetry.TelemetryExporter)
        if hasattr(each, method)
    ]
    return [own_docstring(each) for each in (getattr(kind, method), kind, *protocols)]


def unnamed_parameters(function: Any, *docstrings: str) -> list[str]:
    """Parameters that no docstring names: under Args, as an attribute, or in backticks."""
    named = set(re.findall(r"`(\w+)`", " ".join(docstrings)))
    for docstring in docstrings:
        for names in re.findall(r"^ {4}(\w+(?:, \w+)*): ", docstring, re.M):
            named.update(names.split(", "))
    parameters = list(inspect.signature(function).parameters.values())
    return [
        each.name
        for each in parameters
        if each.name not in named | {"self", "cls"}
        and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_tells_what_it_takes_and_since_when(name: str) -> None:
    value = NAMES[name]
    docstring = own_docstring(value)
    assert re.search(r"^Since \d+\.\d+\.$", docstring, re.M), f"{name}: add a line such as: Since 0.1."
    if inspect.isfunction(value):
        assert unnamed_parameters(value, docstring) == []
    elif (
        "__init__" in vars(value)
        and not getattr(value, "_is_protocol", False)
        and name not in NOT_MADE_BY_USERS
    ):
        assert unnamed_parameters(value.__init__, docstring, own_docstring(value.__init__)) == []


@pytest.mark.parametrize("name", [name for name, value in NAMES.items() if isinstance(value, type)])
def test_a_public_method_tells_what_it_takes(name: str) -> None:
    for method, member in methods(NAMES[name]):
        assert own_docstring(member), f"{name}.{method} has no docstring"
        unnamed = unnamed_parameters(member, *meaning(NAMES[name], method))
        assert unnamed == [], f"{name}.{method}"


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_of_the_wire_has_a_docstring_of_its_own(name: str) -> None:
    assert own_docstring(MESSAGES[name])


def test_the_wire_model_tells_where_it_comes_from_and_since_when() -> None:
    docstring = own_docstring(schema)
    assert "wire-schema.json" in docstring
    assert re.search(r"^Since \d+\.\d+\.$", docstring, re.M)
