"""Proxies that pass for what they stand for: classes, made once for each class of driver objects.

Connections and cursors written in C take neither attributes nor another class, so an instrumented one is a proxy.
It differs from its original in `type()` alone, and that bears the same names: `isinstance` holds, attributes are
read, set and deleted on the original, special methods are those that the original's class has, documentation and
signatures are theirs, and what returns the original returns the proxy. What C code is given instead of its own
type it refuses: a proxy among the arguments of a method of a proxy is taken for its original, and elsewhere
`__wrapped__` is the original.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import CodeType, FunctionType
from typing import Any, Final

from adbc_telemetry.instrumentation.callers import in_the_callers_place
from adbc_telemetry.instrumentation.tracebacks import leave_no_frames

Method = Callable[..., Any]

# Of the object itself, not of what it stands for.
_OWN: Final = {
    *("__class__", "__class_getitem__", "__del__", "__delattr__", "__dict__", "__doc__", "__getattr__"),
    *("__getattribute__", "__getnewargs__", "__getnewargs_ex__", "__getstate__", "__init__"),
    *(
        "__init_subclass__",
        "__module__",
        "__new__",
        "__setattr__",
        "__slots__",
        "__subclasshook__",
        "__weakref__",
    ),
}
# Of every object, so that no class is seen to have them.
_OF_ALL: Final = ("__dir__", "__format__", "__reduce__", "__reduce_ex__", "__repr__", "__sizeof__", "__str__")


class Proxy:
    """The base of all proxies.

    Attributes:
        __wrapped__: the original.
        _adbc_telemetry: what records its operations.
        _adbc_telemetry_owner: of a cursor's proxy, that of its connection, which lives as long.
    """

    __slots__ = ("__weakref__", "__wrapped__", "_adbc_telemetry", "_adbc_telemetry_owner")

    __wrapped__: Any
    _adbc_telemetry: Any
    _adbc_telemetry_owner: Any

    def __getattr__(self, name: str) -> Any:
        try:
            return own(self, eval(*in_the_callers_place(partial(getattr, self.__wrapped__, name))))
        except BaseException as error:
            leave_no_frames(error)
            raise

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            eval(*in_the_callers_place(partial(setattr, self.__wrapped__, name, original(value))))
        except BaseException as error:
            leave_no_frames(error)
            raise

    def __delattr__(self, name: str) -> None:
        try:
            eval(*in_the_callers_place(partial(delattr, self.__wrapped__, name)))
        except BaseException as error:
            leave_no_frames(error)
            raise


def is_proxy(thing: object) -> bool:
    """Whether this is one of our proxies. (`isinstance` asks `__class__`, which says otherwise.)"""
    return issubclass(type(thing), Proxy)


def original(thing: Any) -> Any:
    """What a proxy stands for; anything else as it is."""
    return thing.__wrapped__ if is_proxy(thing) else thing


def own(proxy: Any, value: Any) -> Any:
    """What the original has given out, as the proxy gives it out: itself and its connection as proxies."""
    if value is proxy.__wrapped__:
        return proxy
    owner = proxy._adbc_telemetry_owner
    if owner is not None and value is owner.__wrapped__:
        return owner
    return value


def stand_for(thing: Any, kind: Any, recorder: object, owner: object = None) -> Any:
    """A proxy of class `kind` for `thing`."""
    proxy = object.__new__(kind)
    put = object.__setattr__
    put(proxy, "__wrapped__", thing)
    put(proxy, "_adbc_telemetry", recorder)
    put(proxy, "_adbc_telemetry_owner", owner)
    return proxy


def proxy_class(cls: Any, methods: Mapping[str, Method]) -> Any:
    """A class of proxies for objects of `cls`: `methods`, and for the rest of its methods the original's."""
    namespace: dict[str, Any] = {
        "__slots__": (),
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__class__": property(lambda self: type(self.__wrapped__)),
    }
    package = cls.__module__.partition(".")[0].lstrip("_")  # `_duckdb` is duckdb's
    for name in {*dir(cls), *_OF_ALL}:
        if _passes(cls, name):
            forward = _no_pointer if name == "_pybind11_conduit_v1_" else _forward(name)
            namespace[name] = _looks_like(getattr(cls, name), _unseen(forward, package))
    for name, method in methods.items():
        method = _unseen(method, package)
        namespace[name] = _looks_like(getattr(cls, name), method) if hasattr(cls, name) else method
    return type(cls.__name__, (Proxy,), namespace)


def _looks_like(original: Any, method: Method) -> Method:
    """Give our method the names, documentation and signature of the original's."""
    return functools.update_wrapper(method, original, updated=())


def _unseen(method: Any, package: str) -> Method:
    """A copy of one of our methods. A driver finds no variables in its frames, and takes them for frames of its own.

    duckdb may search all frames below the nearest, and it passes over those of its own package.
    """
    code: CodeType = method.__code__
    # None of the globals that these methods use has the name of an attribute that they use.
    used = {name: value for name, value in method.__globals__.items() if name in code.co_names}
    code = code.replace(
        co_names=tuple(_no_identifier(name) if name in used else name for name in code.co_names),
        co_varnames=tuple(map(_no_identifier, code.co_varnames)),
        co_cellvars=tuple(map(_no_identifier, code.co_cellvars)),
        co_freevars=tuple(map(_no_identifier, code.co_freevars)),
    )
    own_globals = {_no_identifier(name): value for name, value in used.items()}
    own_globals |= {"__builtins__": method.__globals__["__builtins__"], "__name__": package}
    return FunctionType(code, own_globals, method.__name__, method.__defaults__, method.__closure__)


def _no_identifier(name: str) -> str:
    return f"<{name}>"


def _passes(cls: Any, name: str) -> bool:
    """Whether the class defines a method of this name, so that its proxies have to."""
    if name in _OWN:
        return False
    if name in _OF_ALL:
        return True
    member = inspect.getattr_static(cls, name)
    if isinstance(member, (staticmethod, classmethod)) or not inspect.isroutine(member):
        return False
    return not (name.startswith("__") and getattr(object, name, None) is getattr(cls, name))


def _with_originals(method: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Callable[[], Any]:
    """The call of an original's method, to which the originals of proxies are given."""
    return partial(method, *map(original, args), **{key: original(value) for key, value in kwargs.items()})


def _no_pointer(self: Any, /, *args: Any) -> None:
    """What pybind11 asks for the pointer to a C++ object: a proxy has none.

    That to the original would come without its owner, and duckdb 1.2 would run a statement on its default connection.
    """


def _forward(name: str) -> Method:
    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        try:
            call = _with_originals(getattr(self.__wrapped__, name), args, kwargs)
            result = eval(*in_the_callers_place(call))
        except BaseException as error:
            leave_no_frames(error)
            raise
        return own(self, result)

    return method
