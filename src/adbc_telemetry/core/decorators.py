"""A context manager around each call of a function, also of an asynchronous one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


def around(make: Callable[[], AbstractContextManager[object]], function: Function) -> Function:
    """`function`, with a context of its own around each call.

    Args:
        make: makes the context of a call.
        function: a function, or a coroutine function: then the context lasts until the coroutine ends.
    """
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with make():
                return await function(*args, **kwargs)

        return cast("Function", awaited)

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with make():
            return function(*args, **kwargs)

    return cast("Function", called)
