"""A call in the caller's place leaves tracebacks, the caller's objects and a debugger as they are."""

from __future__ import annotations

import bdb
import contextlib
import functools
import gc
import itertools
import sqlite3
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from adbc_telemetry.instrumentation import callers
from support.callers import WarningConnection, both, followed, seen_by, told_of

# What stays as it was.


class Raising:
    """A connection that raises as it is asked for a method, in Python and in C."""

    def __getattribute__(self, name: str) -> Any:
        if name == "commit":
            raise LookupError(name)
        nothing: dict[str, Any] = {}
        return nothing[name] if name == "rollback" else super().__getattribute__(name)

    def cursor(self) -> None:
        raise NotImplementedError

    def commit(self) -> None: ...

    rollback = commit

    def close(self) -> None: ...

    def forwarded(self, value: object) -> None:
        raise ZeroDivisionError(value)

    divide = divmod


def test_an_error_has_the_traceback_that_it_has_without_us() -> None:
    def steps(connection: Any) -> Iterator[Callable[[], object]]:
        yield lambda: connection.commit()
        yield lambda: connection.rollback()
        yield lambda: connection.cursor()
        yield lambda: connection.forwarded(1)
        yield lambda: connection.divide(1, 0)
        yield lambda: connection.nothing
        yield lambda: connection.close(1, 2)

    seen_by(Raising, steps)


class Big:
    """What a program lets go."""


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_a_call_keeps_nothing_of_its_caller() -> None:
    connection = followed(sqlite3.connect(":memory:"))

    def use() -> tuple[bool, weakref.ref[Big]]:
        big, local = Big(), Big()
        told = weakref.ref(big)
        for row in connection.execute("SELECT 1 UNION SELECT 2"):
            del row
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("NONSENSE")
        del big
        return told() is None, weakref.ref(local)

    with without_collector():
        freed, local = use()
        assert freed
        assert local() is None
    connection.close()


def test_a_program_s_globals_are_let_go_with_it() -> None:
    with without_collector():
        code = compile("connection.execute('SELECT 1').fetchall(); connection.close()", "<program>", "exec")
        space = {"connection": followed(sqlite3.connect(":memory:")), "big": Big()}
        told = weakref.ref(space["big"])
        exec(code, space)
        del space
        assert told() is None


def test_a_call_leaves_an_earlier_view_of_the_locals_alone() -> None:
    def use(connection: Any) -> object:
        number = 1
        view = locals()
        number = 2
        connection.execute("SELECT 1").fetchall()
        return view["number"], number

    plain, instrumented = (use(connection) for connection in both(lambda: sqlite3.connect(":memory:")))
    assert instrumented == plain == (1, 2)


def test_a_debugger_stops_once_at_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stops: list[int] = []

    class Debugger(bdb.Bdb):
        def user_line(self, frame: FrameType) -> None:
            stops.append(frame.f_lineno)
            self.set_continue()

    def use(connection: Any) -> None:
        connection.execute("SELECT 1")

    line = use.__code__.co_firstlineno + 1
    connection = followed(sqlite3.connect(":memory:"))
    use(connection)  # the line is known from before
    debugger = Debugger()
    assert debugger.set_break(__file__, line) is None
    before = sys.gettrace()
    try:
        debugger.runcall(use, connection)
    finally:
        sys.settrace(before)
    # First where the debugger starts, and then, if that is another line, at the breakpoint.
    assert stops.count(line) == 1
    connection.close()


def test_places_of_calls_are_kept_up_to_a_number() -> None:
    connection = followed(sqlite3.connect(":memory:"))
    space = {"connection": connection}
    for number in range(callers._CODES_AT_MOST + 10):
        exec(f"connection.total_changes  # {number}", space)
    kept = [
        eval(f"lambda: connection.in_transaction + {n}", space) for n in range(callers._CODES_AT_MOST + 10)
    ]
    assert [call() for call in kept] == list(range(len(kept)))
    assert len(callers._codes) <= callers._CODES_AT_MOST
    connection.close()


def test_code_in_the_place_of_other_code_has_its_own_line() -> None:
    connection = followed(WarningConnection())
    for line in itertools.chain(range(1, 50), range(1, 50)):
        source = "\n" * (line - 1) + "connection.commit()"
        run = functools.partial(exec, compile(source, "<it>", "exec"), {"connection": connection})
        told = told_of(run)
        assert told == [("commit", "<it>", line)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        connection.close()
