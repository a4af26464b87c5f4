"""Drivers that look at their caller see the program's own frame, and not one of ours."""

from __future__ import annotations

import _thread
import functools
import runpy
import sqlite3
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adbc_telemetry.instrumentation import callers
from support.callers import both, followed, seen_by

Calls = dict[str, Callable[[Any], Callable[..., Any]]]


# What a query names: duckdb's replacement scans.

SQL = "SELECT sum(a) FROM frame"

METHODS: Calls = {
    "execute": lambda connection: connection.execute,
    "sql": lambda connection: connection.sql,
    "query": lambda connection: connection.query,
    "from_query": lambda connection: connection.from_query,
    "cursor.execute": lambda connection: connection.cursor().execute,
    "cursor.sql": lambda connection: connection.cursor().sql,
    "a method kept": lambda connection: functools.partial(connection.execute),
}

CALLERS = {
    "a function": """
        def ask():
            frame = make()
            return run(sql).fetchall()
        outcome = ask()
    """,
    "a function with an argument": """
        def ask(frame):
            return run(sql).fetchall()
        outcome = ask(make())
    """,
    "a function of no such variable": """
        def ask():
            return run(sql).fetchall()
        outcome = ask()
    """,
    "a function whose variable is deleted": """
        def ask():
            frame = make()
            del frame
            return run(sql).fetchall()
        outcome = ask()
    """,
    "a function over a global": """
        frame = make()
        def ask():
            return run(sql).fetchall()
        outcome = ask()
    """,
    "a nested function that uses the variable": """
        def outer():
            frame = make()
            def ask():
                return frame is not None, run(sql).fetchall()
            return ask()
        outcome = outer()
    """,
    "a nested function that does not": """
        def outer():
            frame = make()
            def ask():
                return run(sql).fetchall()
            return ask()
        outcome = outer()
    """,
    "a lambda": "outcome = (lambda frame: run(sql).fetchall())(make())",
    "a comprehension": "outcome = [run(sql).fetchall() for frame in [make(), make()]]",
    "a comprehension within a function": """
        def ask():
            frame = make()
            return [run(sql).fetchall() for _ in range(2)]
        outcome = ask()
    """,
    "a generator": """
        def ask():
            for frame in [make(), make()]:
                yield run(sql).fetchall()
        outcome = list(ask())
    """,
    "a coroutine": """
        async def ask():
            frame = make()
            return run(sql).fetchall()
        try:
            ask().send(None)
        except StopIteration as end:
            outcome = end.value
    """,
    "a class": """
        class Asks:
            frame = make()
            outcome = run(sql).fetchall()
        outcome = Asks.outcome
    """,
    "a method with mangled names": """
        class Asks:
            def __init__(self):
                self.__frame = make()
            def ask(self):
                __frame = self.__frame
                return run("SELECT sum(a) FROM _Asks__frame").fetchall()
        outcome = Asks().ask()
    """,
    "a module": "frame = make()\noutcome = run(sql).fetchall()",
    "exec": "exec('frame = make(); outcome = run(sql).fetchall()')",
    "exec in a function": """
        def ask():
            frame = make()
            space = {}
            exec("outcome = run(sql).fetchall()", globals(), space)
            return space
        outcome = ask()
    """,
    "exec with locals of its own": """
        space = {"frame": make()}
        exec("outcome = run(sql).fetchall()", globals(), space)
        outcome = space["outcome"]
    """,
    "eval": "outcome = eval('run(sql).fetchall()', globals(), {'frame': make()})",
    "a variable of a type that is no table": """
        def ask():
            frame = 5
            return run(sql).fetchall()
        outcome = ask()
    """,
    "a loop over several lines": """
        def ask(found=()):
            for frame in [make(), 5]:
                found += (
                    run(
                        sql,
                    ).fetchall(),
                )
        outcome = ask()
    """,
    "C code that calls": """
        def ask():
            frame = make()
            return [answer.fetchall() for answer in map(run, [sql])]
        outcome = ask()
    """,
    "a decorated function": """
        import functools
        def decorate(call):
            @functools.wraps(call)
            def wrapper(*args):
                return call(*args)
            return wrapper
        def ask():
            frame = make()
            return decorate(run)(sql).fetchall()
        outcome = ask()
    """,
}


def pandas_frame() -> Any:
    return pytest.importorskip("pandas").DataFrame({"a": [1, 2, 3]})


def polars_frame() -> Any:
    return pytest.importorskip("polars").DataFrame({"a": [1, 2, 3]})


def lazy_frame() -> Any:
    return polars_frame().lazy()


def arrow_table() -> Any:
    return pytest.importorskip("pyarrow").table({"a": [1, 2, 3]})


def arrow_reader() -> Any:
    return arrow_table().to_reader()


FRAMES = [pandas_frame, polars_frame, lazy_frame, arrow_table, arrow_reader]


def duckdb_connection() -> Any:
    return pytest.importorskip("duckdb").connect(":memory:")


def run_source(name: str, source: str, run: Any, make: Callable[[], Any]) -> object:
    text = source if "\n        " not in source else "\n".join(line[8:] for line in source.splitlines())
    space = {"run": run, "make": make, "sql": SQL, "__name__": "program"}
    exec(compile(text, f"<{name}>", "exec"), space)
    return space["outcome"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CALLERS)
def test_a_query_names_a_frame_of_its_caller(name: str, method: str) -> None:
    pandas_frame()

    def steps(connection: Any) -> Iterator[Callable[[], object]]:
        run = METHODS[method](connection)
        yield lambda: run_source(name, CALLERS[name], run, pandas_frame)

    seen_by(duckdb_connection, steps)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", FRAMES)
def test_a_query_names_frames_of_each_library(make: Callable[[], Any], method: str) -> None:
    make()
    for connection in both(duckdb_connection):
        assert run_source("it", CALLERS["a function"], METHODS[method](connection), make) == [(6,)]


def test_a_module_s_query_names_a_frame_of_the_module(tmp_path: Path) -> None:
    pandas_frame()
    program = tmp_path / "program.py"
    program.write_text("frame = make()\noutcome = run(sql).fetchall()\n", encoding="utf-8")
    for connection in both(duckdb_connection):
        space = {"run": connection.sql, "make": pandas_frame, "sql": SQL}
        assert runpy.run_path(str(program), space)["outcome"] == [(6,)]


def test_a_notebook_s_cell_names_a_frame_of_another_cell() -> None:
    pandas_frame()
    for connection in both(duckdb_connection):
        space: dict[str, Any] = {"connection": connection, "make": pandas_frame, "__name__": "__main__"}
        for number, cell in enumerate(
            ["frame = make()", f"answer = connection.sql({SQL!r})", "answer = answer.fetchall()"]
        ):
            exec(compile(cell, f"<ipython-input-{number}>", "exec"), space)
        assert space["answer"] == [(6,)]


def test_many_rows_are_inserted_from_a_frame_of_the_caller() -> None:
    pandas_frame()
    for connection in both(duckdb_connection):
        frame = pandas_frame()
        connection.execute("CREATE TABLE t (a INT)")
        connection.executemany("INSERT INTO t SELECT a + ? FROM frame", [(10,), (20,)])
        connection.cursor().executemany("INSERT INTO t SELECT a + ? FROM frame", [(30,)])
        rows = connection.execute("SELECT sum(a) FROM t").fetchall()
        assert rows == [(18 + 60 + 120,)]
        del frame


def test_a_relation_keeps_the_frame_that_its_query_named() -> None:
    pandas_frame()

    def relation(connection: Any) -> Any:
        frame = pandas_frame()
        return connection.sql("SELECT a FROM frame"), frame[:0]

    for connection in both(duckdb_connection):
        found, frame = relation(connection)
        assert len(frame) == 0
        assert found.fetchall() == [(1,), (2,), (3,)]
        assert found.aggregate("sum(a)").fetchall() == [(6,)]
        assert connection.execute("SELECT count(*) FROM frame").fetchall() == [(0,)]


# The names that our own code uses for its variables.
NAMES = sorted(
    {
        name
        for name in (*METHODS, "call", "args", "kwargs", "self", "result", "recorder", "cursor")
        if "." not in name
    }
    | {
        "connection",
        "session",
        "statement",
        "operation",
        "name",
        "own",
        "original",
        "partial",
        "place",
        "frame",
    }
)


@pytest.mark.parametrize("name", [name for name in NAMES if name.isidentifier()])
def test_a_frame_of_any_name_is_found_or_not_as_without_us(name: str) -> None:
    """Also below the nearest frame, where duckdb looks if it is told to."""
    pandas_frame()
    sql = f'SELECT sum(a) FROM "{name}"'

    def steps(connection: Any) -> Iterator[Callable[[], object]]:
        # Keep this file's own variables, and pytest's, out of the search: programs with no caller but this test.
        spaces = [
            {"run": connection.sql, "sql": sql, name: pandas_frame()} if name not in ("run", "sql") else {},
            {"run": connection.sql, "sql": sql},
        ]
        for space in spaces:
            yield lambda space=space: eval("run(sql).fetchall()", space)  # type: ignore[misc]
        connection.execute("SET python_scan_all_frames = true")
        inner = eval("lambda: run(sql).fetchall()", spaces[1])
        yield lambda: eval("inner()", {"inner": inner}, {name: pandas_frame()})

    seen_by(duckdb_connection, steps)


def test_our_frames_have_no_names_that_a_query_could_mean() -> None:
    seen: list[tuple[set[str], set[str], object]] = []

    class Looks(sqlite3.Connection):
        def execute(self, *args: Any) -> Any:
            frame = sys._getframe(1).f_back  # beyond the caller's
            while frame is not None and frame.f_code is not use.__code__:
                seen.append((set(frame.f_locals), set(frame.f_globals), frame.f_globals["__name__"]))
                frame = frame.f_back
            return super().execute(*args)

        total_changes_of = execute

    Looks.__module__ = "_looking.base"

    def use(connection: Any) -> None:
        connection.execute("SELECT 1")
        connection.total_changes_of("SELECT 1")

    connection = followed(sqlite3.connect(":memory:", factory=Looks))
    use(connection)
    connection.close()
    assert len(seen) == 2
    for names, its_globals, package in seen:
        assert not any(name.isidentifier() for name in names)
        assert {name for name in its_globals if name.isidentifier()} == {"__builtins__", "__name__"}
        assert package == "looking"


def test_the_nearest_frame_is_like_the_caller_s() -> None:
    def look() -> str:
        frame = sys._getframe(1)
        local = frame.f_locals
        where = (frame.f_code.co_filename, frame.f_code.co_name, frame.f_lineno)
        names = (
            sorted(local),
            len(local),
            dict(local).keys() == set(local),
            "number" in local,
            "nothing" in local,
        )
        return repr((where, names, local["number"], frame.f_globals is globals()))

    def use(connection: Any) -> object:
        number = 1
        connection.create_function("look", 0, look)
        number += 1
        return connection.execute("SELECT look()").fetchall(), number

    plain, instrumented = (use(connection) for connection in both(lambda: sqlite3.connect(":memory:")))
    assert instrumented == plain

    def steps(connection: Any) -> Iterator[Callable[[], object]]:
        yield lambda: connection.sql(f'SELECT * FROM "{callers._NAME}"').fetchall()

    seen_by(duckdb_connection, steps)


@pytest.mark.parametrize("function", ["execute", "executemany", "sql", "query", "from_query"])
def test_a_function_of_the_module_runs_on_the_connection_that_it_is_given_or_refuses_it(
    function: str,
) -> None:
    """A function in C refuses all but its own type; one in Python sees its caller's frames through the proxy."""
    duckdb = pytest.importorskip("duckdb")
    pandas_frame()
    call = getattr(duckdb, function)
    connection = followed(duckdb_connection())
    connection.execute("CREATE TABLE mine AS SELECT 36 AS b")
    frame = pandas_frame()
    arguments = ([(6,)],) if function == "executemany" else ()
    sql = "SELECT sum(a) + max(b) FROM frame, mine" + (" WHERE a < ?" if arguments else "")
    try:
        answer = call(sql, *arguments, connection=connection)
    except TypeError as error:
        assert "incompatible function arguments" in str(error)  # noqa: PT017 - either way is right
        assert not isinstance(call, types.FunctionType)
    else:
        assert answer.fetchall() == [(42,)]
        assert isinstance(call, types.FunctionType)
        assert answer.query("v", "SELECT count(*) FROM v, frame").fetchall() == [(3,)]
    assert call(sql, *arguments, connection=connection.__wrapped__).fetchall() == [(42,)]
    connection.close()
    del frame


def test_no_proxy_hands_out_the_pointer_to_its_original() -> None:
    class Native(sqlite3.Connection):
        def _pybind11_conduit_v1_(self, *args: object) -> object:
            return "a pointer"

    connection = followed(sqlite3.connect(":memory:", factory=Native))
    assert connection._pybind11_conduit_v1_(b"abi", "type", b"raw_pointer_ephemeral") is None
    connection.close()


def test_threads_see_their_own_frames() -> None:
    pandas = pytest.importorskip("pandas")
    connection = followed(duckdb_connection())
    answers: dict[int, object] = {}

    def ask(number: int, cursor: Any) -> None:
        for _ in range(20):
            frame = pandas.DataFrame({"a": [number]})
            answers[number] = cursor.execute(SQL).fetchall()
            if answers[number] != [(number,)]:
                break
        del frame

    threads = [threading.Thread(target=ask, args=(n, connection.cursor())) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {n: [(n,)] for n in range(4)}
    connection.close()


# Without a caller.


def test_a_method_may_be_called_with_no_python_frame_below() -> None:
    done = threading.Event()

    class Connection:
        def cursor(self) -> None: ...

        def commit(self) -> None: ...

        def close(self) -> None: ...

        def execute(self, sql: str) -> None:
            if sql == "SELECT 1" and sys._getframe(1).f_globals.get("__name__") is None:
                done.set()

    connection = followed(Connection())
    _thread.start_new_thread(connection.execute, ("SELECT 1",))
    assert done.wait(30)
    connection.close()
