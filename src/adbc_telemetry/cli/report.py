"""`adbc-telemetry report`: what was collected, as tables or as JSON."""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from typing import TYPE_CHECKING, Final, get_args
from urllib.parse import urlencode

from adbc_telemetry.cli.collect import DEFAULT_STORE
from adbc_telemetry.cli.errors import CommandError, write
from adbc_telemetry.cli.fetching import fetch, is_url
from adbc_telemetry.cli.storage import add_storage_option, parse_storage_options
from adbc_telemetry.collector.queries.answers import By
from adbc_telemetry.collector.queries.filters import PARAMETERS

if TYPE_CHECKING:
    from adbc_telemetry.collector.queries.answers import Report

_WATCH_SECONDS: Final = 2.0
_CLEAR: Final = b"\x1b[2J\x1b[H"


def add_report(parser: argparse.ArgumentParser) -> None:
    """The options of `report`."""
    parser.add_argument(
        "source",
        nargs="?",
        default=DEFAULT_STORE,
        metavar="STORE|URL|TABLE",
        help="a collector's folder, the URL of a running collector, or a Delta table (default: %(default)s)",
    )
    add_storage_option(parser)
    parser.add_argument("--since", metavar="T", help="events from then on: 1h ago, or an ISO time")
    parser.add_argument("--until", metavar="T", help="events up to then, likewise")
    parser.add_argument("--driver", metavar="NAME", help="events of this driver")
    parser.add_argument("--version", metavar="V", help="events of this version of a driver")
    parser.add_argument(
        "--operation", metavar="NAME", help="events of this operation, such as EXECUTE_STATEMENT"
    )
    parser.add_argument("--statement-type", metavar="NAME", help="events of this type, such as QUERY")
    parser.add_argument("--host", metavar="NAME", help="events of connections to this host")
    parser.add_argument("--error", metavar="CLASS", help="events that ended in this class of error")
    parser.add_argument(
        "--by", choices=get_args(By), help="a row for each of these (default: operation and statement type)"
    )
    parser.add_argument("--watch", action="store_true", help="print it again every two seconds")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_report(options: argparse.Namespace) -> int:
    """Print the report, once or until it is interrupted."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            output = _print(options)
            write(_CLEAR + output if options.watch and not options.json else output)
            if not options.watch:
                break
            time.sleep(_WATCH_SECONDS)
    return 0


def _print(options: argparse.Namespace) -> bytes:
    question = {name: value for name in PARAMETERS if (value := getattr(options, name)) is not None}
    if is_url(options.source):
        found = _fetch_report(options.source, question, options.by)
    else:
        found = _read_report(
            options.source, question, options.by, parse_storage_options(options.storage_option)
        )
    if options.json:
        import msgspec

        return msgspec.json.format(msgspec.json.encode(found)) + b"\n"
    from rich.console import Console

    from adbc_telemetry.collector.report import render_report

    terminal = Console()
    page = io.BytesIO()  # rich ends the process with 1 when the reader of its output has left
    text = io.TextIOWrapper(page, encoding=terminal.encoding, errors="replace", write_through=True)
    render_report(found, Console(file=text, width=terminal.width, force_terminal=terminal.is_terminal))
    return page.getvalue()


def _read_report(
    path: str, question: dict[str, str], by: By | None, storage_options: dict[str, str]
) -> Report:
    import duckdb

    from adbc_telemetry.collector.destination import DestinationError
    from adbc_telemetry.collector.queries.filters import BadQuestion, parse_filter
    from adbc_telemetry.collector.queries.report import build_report

    try:
        return build_report(path, parse_filter(question), by, storage_options)
    except (DestinationError, BadQuestion) as error:
        raise CommandError(str(error)) from error
    except duckdb.Error as error:
        raise CommandError(
            f"{path} could not be read ({type(error).__name__}); see whether its disk is in order."
        ) from error


def _fetch_report(url: str, question: dict[str, str], by: By | None) -> Report:
    import msgspec

    from adbc_telemetry.collector.queries.answers import Report

    parameters = {**question, **({"by": by} if by else {})}
    answer = fetch(url, "/api/report" + (f"?{urlencode(parameters)}" if parameters else ""))
    try:
        return msgspec.json.decode(answer, type=Report)
    except msgspec.DecodeError as error:
        raise CommandError(f"{url} is not a collector of this version.") from error
