"""What can be seen without a network: configuration, spool, versions."""

from __future__ import annotations

import difflib
import os
import platform
import shutil
import ssl
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Final

from adbc_telemetry.check.diagnoses import Diagnosis
from adbc_telemetry.check.findings import Finding, failed, ok, skipped, warning
from adbc_telemetry.check.target import Target
from adbc_telemetry.config import ENVIRONMENT_PREFIX, environment_problems, unknown_settings
from adbc_telemetry.consent import Mode
from adbc_telemetry.core.version import __version__
from adbc_telemetry.decision import explain
from adbc_telemetry.export.endpoints import address_of, checked_endpoint

_SPOOL_SUFFIX: Final = ".spool"
_NEARLY_FULL: Final = 0.9
_PACKAGES: Final = (
    "msgspec",
    "urllib3",
    "pybreaker",
    "adbc-driver-manager",
    "pyarrow",
    "opentelemetry-proto",
)


def configuration(target: Target) -> Finding:
    """Whether telemetry is on, and who decided it."""
    decision = explain(environ=target.environ)
    if decision.mode is Mode.ON:
        return ok(decision.reason)
    if decision.mode is Mode.LOCAL:
        return failed(Diagnosis.LOCAL_ONLY, decision.reason)
    if decision.user_is_silent:
        return warning(Diagnosis.UNDECIDED, decision.reason)
    return failed(Diagnosis.OPTED_OUT, decision.reason)


def settings(target: Target) -> Finding:
    """Whether the environment's settings make sense."""
    problems = environment_problems(target.environ)
    if problems:
        return warning(Diagnosis.BAD_SETTING, "; ".join(problems))
    unknown = unknown_settings(target.environ)
    if unknown:
        return warning(
            Diagnosis.UNKNOWN_SETTING, "; ".join(_with_the_nearest(*each) for each in unknown.items())
        )
    count = sum(name.startswith(ENVIRONMENT_PREFIX) for name in target.environ)
    return ok(f"{count} from the environment" if count else "the defaults")


def _with_the_nearest(variable: str, settings: list[str]) -> str:
    nearest = difflib.get_close_matches(variable, settings, 1)
    return f"{variable} is none" + (f", perhaps {nearest[0]} is meant" if nearest else "")


def endpoint(target: Target) -> Finding:
    """Whether the endpoint is understood."""
    if not target.endpoint:
        return failed(Diagnosis.NO_ENDPOINT, "no endpoint is named")
    try:
        target.name = checked_endpoint(target.endpoint)
        target.host = address_of(target.name) or ""
    except ValueError as error:
        lacks_extra = target.endpoint.strip().lower().startswith("otlp") and "pip install" in str(error)
        return failed(Diagnosis.NEEDS_EXTRA if lacks_extra else Diagnosis.BAD_ENDPOINT, str(error))
    return ok(target.shown or "")


def spool(target: Target) -> Finding:
    """Whether events that could not be delivered can be kept on disk."""
    directory = target.config.spool_dir
    if directory is None:
        return skipped("no spool_dir is set: events that cannot be delivered are lost, and counted")
    path = Path(directory)
    # Not `Path.exists`, which raises where a folder above may not be entered.
    nearest = next(each for each in (path, *path.absolute().parents) if os.path.exists(each))
    if nearest == path and not path.is_dir():
        return failed(Diagnosis.SPOOL_IS_NO_FOLDER, f"{path} is no folder")
    if not _can_be_written(nearest):
        return failed(Diagnosis.SPOOL_NOT_WRITABLE, f"{nearest} cannot be written to")
    used, most, free = (
        sum(map(_size, path.glob(f"*{_SPOOL_SUFFIX}"))),
        target.config.spool_max_bytes,
        shutil.disk_usage(nearest).free,
    )
    sentence = f"{path} holds {_megabytes(used)} of {_megabytes(most)}; its disk has {_megabytes(free)} free"
    if used >= _NEARLY_FULL * most:
        return warning(Diagnosis.SPOOL_FULL, sentence)
    if free < most - used:
        return warning(Diagnosis.DISK_FULL, sentence)
    return ok(sentence)


def _size(segment: Path) -> int:
    try:
        return segment.stat().st_size
    except OSError:  # another process has just sent it
        return 0


def _can_be_written(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"check")
            file.flush()
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def versions(target: Target) -> Finding:
    """What is installed, for a bug report."""
    found = [
        f"adbc-telemetry {__version__}",
        f"{platform.python_implementation()} {platform.python_version()}",
        f"{platform.system()} {platform.machine()}",
        ssl.OPENSSL_VERSION,
    ]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ok(", ".join(found))
