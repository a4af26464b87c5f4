"""The one way to watch a call: begin; the driver's own call; fail and raise again, or finish.

`watched` makes such a method of an instrumented connection or cursor. A `Watch` is what the recorder is told before
and after the call. Those that ADBC connections and all others have in common are here; `adbc` and `pep249` have
their own besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Final, TypeAlias

from adbc_telemetry.instrumentation.callers import in_the_callers_place
from adbc_telemetry.instrumentation.operations import Operation
from adbc_telemetry.instrumentation.proxies import original, own
from adbc_telemetry.instrumentation.tracebacks import leave_no_frames

Method: TypeAlias = Callable[..., Any]
Args: TypeAlias = tuple[Any, ...]
Kwargs: TypeAlias = Mapping[str, Any]


class Watch:
    """What is recorded around a call. This one records nothing.

    `thing` is the instrumented connection or cursor whose method is called. Exactly one of `fail` and `finish` follows
    each `begin`. None of the three raises: recorders do not.
    """

    __slots__ = ()

    may_return_itself: ClassVar[bool] = True
    """Whether the driver may return the cursor or connection, in whose place a proxy returns itself."""

    def begin(self, thing: Any, args: Args, kwargs: Kwargs) -> Any:
        """The call begins.

        Returns:
            What `fail` or `finish` gets as `told`.
        """
        return thing._adbc_telemetry

    def fail(self, told: Any, error: BaseException) -> None:
        """The driver has raised `error`, which the program is about to get."""

    def finish(self, told: Any, thing: Any, result: Any, args: Args, kwargs: Kwargs) -> Any:
        """The driver has returned `result`.

        Returns:
            What the program gets.
        """
        return result


def watched(name: str, watch: Watch, *, original_class: Any = None, in_callers_place: bool = True) -> Method:
    """A method that calls the driver's method `name` under `watch`.

    The driver's method is looked up at each call, so that a patch that the program makes later is not bypassed. An
    error leaves with the traceback that it would have without us.

    Args:
        name: of the driver's method.
        watch: what is recorded.
        original_class: the class that has the driver's method, where instrumented objects are of a subclass of it;
            None for a proxy, whose original has the method.
        in_callers_place: whether the driver sees the program's frame as its caller, and not ours; see `callers`.
    """

    begin, fail, finish = watch.begin, watch.fail, watch.finish
    begins_plainly = type(watch).begin is Watch.begin  # then spare the call
    may_return_itself = original_class is None and watch.may_return_itself

    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        told = self._adbc_telemetry if begins_plainly else begin(self, args, kwargs)
        try:
            # No further function: the driver or a traceback would show its frame.
            if original_class is None:
                call = partial(getattr(self.__wrapped__, name), *args, **kwargs)
                result = eval(*in_the_callers_place(call))
            elif in_callers_place:
                call = partial(getattr(original_class, name), self, *args, **kwargs)
                result = eval(*in_the_callers_place(call))
            else:
                result = getattr(original_class, name)(self, *args, **kwargs)
        except BaseException as error:
            fail(told, error)
            leave_no_frames(error)
            raise
        result = finish(told, self, result, args, kwargs)
        return own(self, result) if may_return_itself else result

    return method


class ConnectionOperation(Watch):
    """A method of the connection that is an operation from its call to its return."""

    __slots__ = ("_operation",)

    def __init__(self, operation: Operation) -> None:
        self._operation = operation

    def begin(self, thing: Any, args: Args, kwargs: Kwargs) -> Any:
        session = thing._adbc_telemetry.connection
        counts = not (self._operation.ends_transaction and _commits_nothing(thing))
        return session, session.begin(self._operation, thing, args, kwargs) if counts else None

    def fail(self, told: Any, error: BaseException) -> None:
        session, call = told
        session.fail(call, error)

    def finish(self, told: Any, thing: Any, result: Any, args: Args, kwargs: Kwargs) -> Any:
        session, call = told
        session.finish(call, self._operation.returns_arrow)
        return result


def _commits_nothing(connection: Any) -> bool:
    """Whether this commit is not the program's: without transactions it does nothing; `executescript` makes its own."""
    return bool(connection._adbc_telemetry.script) or not getattr(connection, "_commit_supported", True)


class _ConnectionClose(Watch):
    """`close` of the connection, after which the session is over."""

    __slots__ = ()

    def begin(self, thing: Any, args: Args, kwargs: Kwargs) -> Any:
        session = thing._adbc_telemetry.connection
        session.begin_close()
        return session

    def fail(self, told: Any, error: BaseException) -> None:
        told.fail_close(error)

    def finish(self, told: Any, thing: Any, result: Any, args: Args, kwargs: Kwargs) -> Any:
        told.end()
        return result


class CursorCall(Watch):
    """A call on a cursor. Where it fails, the statement under way has failed."""

    __slots__ = ()

    def fail(self, told: Any, error: BaseException) -> None:
        told.fail(error)


class Execution(CursorCall):
    """A method of the cursor that starts a statement.

    Args:
        operation: what the statement counts as.
        sql_of: finds the statement's text among the arguments of the call.
    """

    __slots__ = ("_operation", "_sql_of")

    def __init__(self, operation: Operation, sql_of: Callable[[Args, Kwargs], object]) -> None:
        self._operation = operation
        self._sql_of = sql_of

    def begin(self, thing: Any, args: Args, kwargs: Kwargs) -> Any:
        recorder = thing._adbc_telemetry
        recorder.begin(self._operation, self._sql_of(args, kwargs), thing, args, kwargs)
        return recorder

    def finish(self, told: Any, thing: Any, result: Any, args: Args, kwargs: Kwargs) -> Any:
        told.executed(original(thing))
        return result


class _Fetch(CursorCall):
    __slots__ = ()

    may_return_itself = False  # but rows, and these should cost little


class _FetchOne(_Fetch):
    __slots__ = ()

    def finish(self, told: Any, thing: Any, result: Any, args: Args, kwargs: Kwargs) -> Any:
        told.fetched(result is None)
        return result


class _FetchMany(_Fetch):
    __slots__ = ()

    def finish(self, told: Any, thing: Any, result: Any, args: Args, kwargs: Kwargs) -> Any:
        told.fetched_many(original(thing), result, args, kwargs)
        return result


class _FetchAll(_Fetch):
    __slots__ = ()

    def finish(self, told: Any, thing: Any, result: Any, args: Args, kwargs: Kwargs) -> Any:
        told.fetched(True, result)
        return result


class _CursorClose(CursorCall):
    __slots__ = ()

    def finish(self, told: Any, thing: Any, result: Any, args: Args, kwargs: Kwargs) -> Any:
        told.end()
        return result


CONNECTION_CLOSE: Final = _ConnectionClose()
FETCH_ONE: Final = _FetchOne()
FETCH_MANY: Final = _FetchMany()
FETCH_ALL: Final = _FetchAll()
CURSOR_CLOSE: Final = _CursorClose()
