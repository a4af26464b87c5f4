"""Whether what is built here is fit to release. Run it by `make release-check`.

    python release/check.py [--folder dist]

Each step prints what it has found; the first that fails ends the run with 1. It builds twice and compares, looks into
both archives, installs the wheel with each extra alone into an empty virtual environment, shows the public names to two
type checkers as a user has them, audits what the extras bring, and writes a bill of materials beside the archives.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

# What a user of each extra does first. Nothing else is installed then.
FIRST_LINES: Final = {
    "": "import adbc_telemetry; adbc_telemetry.TelemetryClient('localhost', adbc_telemetry.TelemetryConfiguration())",
    "adbc": "import adbc_driver_manager.dbapi, pyarrow, adbc_telemetry; adbc_telemetry.install('localhost')",
    "collector": "from adbc_telemetry.collector.server import Collector",
    "otel": "from adbc_telemetry import OtlpTelemetryExporter; OtlpTelemetryExporter()",
}
_NOT_IN_THE_WHEEL: Final = ("tests/", "benchmarks/", "docs/", "examples/", "release/")


class CheckFailed(Exception):
    """Says what is wrong with a release."""


def build(folder: Path) -> list[Path]:
    """A wheel and a source archive, in this order."""
    for target in ("wheel", "sdist"):
        run([sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)])
    return [*folder.glob("*.whl"), *folder.glob("*.tar.gz")]


def builds_the_same_twice(folder: Path) -> str:
    """The bytes of an archive depend on the source alone."""
    first = {path.name: digest(path) for path in build(folder)}
    with tempfile.TemporaryDirectory() as other:
        second = {path.name: digest(path) for path in build(Path(other))}
    if first != second:
        raise CheckFailed("two builds of the same source differ")
    return ", ".join(f"{name} {hash_[:12]}" for name, hash_ in first.items())


def is_described(folder: Path) -> str:
    """An index accepts the description and the metadata."""
    archives = [str(path) for path in archives_in(folder)]
    return run([sys.executable, "-m", "twine", "check", "--strict", *archives]).strip().replace("\n", "; ")


def holds_what_it_should(folder: Path) -> str:
    """The wheel holds the package and nothing else; the source archive holds all that the wheel was made of."""
    wheel, sdist = archives_in(folder)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    strangers = [name for name in names if not name.startswith(("adbc_telemetry/", "adbc_telemetry-"))]
    if strangers or any(name.startswith(_NOT_IN_THE_WHEEL) for name in names):
        raise CheckFailed(f"the wheel holds {strangers}")
    for needed in ("adbc_telemetry/py.typed", "adbc_telemetry/collector/page/static/index.html"):
        if needed not in names:
            raise CheckFailed(f"the wheel lacks {needed}")
    with tarfile.open(sdist) as packed:
        source = {name.partition("/")[2] for name in packed.getnames()}
    missing = {f"src/{name}" for name in names if name.startswith("adbc_telemetry/")} - source
    if missing:
        raise CheckFailed(f"the source archive lacks {sorted(missing)}")
    return f"{len(names)} files, {wheel.stat().st_size / 1000:,.0f} kB"


def each_extra_works_alone(folder: Path) -> str:
    """An extra brings all that its users need, and the core needs none."""
    wheel = archives_in(folder)[0]
    extras = declared_extras(wheel)
    for extra in ("", *extras):
        with environment(f"{wheel}[{extra}]" if extra else str(wheel)) as python:
            run([str(python), "-c", FIRST_LINES.get(extra, "import adbc_telemetry")])
    return f"the core, and {', '.join(extras)}"


def is_typed_for_its_users(folder: Path) -> str:
    """Two type checkers see the public names of the installed wheel as the repository's own examples use them."""
    wheel = archives_in(folder)[0]
    with (
        environment(f"{wheel}[adbc]", "mypy", "basedpyright") as python,
        tempfile.TemporaryDirectory() as elsewhere,
    ):
        program = shutil.copy(ROOT / "tests" / "typing" / "driver.py", elsewhere)
        (Path(elsewhere) / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
        run([str(python), "-m", "mypy", "--strict", program], cwd=elsewhere)
        run([str(python.parent / "basedpyright"), "--pythonpath", str(python)], cwd=elsewhere)
    return "mypy --strict and pyright"


def brings_nothing_with_a_known_weakness(folder: Path) -> str:
    """Audits the newest versions that all extras bring, where that can be asked, and writes the bill of materials."""
    wheel = archives_in(folder)[0]
    with environment(f"{wheel}[{','.join(declared_extras(wheel))}]", without=("pip", "setuptools")) as python:
        site = run([str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]).strip()
        bill = folder / "sbom.cdx.json"
        run(["cyclonedx-py", "environment", str(python), "--output-file", str(bill)])
        components = json.loads(bill.read_text())["components"]
        audit = subprocess.run(
            [
                bin_of(sys.executable, "pip-audit"),
                "--path",
                site,
                "--format",
                "json",
                "--progress-spinner",
                "off",
            ],
            capture_output=True,
            text=True,
        )
    audited = [each for each in json.loads(audit.stdout)["dependencies"] if "vulns" in each]
    weak = [f"{each['name']} {each['version']}" for each in audited if each["vulns"]]
    if weak:
        raise CheckFailed(f"known weaknesses in {', '.join(weak)}")
    # Behind a mirror that has the packages alone, what is known of them cannot be asked for.
    verdict = f"{len(audited)} audited, no known weakness" if audited else "none could be audited from here"
    return f"{len(components)} components in {bill.name}; {verdict}"


CHECKS: Final[Sequence[Callable[[Path], str]]] = (
    builds_the_same_twice,
    is_described,
    holds_what_it_should,
    each_extra_works_alone,
    is_typed_for_its_users,
    brings_nothing_with_a_known_weakness,
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "dist")
    folder: Path = parser.parse_args().folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for check in CHECKS:
        try:
            print(f"ok      {check.__name__.replace('_', ' ')}: {check(folder)}", flush=True)
        except CheckFailed as failure:
            print(f"FAILED  {check.__name__.replace('_', ' ')}: {failure}", flush=True)
            return 1
    return 0


class environment:
    """An empty virtual environment with these requirements; yields its Python."""

    def __init__(self, *requirements: str, without: Sequence[str] = ()) -> None:
        self._requirements = requirements
        self._without = without
        self._folder = tempfile.TemporaryDirectory(prefix="adbc-telemetry-release-")

    def __enter__(self) -> Path:
        folder = Path(self._folder.name)
        venv.create(folder, with_pip=True)
        python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        run(
            [
                str(python),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                *self._requirements,
            ]
        )
        for package in self._without:
            subprocess.run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", package], check=False)
        return python

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def archives_in(folder: Path) -> tuple[Path, Path]:
    """The wheel and the source archive."""
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def declared_extras(wheel: Path) -> list[str]:
    """As the wheel's metadata names them."""
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    return [line.partition(": ")[2] for line in lines if line.startswith("Provides-Extra: ")]


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def bin_of(python: str, name: str) -> str:
    """A command beside a Python."""
    return str(Path(python).with_name(name))


def run(command: Sequence[str], cwd: str | Path = ROOT) -> str:
    """What a command prints.

    Raises:
        CheckFailed: it has failed; with what it printed.
    """
    if not Path(command[0]).is_absolute():
        command = [bin_of(sys.executable, command[0]), *command[1:]]
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if ended.returncode:
        raise CheckFailed(f"{' '.join(command)}\n{ended.stdout}{ended.stderr}")
    return ended.stdout


if __name__ == "__main__":
    sys.exit(main())
