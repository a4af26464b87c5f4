"""The command `adbc-telemetry`: run a collector, look at what it collected.

collect      a collector, and its page alone (`serve`)
report       what was collected, as tables
export       all events into a file
check        why events do not arrive
demo         the whole way of an event
fetching     asks a running collector
sink         events from Kafka into a Delta table
storage      options of object stores
units        durations and sizes
extras       the packages that a command needs
errors       how a command fails, and writes its output
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, NoReturn

from adbc_telemetry.cli.check import add_check, run_check
from adbc_telemetry.cli.collect import add_collect, add_serve, run_collect, run_serve
from adbc_telemetry.cli.demo import add_demo, run_demo
from adbc_telemetry.cli.errors import CommandError
from adbc_telemetry.cli.export import add_export, run_export
from adbc_telemetry.cli.extras import require_extras
from adbc_telemetry.cli.report import add_report, run_report
from adbc_telemetry.cli.sink import add_sink, run_sink
from adbc_telemetry.core.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0; 1 when a check has failed; 2 when it could not do its work."""
    try:
        options = _parser().parse_args(arguments)
        require_extras(*_COMMANDS[options.command].extras)
        return _COMMANDS[options.command].run(options)
    except CommandError as error:
        print(f"adbc-telemetry: {error}", file=sys.stderr)
    except Exception:  # noqa: BLE001 - Python would exit with 1, which says that a check has failed
        traceback.print_exc()
    return 2


class _Command(NamedTuple):
    summary: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    extras: tuple[str, ...] = ("collector",)


_COMMANDS: Final = {
    "collect": _Command("run a collector until it is interrupted", add_collect, run_collect),
    "sink": _Command("write events from Kafka into a Delta table", add_sink, run_sink, ("kafka", "delta")),
    "report": _Command("print what was collected", add_report, run_report),
    "export": _Command("write all events into a file", add_export, run_export),
    "serve": _Command("serve the page over a store, without taking events", add_serve, run_serve),
    "check": _Command("find out why events do not arrive", add_check, run_check, ()),
    "demo": _Command("show the whole way of an event in half a minute", add_demo, run_demo),
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one sentence, as the command says everything else."""

    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message}; see: {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="adbc-telemetry", description="Collect and report driver telemetry.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in _COMMANDS.items():
        command.add_options(commands.add_parser(name, help=command.summary, description=command.summary))
    return parser


if __name__ == "__main__":
    sys.exit(main())
