"""`install` and `uninstall` on the driver manager."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import Any

import pytest

from adbc_telemetry import (
    install,
    uninstall,
)
from support.adbc import (
    CREATE,
    DELETE,
    ENDPOINT,
    QUERY,
    Recording,
    connect_sqlite,
    enabled,
)

dbapi = pytest.importorskip("adbc_driver_manager.dbapi")
_lib = pytest.importorskip("adbc_driver_manager._lib")
pyarrow = pytest.importorskip("pyarrow")
sqlite_dbapi = pytest.importorskip("adbc_driver_sqlite.dbapi")

# Installing for the whole process.


def test_every_connection_opened_from_then_on_is_followed(installed: Recording, connect: Any) -> None:
    with connect() as connection:
        connection.execute("SELECT 1").close()
    assert installed.events() == [CREATE, QUERY, DELETE]


def test_a_clone_of_an_installed_connection_is_followed_once(installed: Recording) -> None:
    with connect_sqlite() as connection:
        connection.adbc_clone().close()
    assert installed.events() == [CREATE, CREATE, DELETE, DELETE]


def test_a_connection_that_fails_to_open_fails_as_before(installed: Recording, tmp_path: Any) -> None:
    with pytest.raises(dbapi.Error) as failure:
        sqlite_dbapi.connect(f"file:{tmp_path}/no/such/folder/x.db")
    uninstall()
    with pytest.raises(dbapi.Error) as plain:
        sqlite_dbapi.connect(f"file:{tmp_path}/no/such/folder/x.db")
    assert failure.type is plain.type
    assert failure.value.args == plain.value.args
    assert installed.logs == []


def test_uninstalling_leaves_no_trace(recording: Recording) -> None:
    modules: list[ModuleType] = [dbapi, sqlite_dbapi]
    before = [
        dict(vars(thing)) for thing in (*modules, dbapi.Connection, dbapi.Cursor, sqlite_dbapi.Connection)
    ]
    install(ENDPOINT, config=enabled(), exporter=recording)
    install("another.example", config=enabled(), exporter=recording)
    with connect_sqlite() as connection:
        connection.execute("SELECT 1").close()
    uninstall()
    uninstall()
    after = [
        dict(vars(thing)) for thing in (*modules, dbapi.Connection, dbapi.Cursor, sqlite_dbapi.Connection)
    ]
    for one, other in zip(before, after, strict=True):
        assert one.keys() == other.keys()
        assert all(one[name] is other[name] for name in one if not name.startswith("_abc"))
    with connect_sqlite() as connection:
        assert type(connection) is sqlite_dbapi.Connection
    assert recording.events() == [CREATE, QUERY, DELETE]


def test_a_patch_that_another_has_wrapped_does_nothing_after_uninstall(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = dbapi.Connection.__init__
    install(ENDPOINT, config=enabled(), exporter=recording)
    ours = dbapi.Connection.__init__

    def theirs(self: Any, *args: Any, **kwargs: Any) -> None:
        ours(self, *args, **kwargs)

    dbapi.Connection.__init__ = theirs
    try:
        uninstall()
        with connect_sqlite() as connection:
            assert type(connection) is sqlite_dbapi.Connection
    finally:
        dbapi.Connection.__init__ = original


def test_what_is_installed_keeps_the_constructors_face(installed: Recording) -> None:
    assert dbapi.Connection.__init__.__qualname__ == "Connection.__init__"
    patched = inspect.signature(dbapi.Connection)
    uninstall()
    assert patched == inspect.signature(dbapi.Connection)


def test_importing_the_package_imports_no_driver_manager() -> None:
    import subprocess

    program = (
        "import sys; from adbc_telemetry import instrument;"
        "assert callable(instrument); assert instrument(1) == 1;"
        "print(sorted({'adbc_driver_manager', 'pyarrow', 'urllib3'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
