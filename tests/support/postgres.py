"""A PostgreSQL server of the tests' own, on a socket of its own: the one that the package `pgserver` brings.

It is run without `pgserver`'s own code, which, for root, would make a user of the system and open up folders.
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

from support.waiting import wait_until


def find_binaries() -> Path | None:
    """The folder of `initdb` and `postgres`; None where there is none. Imports nothing of the package."""
    package = importlib.util.find_spec("pgserver")
    for place in (package.submodule_search_locations if package else None) or ():
        binaries = Path(place) / "pginstall" / "bin"
        if (binaries / "postgres").exists():
            return binaries
    return None


class PostgresServer:
    """Runs until the block is left. PostgreSQL refuses to run as root, and then runs as `nobody`."""

    def __init__(self, binaries: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._identity: dict[str, Any] = {}
        self._schemas = itertools.count(1)
        if os.geteuid() == 0:
            import pwd

            nobody = pwd.getpwnam("nobody")
            self._identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            if not all(parent.stat().st_mode & 0o001 for parent in binaries.parents):
                copy = self._folder / "pginstall"
                shutil.copytree(binaries.parent, copy, symlinks=True)
                binaries = copy / "bin"
            os.chmod(self._folder, 0o755)
            self._home = self._folder / "home"
            self._home.mkdir()
            os.chown(self._home, nobody.pw_uid, nobody.pw_gid)
        else:
            self._home = self._folder / "home"
            self._home.mkdir()
        self._binaries = binaries

    @property
    def _data(self) -> Path:
        return self._home / "data"

    def __enter__(self) -> PostgresServer:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def _start(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        subprocess.run(
            [
                *(self._binaries / "initdb", "-D", self._data, "-U", "postgres", "-E", "utf8"),
                *("--auth=trust", "--locale=C", "--no-sync"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self._home,
            **self._identity,
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
                **self._identity,
            )
        wait_until(self._ready, what=lambda: (self._folder / "log").read_text())

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        pid_file = self._data / "postmaster.pid"
        return pid_file.exists() and "ready" in pid_file.read_text()

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
            process.send_signal(signal.SIGINT)  # what PostgreSQL calls a fast shutdown
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)
        shutil.rmtree(self._folder, ignore_errors=True)
