"""A PostgreSQL server for the tests, on its own socket; the package `pgserver` brings the binaries.

The tests do not run `pgserver`'s code, which for root creates a system user and opens up folders.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from support.sockets import fits_socket
from support.waiting import wait_until

# initdb quotes its commands for a shell with double quotes, and libpq separates hosts by commas.
_UNSAFE = frozenset('"$`\\,')


def find_binaries() -> Path | None:
    """The folder of `initdb` and `postgres`, or None. Does not import the package."""
    package = importlib.util.find_spec("pgserver")
    for place in (package.submodule_search_locations if package else None) or ():
        binaries = Path(place) / "pginstall" / "bin"
        if (binaries / "postgres").exists():
            return binaries
    return None


def why_not() -> str | None:
    """Why no PostgreSQL server can run here; None when it can."""
    if find_binaries() is None:
        return "pgserver brings no PostgreSQL server for this Python"
    if _server_user() is None:
        return "PostgreSQL needs a user with a name who is not root"
    return None


def _server_user() -> dict[str, Any] | None:
    """The user that PostgreSQL runs as, as arguments of `subprocess`: `nobody` for root, which PostgreSQL refuses."""
    import pwd

    try:
        if os.geteuid() != 0:
            pwd.getpwuid(os.geteuid())  # initdb looks up its user's name
            return {}
        nobody = pwd.getpwnam("nobody")
        user: dict[str, Any] = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        subprocess.run(["/bin/sh", "-c", ":"], check=True, cwd="/", **user)
    except (KeyError, OSError):  # OSError: in some containers, root may not become another user
        return None
    return user


class PostgresServer:
    """Runs in its own folder until the block ends.

    Root runs it as the user `nobody`, which may not have access to the folder of the binaries or the folder for
    temporary files. So root copies the binaries to the first folder where `nobody` can run them.
    """

    def __init__(self, binaries: Path) -> None:
        self._installed = binaries
        self._schemas = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def _find_place(self) -> None:
        user = _server_user()
        assert user is not None, why_not()
        self._user = user
        refused = []
        for place in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm")):
            try:
                self._settle_in(place)
                return
            except (OSError, subprocess.CalledProcessError) as error:
                refused.append(f"{place}: {error}")
        raise AssertionError(f"no folder for PostgreSQL: {refused}")

    def _settle_in(self, place: str) -> None:
        """Make the server's folder in `place`. Raises when the server cannot run there."""
        folder = Path(tempfile.mkdtemp(prefix="pg-", dir=place)).resolve()
        try:
            home = folder / "home"
            if not _UNSAFE.isdisjoint(str(folder)):
                raise OSError("PostgreSQL misreads its path")
            if not fits_socket(home / ".s.PGSQL.5432"):
                raise OSError("its path is too long for a socket")
            home.mkdir()
            binaries = self._installed
            if self._user or not _UNSAFE.isdisjoint(str(binaries)):
                binaries = _copy_package(binaries, folder)
            if self._user:
                _give_away(folder, self._user["user"], self._user["group"])
            subprocess.run(
                [binaries / "postgres", "--version"],
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd=home,
                **self._user,
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._folder, self._home, self._binaries = folder, home, binaries

    @property
    def _data(self) -> Path:
        return self._home / "data"

    def __enter__(self) -> PostgresServer:
        self._find_place()
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def _start(self) -> None:
        subprocess.run(
            [
                *(self._binaries / "initdb", "-D", self._data, "-U", "postgres", "-E", "utf8"),
                *("--auth=trust", "--locale=C", "--no-sync"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self._home,
            **self._user,
        )
        settings = {"listen_addresses": "", "fsync": "off", "shared_buffers": "16MB", "max_connections": "40"}
        with open(self._folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                [
                    *(self._binaries / "postgres", "-D", self._data, "-k", self._home),
                    *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
                ],
                stdout=log,
                stderr=log,
                cwd=self._home,
                **self._user,
            )
        wait_until(self._ready, what=self._log)

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log()
        pid_file = self._data / "postmaster.pid"
        return pid_file.exists() and "ready" in pid_file.read_text()

    def _log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def fresh_uri(self) -> str:
        """The URI of an empty schema."""
        import psycopg

        schema = f"s{next(self._schemas)}"
        with psycopg.connect(self.uri(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {schema}")  # type: ignore[call-overload, unused-ignore]
        return self.uri(f"&options=-csearch_path%3D{schema}")

    def uri(self, more: str = "") -> str:
        return f"postgresql:///postgres?host={quote(str(self._home), safe='')}&user=postgres{more}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        process = self._process
        if process is not None:
            process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)
        shutil.rmtree(self._folder, ignore_errors=True)


def _copy_package(binaries: Path, folder: Path) -> Path:
    """Copy the package and the libraries beside it, which its binaries find by relative paths."""
    package = binaries.parents[1]
    shutil.copytree(package, folder / package.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    return folder / package.name / binaries.relative_to(package)


def _give_away(folder: Path, user: int, group: int) -> None:
    """Give all of `folder` to the user, so that an installation with a strict umask is readable."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, group, follow_symlinks=False)
