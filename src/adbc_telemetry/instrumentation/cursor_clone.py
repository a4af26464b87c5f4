"""Methods that make objects of a class, made over so that they make them of another.

An object whose class is changed after it was made is slower from then on: Python gives up the compact form of its
attributes, and with it what its methods' code has been specialised for. For a cursor of ADBC that was the largest
part of what instrumentation cost.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any


class CursorClone:
    """A function's clone: its code, with another class in the place of the one that it names.

    Args:
        original: a function that uses one global name, which is that of a class: what it makes.
        substitute: gives the class to be made in that one's place.

    Raises:
        ValueError: `original` is no such function.
    """

    def __init__(self, original: Any, substitute: Callable[[Any], Any]) -> None:
        self._globals, self._name = _global_name(original)
        self._original = original
        self._class: type[Any] = self._globals[self._name]
        self.made: Any = substitute(self._class)
        own = {name: value for name, value in self._globals.items() if name.startswith("__")}
        # Code of its own as well, since Python specialises code for what it meets.
        self._function = FunctionType(
            original.__code__.replace(),
            {**own, self._name: self.made},
            original.__name__,
            original.__defaults__,
        )
        self._function.__kwdefaults__ = original.__kwdefaults__

    def instead_of(self, function: Any) -> Any:
        """The clone, if it may stand for `function`; else `function`: other code has patched it, or its class."""
        if function is self._original and self._globals.get(self._name) is self._class:
            return self._function
        return function


def _global_name(function: Any) -> tuple[dict[str, Any], str]:
    if not isinstance(function, FunctionType) or function.__closure__:
        raise ValueError("not a plain function")
    code, names = function.__code__, function.__globals__
    used = [name for name in code.co_names if name in names]
    if len(used) != 1 or not isinstance(names[used[0]], type):
        raise ValueError("not of one global class")
    if any(isinstance(constant, CodeType) for constant in code.co_consts):
        raise ValueError("has functions of its own")
    return names, used[0]
