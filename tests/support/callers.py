"""Bare and instrumented connections side by side, and drivers whose warnings point at their caller."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

from adbc_telemetry import InMemoryTelemetryExporter, instrument
from support.differential import outcomes


def followed(connection: Any) -> Any:
    return instrument(connection, exporter=InMemoryTelemetryExporter())


def both(connect: Callable[[], Any]) -> Iterator[Any]:
    """A bare connection and an instrumented one; each is closed at the end."""
    for is_instrumented in (False, True):
        raw = connect()
        connection = followed(raw) if is_instrumented else raw
        yield connection
        connection.close()


def seen_by(connect: Callable[[], Any], steps: Callable[[Any], Iterator[Callable[[], object]]]) -> None:
    """Assert that the steps have the same outcomes on a bare connection and on an instrumented one."""
    plain, instrumented = (outcomes(steps(connection)) for connection in both(connect))
    for one, other in zip(instrumented, plain, strict=True):
        assert one == other


class WarningCursor:
    """A cursor whose methods all warn with a stack level that points at their caller."""

    description: Any = None
    arraysize = 1
    rowcount = -1

    def __init__(self) -> None:
        self.rows: list[int] = []

    def _warn(self, text: str, level: int = 3) -> None:
        warnings.warn(text, DeprecationWarning, level)

    @property
    def connection(self) -> None:
        self._warn("connection")

    @connection.setter
    def connection(self, value: object) -> None:
        self._warn("connection is set")

    @connection.deleter
    def connection(self) -> None:
        self._warn("connection is deleted")

    def execute(self, sql: str, *parameters: object) -> None:
        self._warn(sql)
        self.rows = [1, 2, 3]
        self.description = [("n",)]

    executemany = executescript = callproc = execute

    def fetchone(self) -> Any:
        self._warn("fetchone")
        return self.rows.pop() if self.rows else None

    def fetchmany(self, size: int = 1) -> Any:
        self._warn("fetchmany")
        return [self.fetchone_quietly() for _ in range(size)]

    def fetchone_quietly(self) -> Any:
        return self.rows.pop()

    def fetchall(self) -> Any:
        self._warn("fetchall")
        return self.rows

    def nextset(self) -> None:
        self._warn("nextset")

    def close(self) -> None:
        self._warn("close")

    def __iter__(self) -> Any:
        self._warn("iter")
        return self

    def __next__(self) -> Any:
        self._warn("next")
        if not self.rows:
            raise StopIteration
        return self.rows.pop()

    def __enter__(self) -> Any:
        self._warn("enter")
        return self

    def __exit__(self, *_: object) -> None:
        self._warn("exit")

    def __len__(self) -> int:
        self._warn("len")
        return 0


class WarningConnection(WarningCursor):
    def cursor(self) -> WarningCursor:
        self._warn("cursor")
        return WarningCursor()

    def commit(self) -> None:
        self._warn("commit")

    rollback = commit


def told_of(program: Callable[[], object]) -> list[tuple[str, str, int]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        program()
    return [(str(each.message), each.filename, each.lineno) for each in caught]
