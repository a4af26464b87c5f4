"""The tests' PostgreSQL server starts from any folder and with any folder for temporary files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.postgres import PostgresServer, find_binaries, why_not

psycopg = pytest.importorskip("psycopg")


@pytest.fixture
def binaries() -> Path:
    found = find_binaries()
    if found is None or why_not():
        pytest.skip(why_not() or "")
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def answer(binaries: Path) -> int:
    with PostgresServer(binaries) as server, psycopg.connect(server.fresh_uri()) as connection:
        [(one,)] = connection.execute("SELECT 1").fetchall()
        return int(one)


def installed_in(folder: Path, binaries: Path) -> Path:
    """Install the package of `binaries` again in `folder`."""
    package = binaries.parents[1]
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, folder / part.name, symlinks=True)
    return folder / binaries.relative_to(package.parent)


def test_it_starts_when_only_the_owner_may_enter_its_folders(
    binaries: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, temporary = folder / "installation", folder / "temporary"
    private.mkdir(mode=0o700)
    temporary.mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert answer(installed_in(private, binaries)) == 1
    assert list(temporary.iterdir()) == []


def test_it_starts_when_no_other_user_may_read_the_installation(binaries: Path, folder: Path) -> None:
    installed = installed_in(folder, binaries)
    for path in installed.parents[1].rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
    assert answer(installed) == 1


@pytest.mark.parametrize("name", ["mit Ümlaut", 'a "b" $c'])
def test_it_starts_from_an_installation_folder_of_any_name(binaries: Path, folder: Path, name: str) -> None:
    (folder / name).mkdir()
    assert answer(installed_in(folder / name, binaries)) == 1


@pytest.mark.parametrize("name", ["mit Ümlaut", "a%b&c=d", 'a, "b" $c', "x" * 103])
def test_it_starts_with_a_temporary_folder_of_any_name(
    binaries: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    temporary = folder / name
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert answer(binaries) == 1
    assert list(temporary.iterdir()) == []


def test_it_starts_when_the_temporary_folder_is_read_only(
    binaries: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "absent"))
    assert answer(binaries) == 1
