"""`adbc-telemetry sink`: events from Kafka into a Delta table."""

from __future__ import annotations

import argparse
import os
import signal
from typing import TYPE_CHECKING, Final

from adbc_telemetry.cli.collect import add_kafka_config, log_to_stderr
from adbc_telemetry.cli.errors import CommandError, write
from adbc_telemetry.cli.storage import add_storage_option, parse_storage_options
from adbc_telemetry.cli.units import duration

if TYPE_CHECKING:
    from adbc_telemetry.collector.sink.loop import Sink

DEFAULT_GROUP: Final = "adbc-telemetry"


def add_sink(parser: argparse.ArgumentParser) -> None:
    """The options of `sink`."""
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="kafka://BROKER[,BROKER]/TOPIC",
        help="the topic into which collectors put events",
    )
    parser.add_argument(
        "--to",
        required=True,
        metavar="PATH|URI",
        help="the Delta table, made when there is none: a folder, or an object store such as s3://bucket/telemetry",
    )
    parser.add_argument("--once", action="store_true", help="write what is there, then end")
    parser.add_argument(
        "--group",
        default=DEFAULT_GROUP,
        help="Kafka's consumer group; all sinks of a table are in one (default: %(default)s)",
    )
    parser.add_argument(
        "--commit-every",
        type=duration,
        default="10s",
        metavar="AGE",
        help="write events when the oldest one has waited for so long (default: %(default)s)",
    )
    parser.add_argument(
        "--window",
        type=duration,
        default="1h",
        metavar="AGE",
        help="an event that is sent again within this time is kept once (default: %(default)s)",
    )
    parser.add_argument(
        "--retention",
        type=duration,
        metavar="AGE",
        help="delete the events of older days (default: keep all)",
    )
    parser.add_argument("--no-upkeep", action="store_true", help="do not compact and vacuum the table")
    add_storage_option(parser)
    add_kafka_config(parser)
    parser.add_argument("--verbose", action="store_true", help="log more")


def run_sink(options: argparse.Namespace) -> int:
    """Write events until a signal ends it, or until all is written."""
    from adbc_telemetry.collector.destination import DestinationError

    log_to_stderr(options.verbose)
    try:
        sink = _sink(options)
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None:
                signal.signal(number, lambda *_: sink.stop())
        write(os.fsencode(f"writing {options.source} into {options.to}\n"))
        sink.run()
    except DestinationError as error:
        raise CommandError(str(error)) from error
    write(os.fsencode(f"{sink.describe()}\n"))
    return 0


def _sink(options: argparse.Namespace) -> Sink:
    from adbc_telemetry.collector.delta.table import EventTable
    from adbc_telemetry.collector.delta.upkeep import Upkeep
    from adbc_telemetry.collector.kafka.address import parse_address
    from adbc_telemetry.collector.kafka.settings import read_settings
    from adbc_telemetry.collector.sink.loop import Sink

    address = parse_address(options.source)
    storage_options = parse_storage_options(options.storage_option)
    return Sink(
        address,
        EventTable(options.to, address.topic, storage_options),
        group=options.group,
        settings=read_settings(options.kafka_config),
        window=options.window,
        commit_seconds=options.commit_every,
        once=options.once,
        upkeep=None
        if options.no_upkeep
        else Upkeep(options.to, storage_options, retention=options.retention),
    )
