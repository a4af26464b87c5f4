"""A program cannot tell an instrumented ADBC connection from one as it is."""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from adbc_telemetry import (
    instrument,
)
from adbc_telemetry.instrumentation import adbc
from support.adbc import (
    ENDPOINT,
    QUERY,
    Recording,
    connect_sqlite,
    enabled,
    run,
    wait_for_no_clients,
)
from support.differential import is_ours

dbapi = pytest.importorskip("adbc_driver_manager.dbapi")
_lib = pytest.importorskip("adbc_driver_manager._lib")
pyarrow = pytest.importorskip("pyarrow")
sqlite_dbapi = pytest.importorskip("adbc_driver_sqlite.dbapi")

# Nothing else changes.


def test_a_program_runs_as_it_does_without_telemetry(connect: Any, recording: Recording) -> None:
    without = run(connect())
    with_telemetry = run(instrument(connect(), ENDPOINT, config=enabled(), exporter=recording))
    assert with_telemetry == without
    assert recording.statements() != []


def test_instrumented_objects_are_what_they_were(connect: Any, recording: Recording) -> None:
    connection = connect()
    cls, state = type(connection), dict(vars(connection))
    with connection.cursor() as cursor:
        cursor_cls = type(cursor)
    assert instrument(connection, ENDPOINT, config=enabled(), exporter=recording) is connection
    followed = connection.cursor()
    for thing, kind in ((connection, cls), (followed, cursor_cls)):
        assert isinstance(thing, kind)
        assert isinstance(thing, (dbapi.Connection, dbapi.Cursor))
        assert type(thing).__module__ == kind.__module__
        assert type(thing).__qualname__ == kind.__qualname__
        assert type(thing).__name__ == kind.__name__
        assert type(thing).__doc__ == kind.__doc__
        assert repr(thing).startswith(f"<{kind.__module__}.{kind.__qualname__} object at ")
        assert dir(kind) == [name for name in dir(thing) if name in dir(kind)]
        for name, member in inspect.getmembers(kind, callable):
            ours = getattr(type(thing), name)
            assert ours is member or getattr(ours, "__doc__", None) == getattr(member, "__doc__", None)
            if inspect.isfunction(member):
                assert inspect.signature(ours) == inspect.signature(member)
                assert ours.__qualname__ == member.__qualname__
    assert set(vars(connection)) - set(state) == {"_adbc_telemetry"}
    assert followed.connection is connection
    followed.close()
    connection.close()


def test_a_class_of_the_users_own_is_followed(recording: Recording) -> None:
    class Their(sqlite_dbapi.Connection):  # type: ignore[misc, name-defined]
        """A connection that counts."""

        made = 0

        def cursor(self, **kwargs: Any) -> Any:
            self.made += 1
            return super().cursor(**kwargs)

    raw = connect_sqlite()
    raw.__class__ = Their
    with instrument(raw, ENDPOINT, config=enabled(), exporter=recording) as connection:
        connection.execute("SELECT 1").close()
        assert connection.made == 1
        assert type(connection).__qualname__ == Their.__qualname__
        assert type(connection).__doc__ == "A connection that counts."
        assert recording.statements() == [QUERY]


class OwnCursor(dbapi.Cursor):  # type: ignore[misc, name-defined]
    """A cursor of a user's, strict and busy."""

    made = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        assert type(self) is OwnCursor
        super().__init__(*args, **kwargs)
        self.execute("SELECT 0")

    def __setattr__(self, name: str, value: object) -> None:
        if name == "_adbc_telemetry":
            raise AttributeError(name)
        super().__setattr__(name, value)

    def fetchone(self, as_dict: bool = False) -> Any:
        row = super().fetchone()
        return {"n": row[0]} if as_dict else row


class OwnConnection(sqlite_dbapi.Connection):  # type: ignore[misc, name-defined]
    """Makes them, and counts."""

    def cursor(self, *, adbc_stmt_kwargs: Any = None) -> Any:
        cursor = OwnCursor(self, adbc_stmt_kwargs)
        OwnCursor.made += 1
        self._cursors.add(cursor)
        return cursor


def test_cursors_of_the_users_own_are_made_as_without_us(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OwnCursor, "made", 0)
    raw = connect_sqlite()
    raw.__class__ = OwnConnection
    with instrument(raw, ENDPOINT, config=enabled(), exporter=recording) as connection:
        with connection.cursor() as cursor:
            assert isinstance(cursor, OwnCursor)
            cursor.execute("SELECT 1")
            assert cursor.fetchone(as_dict=True) == {"n": 1}
        assert OwnCursor.made == 1
        assert recording.statements() == [QUERY]


TheirCursor = dbapi.Cursor


class Importing(sqlite_dbapi.Connection):  # type: ignore[misc, name-defined]
    """Makes the driver manager's cursors, but by itself."""

    def cursor(self, *, adbc_stmt_kwargs: Any = None) -> Any:
        return TheirCursor(self, adbc_stmt_kwargs)


def test_only_the_driver_managers_own_has_a_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    assert adbc._cursor_clone(dbapi.Connection) is not None
    assert adbc._cursor_clone(sqlite_dbapi.Connection) is not None
    assert adbc._cursor_clone(Importing) is None
    assert adbc._cursor_clone(OwnConnection) is None
    monkeypatch.setattr(dbapi, "Cursor", OwnCursor)
    assert adbc._cursor_clone(dbapi.Connection) is None


def test_a_connection_that_does_not_take_another_class_is_left_as_it_was(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adbc, "connection_class", lambda cls: int)
    with connect_sqlite() as connection:
        state = dict(vars(connection))
        assert instrument(connection, ENDPOINT, config=enabled(), exporter=recording) is connection
        assert vars(connection) == state
    wait_for_no_clients()


class Reusing(sqlite_dbapi.Connection):  # type: ignore[misc, name-defined]
    """Hands out the same cursor again and again."""

    kept: Any = None

    def cursor(self, **kwargs: Any) -> Any:
        if self.kept is None:
            self.kept = super().cursor(**kwargs)
        return self.kept


def test_a_cursor_that_is_handed_out_again_is_followed_once(recording: Recording) -> None:
    raw = connect_sqlite()
    raw.__class__ = Reusing
    with instrument(raw, ENDPOINT, config=enabled(), exporter=recording) as connection:
        first = connection.cursor()
        first.execute("SELECT 1")
        assert connection.cursor() is first
        assert len(type(first).__mro__) == len(dbapi.Cursor.__mro__) + 1
        first.fetchall()
        assert recording.statements() == [QUERY]


def test_what_the_program_makes_of_our_classes_works_and_is_not_followed(
    sqlite: Any, recording: Recording
) -> None:
    with sqlite.cursor() as cursor, type(cursor)(sqlite) as other:
        assert other.execute("SELECT 1").fetchall() == [(1,)]
        assert other.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(sqlite.Error):
            other.execute("nonsense")
        assert other.execute("SELECT 1").fetch_record_batch().read_all().num_rows == 1
        with contextlib.suppress(dbapi.NotSupportedError):
            other.adbc_cancel()
    clone = type(sqlite)(sqlite._db, _lib.AdbcConnection(sqlite._db._db))
    with clone, clone.cursor() as cursor:
        assert cursor.execute("SELECT 1").fetchall() == [(1,)]
        cursor.executescript("SELECT 1")
        clone.commit()
    assert recording.statements() == []


@pytest.mark.parametrize("name", ["execute", "cursor"])
def test_a_method_that_other_code_wraps_gets_the_arguments_that_it_was_given(name: str, sqlite: Any) -> None:
    owner = dbapi.Cursor if name == "execute" else dbapi.Connection
    with mock.patch.object(owner, name, autospec=True) as spy, sqlite.cursor() as cursor:
        spy.reset_mock()
        if name == "execute":
            cursor.execute("SELECT 1")
            spy.assert_called_once_with(cursor, "SELECT 1")
        else:
            sqlite.cursor()
            spy.assert_called_once_with(sqlite)


def test_a_wrapper_with_more_arguments_than_it_shows_gets_them(recording: Recording) -> None:
    given: list[object] = []
    original = dbapi.Cursor.execute

    @functools.wraps(original)
    def execute(self: Any, *args: Any, timeout: float = 0.0) -> Any:
        given.append(timeout)
        return original(self, *args)

    class Wrapped(dbapi.Cursor):  # type: ignore[misc, name-defined]
        pass

    Wrapped.execute = execute

    class Wrapping(sqlite_dbapi.Connection):  # type: ignore[misc, name-defined]
        def cursor(self) -> Any:
            return Wrapped(self)

    raw = connect_sqlite()
    raw.__class__ = Wrapping
    with instrument(raw, ENDPOINT, config=enabled(), exporter=recording) as connection:
        with connection.cursor() as cursor:
            assert cursor.execute("SELECT 1", timeout=3.0).fetchall() == [(1,)]
        assert given == [3.0]
        assert recording.statements() == [QUERY]


def test_an_error_whose_attributes_cannot_be_set_passes(sqlite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Frozen(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    def failing(self: Any, *args: Any) -> None:
        raise Frozen

    with sqlite.cursor() as cursor, monkeypatch.context() as patch:
        patch.setattr(dbapi.Cursor, "execute", failing)
        with pytest.raises(Frozen):
            cursor.execute("SELECT 1")


class Tally:
    """What a class of the user's own counts with."""

    made = 0


class Counting(sqlite_dbapi.Connection):  # type: ignore[misc, name-defined]
    """Its `cursor` names a class as well, but not that of cursors."""

    make = dbapi.Connection.cursor

    def cursor(self, **kwargs: Any) -> Any:
        Tally.made += 1
        return self.make(**kwargs)


def test_a_class_that_is_none_of_cursors_is_left_alone(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tally, "made", 0)
    raw = connect_sqlite()
    raw.__class__ = Counting
    with instrument(raw, ENDPOINT, config=enabled(), exporter=recording) as connection:
        connection.execute("SELECT 1").close()
        assert Tally.made == 1
        assert recording.statements() == [QUERY]


def test_a_cursor_has_its_class_from_the_start(sqlite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[type] = []
    original = dbapi.Cursor.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        made.append(type(self))
        original(self, *args, **kwargs)

    monkeypatch.setattr(dbapi.Cursor, "__init__", __init__)
    with sqlite.cursor() as cursor:
        assert made == [type(cursor)]


def test_connections_of_one_class_share_one_subclass(connect: Any, recording: Recording) -> None:
    connections = [instrument(connect(), ENDPOINT, config=enabled(), exporter=recording) for _ in range(2)]
    cursors = [connection.cursor() for connection in connections]
    assert len({type(connection) for connection in connections}) == 1
    assert len({type(cursor) for cursor in cursors}) == 1
    for thing in (*cursors, *connections):
        thing.close()


def test_a_patch_of_the_drivers_class_is_not_bypassed(sqlite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Counter[str]()
    original = dbapi.Cursor.fetchall

    def fetchall(self: Any) -> Any:
        calls["fetchall"] += 1
        return original(self)

    with sqlite.cursor() as cursor:
        cursor.execute("SELECT 1")
        monkeypatch.setattr(dbapi.Cursor, "fetchall", fetchall)
        assert cursor.fetchall() == [(1,)]
    assert calls == {"fetchall": 1}


def test_a_patch_of_how_cursors_are_made_is_not_bypassed(
    sqlite: Any, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class Their(dbapi.Cursor):  # type: ignore[misc, name-defined]
        """A cursor that is counted."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append(self)
            super().__init__(*args, **kwargs)

    original = dbapi.Connection.cursor

    def cursor(self: Any, **kwargs: Any) -> Any:
        made.append(self)
        return original(self, **kwargs)

    sqlite.cursor().close()
    for owner, name, theirs in ((dbapi, "Cursor", Their), (dbapi.Connection, "cursor", cursor)):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, theirs)
            with sqlite.cursor() as followed:
                assert len(made) == 1
                assert isinstance(followed, Their) == (theirs is Their)
                followed.execute("SELECT 1").fetchall()
        made.clear()
    assert recording.statements() == [QUERY, QUERY]


def test_a_cursor_that_cannot_be_made_fails_as_it_would_without(
    sqlite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)

    def outcomes(connection: Any) -> list[object]:
        outcomes: list[object] = []
        gc.collect()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            calls: tuple[Callable[[], Any], ...] = (
                lambda: connection.cursor(adbc_stmt_kwargs={"no.such.option": "1"}),
                lambda: connection.cursor(adbc_stmt_kwargs=1),
                lambda: connection.cursor("nonsense"),
                lambda: connection.cursor(nonsense=1),
            )
            for call in calls:
                try:
                    call()
                except Exception as error:  # noqa: BLE001 - to compare it
                    lines = [
                        (each.name, each.lineno)
                        for each in traceback.extract_tb(error.__traceback__)[2:]
                        if not is_ours(each.filename)  # Python 3.10 puts our frame in again
                    ]
                    outcomes.append((type(error), str(error).partition(" ")[2], lines))
            gc.collect()
        return [*outcomes, [(each.category, str(each.message)) for each in caught]]

    with connect_sqlite() as bare:
        expected = outcomes(bare)
    assert outcomes(sqlite) == expected
    assert len(expected) == 4 + 1
    assert unraisable == []
