"""A function's clone makes objects of another class, and gives way to a patch of the function that it stands for."""

from __future__ import annotations

import inspect
import traceback
import types
from collections.abc import Callable
from typing import Any

import pytest

from adbc_telemetry.instrumentation.cursor_clone import CursorClone


class Thing:
    """What is made."""

    def __init__(self, owner: object, size: int = 1) -> None:
        if size < 0:
            raise ValueError("too small")
        self.owner, self.size = owner, size


class Other(Thing):
    """What the clone makes."""


def make(owner: object, *, size: int = 2) -> Any:
    made = Thing(owner, size=size)
    made.size += len("!")
    return made


def in_closure() -> Callable[[object], Any]:
    kind = Thing
    return lambda owner: kind(owner)


def of_two(owner: object) -> Any:
    return Thing(owner) if isinstance(owner, Other) else None


def of_none(owner: object) -> Any:
    return owner


def of_no_class(owner: object) -> Any:
    return in_closure


def in_another(owner: object) -> Any:
    return (lambda one: Thing(one))(owner)


def clone() -> CursorClone:
    return CursorClone(make, lambda kind: Other if kind is Thing else kind)


def test_it_does_what_the_original_does_with_another_class() -> None:
    theirs, ours = make("me"), clone().instead_of(make)("me", size=4)
    assert (type(theirs), theirs.owner, theirs.size) == (Thing, "me", 3)
    assert (type(ours), ours.owner, ours.size) == (Other, "me", 5)
    assert clone().instead_of(make)("me").size == 3, "the defaults are the original's"
    assert type(make("me")) is Thing, "the original stays as it is"
    assert clone().instead_of(make).__code__ is not make.__code__, (
        "each has code specialised for what it makes"
    )


def test_its_errors_come_from_the_lines_of_the_original() -> None:
    def frames(call: Any) -> list[tuple[str, str, int | None]]:
        with pytest.raises(ValueError, match="too small") as caught:
            call("me", size=-1)
        return [(each.filename, each.name, each.lineno) for each in traceback.extract_tb(caught.tb)[1:]]

    assert frames(clone().instead_of(make)) == frames(make)
    assert inspect.getsource(clone().instead_of(make)) == inspect.getsource(make)


def test_it_gives_way_to_another_function_and_to_another_class(monkeypatch: pytest.MonkeyPatch) -> None:
    substitute = clone()
    patched = types.FunctionType(make.__code__, make.__globals__)
    assert substitute.instead_of(patched) is patched
    monkeypatch.setitem(globals(), "Thing", Other)
    assert substitute.instead_of(make) is make
    monkeypatch.undo()
    assert substitute.instead_of(make) is not make


@pytest.mark.parametrize(
    "function", [in_closure(), of_two, of_none, of_no_class, in_another, len, Thing, Thing("me"), None]
)
def test_what_cannot_have_a_twin_is_refused(function: Any) -> None:
    with pytest.raises(ValueError):
        CursorClone(function, lambda kind: kind)
