"""`adbc-telemetry demo`: the whole way of an event, on real parts, in half a minute. `make demo` runs it as well.

run         the scenario: a collector, threads at work, an outage, and the account in the end
workload    the databases, and what the threads do with them
tables      what the terminal shows
"""

from __future__ import annotations

import argparse
import importlib.util
import sys

from adbc_telemetry.cli.errors import CommandError
from adbc_telemetry.consent import Mode
from adbc_telemetry.decision import explain


def add_demo(parser: argparse.ArgumentParser) -> None:
    """The options of `demo`."""
    parser.add_argument(
        "--open",
        action=argparse.BooleanOptionalAction,
        help="leave the page of the demo's queries running in the end (default: on a terminal)",
    )


def run_demo(options: argparse.Namespace) -> int:
    """Run the demo; 1 if its account does not close.

    Raises:
        CommandError: telemetry is turned off, or an extra is missing.
    """
    decision = explain(enabled=True)
    if decision.mode is not Mode.ON:
        raise CommandError(
            f"the demo's events would not be sent ({decision.reason}); run it without that variable."
        )
    for name in ("adbc_driver_manager", "pyarrow"):
        if importlib.util.find_spec(name) is None:
            raise CommandError(
                f"{name} is missing: install what the demo shows with: pip install 'adbc-telemetry[adbc,collector]'"
            )
    from adbc_telemetry.cli.demo.run import run

    stays_open = sys.stdout.isatty() if options.open is None else options.open
    return run(stays_open=stays_open)
