"""The command `adbc-telemetry`: run a collector, report on what it collected."""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NoReturn

from adbc_telemetry.core.version import __version__

if TYPE_CHECKING:
    from adbc_telemetry.collector import Collector, Report

DEFAULT_PORT: Final = 8317
DEFAULT_DATABASE: Final = "telemetry.duckdb"
_REPORT_TIMEOUT: Final = 30.0


class CommandError(Exception):
    """The command cannot do its work; the message says why, and what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 when it could not do its work."""
    try:
        options = _parser().parse_args(arguments)
        _require_extra()
        return _COMMANDS[options.command](options)
    except CommandError as error:
        print(f"adbc-telemetry: {error}", file=sys.stderr)
    except Exception:  # noqa: BLE001 - Python would exit with 1, which says that a check has failed
        traceback.print_exc()
    return 2


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one sentence, as the command says everything else."""

    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message}; see: {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="adbc-telemetry", description="Collect and report driver telemetry.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    collect = commands.add_parser("collect", help="run a collector until it is interrupted")
    collect.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    collect.add_argument(
        "--port",
        type=_port,
        default=DEFAULT_PORT,
        help="port to listen on, 0 for any free one (default: %(default)s)",
    )
    collect.add_argument("--db", default=DEFAULT_DATABASE, help="DuckDB file to write (default: %(default)s)")
    collect.add_argument(
        "--unavailable-while", metavar="FILE", help="maintenance switch: answer 503 while FILE exists"
    )

    report = commands.add_parser("report", help="print what was collected")
    report.add_argument(
        "source",
        nargs="?",
        default=DEFAULT_DATABASE,
        metavar="DB|URL",
        help="a collector's DuckDB file, or the URL of a running collector (default: %(default)s)",
    )
    report.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is not from 0 to 65535")
    return port


def _collect(options: argparse.Namespace) -> int:
    from adbc_telemetry.collector import Collector, StoreError
    from adbc_telemetry.collector.server import serve_until_signalled

    def announce(collector: Collector) -> None:
        _write(os.fsencode(f"collecting on {collector.url} into {options.db}\n"))

    collector = Collector(options.db, options.host, options.port, options.unavailable_while)
    try:
        serve_until_signalled(collector, announce)
    except StoreError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(
            f"cannot listen on {options.host} port {options.port}: {error.strerror}; choose another with --port."
        ) from error
    return 0


def _report(options: argparse.Namespace) -> int:
    is_url = options.source.startswith(("http://", "https://"))
    report = _fetch_report(options.source) if is_url else _read_report(options.source)
    if options.json:
        import msgspec

        _write(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    else:
        from rich.console import Console

        from adbc_telemetry.collector import render_report

        terminal = Console()
        page = io.BytesIO()  # rich ends the process with 1 when the reader of its output has left
        text = io.TextIOWrapper(page, encoding=terminal.encoding, errors="replace", write_through=True)
        render_report(report, Console(file=text, width=terminal.width, force_terminal=terminal.is_terminal))
        _write(page.getvalue())
    return 0


def _write(output: bytes) -> None:
    """Write to standard output at once. A reader that has left, such as `head`, has read what it wanted."""
    if sys.stdout is None:  # it was closed before Python began
        return
    try:
        sys.stdout.buffer.write(output)
        sys.stdout.buffer.flush()
    except OSError as error:
        # Discard the rest. The interpreter would try to write it when it exits, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise CommandError(
                f"cannot write to standard output: {error.strerror}; send it elsewhere."
            ) from error


_COMMANDS: Final = {"collect": _collect, "report": _report}


def _read_report(path: str) -> Report:
    from adbc_telemetry.collector import StoreError, build_report, open_database

    try:
        connection = open_database(path, read_only=True)
    except StoreError as error:
        raise CommandError(str(error)) from error
    try:
        return build_report(connection)
    finally:
        connection.close()


def _fetch_report(url: str) -> Report:
    import msgspec
    import urllib3

    from adbc_telemetry.collector import Report

    try:
        answer = urllib3.request("GET", f"{url.rstrip('/')}/report", timeout=_REPORT_TIMEOUT, retries=False)
    except urllib3.exceptions.HTTPError as error:
        raise CommandError(f"no collector answers at {url} ({type(error).__name__}).") from error
    if answer.status != 200:
        raise CommandError(f"the collector at {url} answered {answer.status}.")
    try:
        return msgspec.json.decode(answer.data, type=Report)
    except msgspec.DecodeError as error:
        raise CommandError(f"{url} is not a collector of this version.") from error


def _require_extra() -> None:
    try:
        import adbc_telemetry.collector  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "adbc_telemetry":
            raise
        raise CommandError(
            f"{error.name} is missing: install adbc-telemetry[collector], "
            "for instance with: pip install 'adbc-telemetry[collector]'"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
