"""`--storage-option`: what an object store needs."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from adbc_telemetry.cli.errors import CommandError


def add_storage_option(parser: argparse.ArgumentParser) -> None:
    """The option."""
    parser.add_argument(
        "--storage-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="for a table in an object store, as the package deltalake takes it, such as AWS_REGION=eu-west-1; "
        "the environment's variables count too",
    )


def parse_storage_options(given: Iterable[str]) -> dict[str, str]:
    """The options by name.

    Raises:
        CommandError: one is not KEY=VALUE. It is not quoted: it may be a secret.
    """
    options = {}
    for each in given:
        name, found, value = each.partition("=")
        if not found or not name:
            raise CommandError("a --storage-option is not KEY=VALUE; write one such as AWS_REGION=eu-west-1.")
        options[name] = value
    return options
