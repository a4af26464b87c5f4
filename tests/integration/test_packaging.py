"""The source archive is complete, and make never uses another folder's virtual environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(target: str, source: Path, folder: Path) -> Path:
    """Build `source` without a network; returns the archive."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)],
        cwd=source,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    [archive] = folder.iterdir()
    return archive


def tracked() -> set[str]:
    """The existing files that git tracks."""
    try:
        answer = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if answer.returncode or not (ROOT / ".git").exists():
        pytest.skip("not a git clone")
    return {name for name in os.fsdecode(answer.stdout).split("\0") if name and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive's folder."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("sdist", ROOT, folder)) as archive:
        # As tarfile's documentation advises: some versions have no filters, and some warn without one.
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
        archive.extractall(folder)
    [source] = (path for path in folder.iterdir() if path.is_dir())
    return source


def test_the_source_archive_holds_every_file_of_the_repository(unpacked: Path) -> None:
    files = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert tracked() - files == set()
    assert os.access(unpacked / ".ci" / "run", os.X_OK)


def test_a_package_built_from_the_source_archive_is_complete(unpacked: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build("wheel", unpacked, tmp_path)) as archive:
        packed = {name for name in archive.namelist() if name.startswith("adbc_telemetry/")}
    package = ROOT / "src" / "adbc_telemetry"
    source = [path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert packed == {path.relative_to(ROOT / "src").as_posix() for path in source}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("name", ["a folder", "mit Ümlaut", "a, b (c) $d"])
def test_make_uses_only_its_own_folders_virtual_environment(tmp_path: Path, name: str) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}

    def plan(folder: Path) -> str:
        command = ["make", "-n", "demo", "bench"]
        answer = subprocess.run(
            command, cwd=folder, env=environ, capture_output=True, encoding="utf-8", check=True
        )
        return answer.stdout

    folder = tmp_path / name
    for needed in ("Makefile", "pyproject.toml", "benchmarks/requirements.txt"):
        (folder / needed).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / needed, folder / needed)
    for venv in (".venv", ".bench-venv"):
        (folder / venv).mkdir()
        (folder / venv / ".installed").write_text(f"{folder.resolve()}\n", encoding="utf-8")
    assert "setting up" not in plan(folder)
    folder = folder.rename(folder.with_name("moved"))
    assert "setting up .venv" in plan(folder)
    assert "setting up .bench-venv" in plan(folder)
