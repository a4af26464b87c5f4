"""A watched call: begin; the driver's own call; fail and raise again, or finish. Each once, and in this order."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from adbc_telemetry.instrumentation.operations import CONNECTION_OPERATIONS, CURSOR_OPERATIONS
from adbc_telemetry.instrumentation.proxies import proxy_class, stand_for
from adbc_telemetry.instrumentation.watched import (
    CONNECTION_CLOSE,
    CURSOR_CLOSE,
    FETCH_ALL,
    FETCH_MANY,
    FETCH_ONE,
    ConnectionOperation,
    Execution,
    Watch,
    watched,
)
from support.differential import is_ours

Told = list[tuple[object, ...]]


class Driver:
    """A driver's class."""

    def __init__(self, told: Told) -> None:
        self.told = told

    def call(self, /, *args: Any, **kwargs: Any) -> Any:
        self.told.append(("call", args, kwargs))
        for error in args:
            if isinstance(error, BaseException):
                raise error
        return self if args == ("itself",) else "a result"

    def caller(self) -> object:
        return sys._getframe(1).f_code.co_name, sys._getframe(1).f_locals.get("mark")


class Telling(Watch):
    """A watch that writes down what it is told."""

    def __init__(self, told: Told) -> None:
        self.log = told

    def begin(self, thing: Any, args: Any, kwargs: Any) -> Any:
        self.log.append(("begin", args, kwargs))
        return "a token"

    def fail(self, told: Any, error: BaseException) -> None:
        self.log.append(("fail", told, error))

    def finish(self, told: Any, thing: Any, result: Any, args: Any, kwargs: Any) -> Any:
        self.log.append(("finish", told, result))
        return result


def on_subclass(told: Told) -> Any:
    methods = {
        name: watched(name, Telling(told), original_class=Driver, in_callers_place=False)
        for name in ("call", "caller")
    }
    return type("Driver", (Driver,), methods)(told)


def on_subclass_in_callers_place(told: Told) -> Any:
    methods = {name: watched(name, Telling(told), original_class=Driver) for name in ("call", "caller")}
    return type("Driver", (Driver,), methods)(told)


def on_proxy(told: Told) -> Any:
    methods = {name: watched(name, Telling(told)) for name in ("call", "caller")}
    return stand_for(Driver(told), proxy_class(Driver, methods), mock.Mock())


Make = Callable[[Told], Any]
EACH_WAY = pytest.mark.parametrize("make", [on_subclass, on_subclass_in_callers_place, on_proxy])


@EACH_WAY
def test_a_call_begins_is_made_and_finishes(make: Make) -> None:
    told: Told = []
    assert make(told).call(1, self=2, name=3) == "a result"
    arguments = ((1,), {"self": 2, "name": 3})
    assert told == [("begin", *arguments), ("call", *arguments), ("finish", "a token", "a result")]


@EACH_WAY
@pytest.mark.parametrize("error", [ValueError("of the driver"), KeyboardInterrupt(), StopIteration()])
def test_a_call_that_raises_fails_once_and_raises_the_same_error(make: Make, error: BaseException) -> None:
    told: Told = []
    with pytest.raises(type(error)) as caught:
        make(told).call(error)
    assert caught.value is error
    assert told == [("begin", (error,), {}), ("call", (error,), {}), ("fail", "a token", error)]


@EACH_WAY
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 puts frames back in when it raises again")
def test_no_frame_of_ours_is_in_the_traceback(make: Make) -> None:
    with pytest.raises(ValueError) as caught:
        make([]).call(ValueError())
    names = [(is_ours(each.filename), each.name) for each in traceback.extract_tb(caught.tb)]
    assert names == [(False, "test_no_frame_of_ours_is_in_the_traceback"), (False, "call")]


@EACH_WAY
def test_a_patch_of_the_driver_that_is_made_later_is_not_bypassed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    thing = make([])
    monkeypatch.setattr(Driver, "call", lambda self, *args: ("patched", args))
    assert thing.call(1) == ("patched", (1,))


@pytest.mark.parametrize("make", [on_subclass_in_callers_place, on_proxy])
def test_the_driver_sees_the_program_as_its_caller(make: Make) -> None:
    mark = object()
    assert make([]).caller() == ("test_the_driver_sees_the_program_as_its_caller", mark)


@EACH_WAY
def test_a_thing_that_returns_itself_returns_what_the_program_has(make: Make) -> None:
    thing = make([])
    assert thing.call("itself") is thing


def test_what_finish_returns_is_what_the_program_gets() -> None:
    class Replacing(Watch):
        def finish(self, told: Any, thing: Any, result: Any, args: Any, kwargs: Any) -> Any:
            return told, result, args

    class Cursor(Driver):
        _adbc_telemetry = "the recorder"
        call = watched("call", Replacing(), original_class=Driver, in_callers_place=False)

    assert Cursor([]).call(1) == ("the recorder", "a result", (1,))


# What each watch tells the recorder.


class Thing:
    """An instrumented connection or cursor."""

    _commit_supported = True

    def __init__(self, **recorder: Any) -> None:
        self._adbc_telemetry = mock.Mock(**recorder)
        self._adbc_telemetry.connection = self._adbc_telemetry


def after(watch: Watch, result: object, *args: object, **kwargs: object) -> tuple[Thing, list[Any]]:
    """The calls of the recorder that a call of the driver leads to."""
    thing = Thing(script=[])
    told = watch.begin(thing, args, kwargs)
    assert watch.finish(told, thing, result, args, kwargs) is result
    return thing, thing._adbc_telemetry.method_calls


def after_error(watch: Watch, error: BaseException) -> list[Any]:
    thing = Thing(script=[])
    watch.fail(watch.begin(thing, (), {}), error)
    return list(thing._adbc_telemetry.method_calls)


@pytest.mark.parametrize(("row", "over"), [((1,), False), (None, True)])
def test_a_row_that_is_none_is_the_end_of_the_results(row: object, over: bool) -> None:
    assert after(FETCH_ONE, row)[1] == [mock.call.fetched(over)]


def test_many_rows_are_told_with_the_arguments_that_say_how_many_were_wanted() -> None:
    thing, calls = after(FETCH_MANY, [(1,)], 5)
    assert calls == [mock.call.fetched_many(thing, [(1,)], (5,), {})]


def test_all_rows_are_the_end_of_the_results() -> None:
    assert after(FETCH_ALL, [])[1] == [mock.call.fetched(True, [])]


def test_a_cursor_that_is_closed_ends_its_statement() -> None:
    assert after(CURSOR_CLOSE, None)[1] == [mock.call.end()]


@pytest.mark.parametrize("watch", [FETCH_ONE, FETCH_MANY, FETCH_ALL, CURSOR_CLOSE])
def test_a_cursors_call_that_fails_fails_the_statement(watch: Watch) -> None:
    error = ValueError()
    assert after_error(watch, error) == [mock.call.fail(error)]


def test_an_execution_starts_a_statement_and_asks_the_cursor_for_rows() -> None:
    operation = CURSOR_OPERATIONS["execute"]
    thing, calls = after(Execution(operation, lambda args, kwargs: args[0]), None, "SELECT 1")
    begun = mock.call.begin(operation, "SELECT 1", thing, ("SELECT 1",), {})
    assert calls == [begun, mock.call.executed(thing)]


def test_a_connection_that_closes_ends_its_session_and_one_that_does_not_stays_open() -> None:
    assert after(CONNECTION_CLOSE, None)[1] == [mock.call.begin_close(), mock.call.end()]
    error = ValueError()
    assert after_error(CONNECTION_CLOSE, error) == [mock.call.begin_close(), mock.call.fail_close(error)]


def test_an_operation_of_the_connection_is_a_statement_of_its_own() -> None:
    operation = CONNECTION_OPERATIONS["adbc_get_table_types"]
    watch = ConnectionOperation(operation)
    thing, calls = after(watch, None)
    call = thing._adbc_telemetry.begin.return_value
    begun = mock.call.begin(operation, thing, (), {})
    assert calls == [begun, mock.call.finish(call, operation.returns_arrow)]
    error = ValueError()
    assert after_error(watch, error)[1] == mock.call.fail(mock.ANY, error)


@pytest.mark.parametrize(("script", "supported"), [([1], True), ([], False)])
def test_a_commit_that_is_not_the_programs_is_no_statement(script: list[int], supported: bool) -> None:
    thing = Thing(script=script)
    thing._commit_supported = supported
    watch = ConnectionOperation(CONNECTION_OPERATIONS["commit"])
    watch.finish(watch.begin(thing, (), {}), thing, None, (), {})
    assert thing._adbc_telemetry.method_calls == [mock.call.finish(None, False)]
