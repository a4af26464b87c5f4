"""The truth about this process, for `DriverSystemConfiguration`."""

from __future__ import annotations

import functools
import locale
import os
import platform
import sys
from collections.abc import Callable

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.version import __version__
from adbc_telemetry.schema import DriverSystemConfiguration

DRIVER_NAME = "adbc-telemetry"


def _unreadable(error: Exception, read: Callable[[], str | None]) -> str | None:
    return None


@never_raises(_unreadable)
def _or_none(read: Callable[[], str | None]) -> str | None:
    return read()


def detect_system_configuration(
    *, driver_name: str | None = None, driver_version: str | None = None, client_app_name: str | None = None
) -> DriverSystemConfiguration:
    """What this process runs on. A field that cannot be read is left out and takes no other with it.

    Args:
        driver_name: the instrumented driver; by default this package.
        driver_version: its version; by default this package's, if the driver is not named.
        client_app_name: the application, as its author calls it; left out by default.
    """
    readers: dict[str, Callable[[], str | None]] = {
        "driver_version": lambda: driver_version if driver_name else (driver_version or __version__),
        "runtime_name": lambda: f"{platform.python_implementation()} {platform.python_version()}",
        "runtime_version": platform.python_version,
        "runtime_vendor": platform.python_implementation,
        "os_name": platform.system,
        "os_version": _os_version,
        "os_arch": platform.machine,
        "driver_name": lambda: driver_name or DRIVER_NAME,
        "client_app_name": lambda: client_app_name,
        "locale_name": _locale_name,
        "char_set_encoding": lambda: _charset_name(locale.getpreferredencoding(False)),
        "process_name": _process_name,
    }
    fields = {name: _or_none(read) for name, read in readers.items()}
    return DriverSystemConfiguration(**{name: value for name, value in fields.items() if value})


@functools.cache
def user_agent(driver_name: str | None, driver_version: str | None) -> str:
    """How a driver's events name their sender: `adbc-telemetry/0.1.0 (ADBC SQLite Driver 1.13.0)`."""
    agent = f"{DRIVER_NAME}/{__version__}"
    driver = " ".join(filter(None, (driver_name, (driver_version or "").removeprefix("v"))))
    return f"{agent} ({driver})" if driver else agent


def _os_version() -> str | None:
    """The distribution's pretty name ("Debian GNU/Linux 12 (bookworm)") where it has one, else the kernel's."""
    if platform.system() == "Linux":
        pretty = _or_none(lambda: platform.freedesktop_os_release().get("PRETTY_NAME"))
        if pretty:
            return pretty
    return platform.mac_ver()[0] or platform.version() or platform.release()


def _locale_name() -> str | None:
    """`en_US` of `en_US.UTF-8`: what the process uses, or what its environment asks for."""
    name = locale.getlocale()[0]
    if not name:
        wanted = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or ""
        name = wanted.partition(".")[0].partition("@")[0]
    return name or None


def _charset_name(encoding: str) -> str:
    return "UTF-8" if encoding.replace("-", "").replace("_", "").lower() == "utf8" else encoding


def _process_name() -> str | None:
    """The program's name: never its path, which may name the user, nor its arguments."""
    program = sys.argv[0]
    if program in ("", "-", "-c", "-m"):
        program = sys.executable or ""
    name = os.path.basename(program)
    if name == "__main__.py":
        name = os.path.basename(os.path.dirname(program))
    return name or None
