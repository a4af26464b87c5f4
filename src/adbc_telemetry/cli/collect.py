"""`adbc-telemetry collect` and `serve`: a collector, and its page alone."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from adbc_telemetry.cli.errors import CommandError, write
from adbc_telemetry.cli.extras import require_extras
from adbc_telemetry.cli.storage import add_storage_option, parse_storage_options
from adbc_telemetry.cli.units import duration, port, size

if TYPE_CHECKING:
    from adbc_telemetry.collector.destination import Destination
    from adbc_telemetry.collector.server import Collector

DEFAULT_PORT: Final = 8317
DEFAULT_STORE: Final = "telemetry"
TOKEN_VARIABLE: Final = "ADBC_TELEMETRY_COLLECTOR_TOKEN"
_LONGEST_TOKEN: Final = 4096


def add_collect(parser: argparse.ArgumentParser) -> None:
    """The options of `collect`."""
    add_address(parser)
    destination = parser.add_mutually_exclusive_group()
    destination.add_argument(
        "--store",
        default=DEFAULT_STORE,
        metavar="FOLDER",
        help="folder to keep events in, made when it is new (default: %(default)s)",
    )
    destination.add_argument(
        "--sink",
        metavar="kafka://BROKER[,BROKER]/TOPIC",
        help="hand events to a topic of Kafka instead of keeping them",
    )
    add_kafka_config(parser)
    parser.add_argument(
        "--retention",
        type=duration,
        default="30d",
        metavar="AGE",
        help="delete older events (default: %(default)s)",
    )
    parser.add_argument(
        "--max-size",
        type=size,
        default="10GB",
        metavar="SIZE",
        help="delete the oldest events beyond (default: %(default)s)",
    )
    parser.add_argument(
        "--flags", metavar="FILE", help="feature flags as JSON, read again whenever the file changes"
    )
    parser.add_argument(
        "--unavailable-while", metavar="FILE", help="maintenance switch: answer 503 while FILE exists"
    )


def add_kafka_config(parser: argparse.ArgumentParser) -> None:
    """What is passed through to Kafka's client."""
    parser.add_argument(
        "--kafka-config",
        action="append",
        default=[],
        metavar="KEY=VALUE|FILE",
        help="a setting of librdkafka, such as security.protocol=SASL_SSL, or a file with one per line",
    )


def add_serve(parser: argparse.ArgumentParser) -> None:
    """The options of `serve`."""
    parser.add_argument(
        "store", metavar="STORE|TABLE", help="the folder of a collector, or a Delta table; it is only read"
    )
    add_storage_option(parser)
    add_address(parser)


def add_address(parser: argparse.ArgumentParser) -> None:
    """Where to listen, and who may come."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=port,
        default=DEFAULT_PORT,
        help="port to listen on, 0 for any free one (default: %(default)s)",
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"file with the token that senders and readers must show; else {TOKEN_VARIABLE}",
    )
    parser.add_argument("--tls-cert", metavar="FILE", help="certificate chain, PEM")
    parser.add_argument("--tls-key", metavar="FILE", help="the certificate's key, PEM")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name of a reverse proxy under which a loopback collector may be addressed",
    )
    parser.add_argument("--verbose", action="store_true", help="log more")
    parser.add_argument("--access-log", action="store_true", help="log a line per request")


def run_collect(options: argparse.Namespace) -> int:
    """Run a collector until a signal ends it."""
    from adbc_telemetry.collector.store.retention import Retention

    if options.kafka_config and options.sink is None:
        raise CommandError("--kafka-config is of use with --sink only; give both, or neither.")
    collector = _collector(
        options,
        retention=Retention(max_seconds=options.retention, max_bytes=options.max_size),
        flags=options.flags,
        unavailable_while=options.unavailable_while,
    )
    return _run(collector, options, f"collecting on {{}} into {options.sink or options.store}\n")


def run_serve(options: argparse.Namespace) -> int:
    """Serve the page over a store until a signal ends it."""
    collector = _collector(
        options, read_only=True, storage_options=parse_storage_options(options.storage_option)
    )
    return _run(collector, options, f"serving {options.store} on {{}}\n")


def _collector(options: argparse.Namespace, **settings: Any) -> Collector:
    """A collector with the options of `add_address`, and further settings."""
    from adbc_telemetry.collector.server import Collector

    return Collector(
        _kafka(options) if getattr(options, "sink", None) is not None else options.store,
        options.host,
        options.port,
        token=_token(options.token_file),
        tls=_tls(options),
        allowed_hosts=options.allow_host,
        access_log=options.access_log,
        **settings,
    )


def _kafka(options: argparse.Namespace) -> Callable[[], Destination]:
    """What makes the destination of `--sink`."""
    require_extras("collector", "kafka")
    from adbc_telemetry.collector.destination import DestinationError
    from adbc_telemetry.collector.kafka.address import parse_address
    from adbc_telemetry.collector.kafka.destination import KafkaDestination
    from adbc_telemetry.collector.kafka.settings import read_settings

    try:
        return partial(KafkaDestination, parse_address(options.sink), read_settings(options.kafka_config))
    except DestinationError as error:
        raise CommandError(str(error)) from error


def _run(collector: Collector, options: argparse.Namespace, announcement: str) -> int:
    from adbc_telemetry.collector.destination import DestinationError
    from adbc_telemetry.collector.flags import FlagsError
    from adbc_telemetry.collector.server import CollectorError, serve_until_signalled

    log_to_stderr(options.verbose)
    try:
        serve_until_signalled(collector, lambda running: write(os.fsencode(announcement.format(running.url))))
    except (CollectorError, FlagsError, DestinationError) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(
            f"cannot listen on {options.host} port {options.port}: {error.strerror}; "
            "choose another address with --host and --port."
        ) from error
    return 0


def _token(path: str | None) -> str | None:
    if path is None:
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        return token or None
    try:
        if not Path(path).is_file():
            raise CommandError(f"{path} is not a file; give a file with the token as --token-file.")
        token = Path(path).read_text("utf-8")[: _LONGEST_TOKEN + 1].strip()
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}; give another --token-file.") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} is not text; give a file with the token as --token-file.") from error
    if not token or len(token) > _LONGEST_TOKEN or not token.isprintable() or " " in token:
        raise CommandError(
            f"{path} holds no token; write one line without spaces, such as that of: openssl rand -hex 32"
        )
    return token


def _tls(options: argparse.Namespace) -> tuple[str, str] | None:
    if options.tls_cert is None and options.tls_key is None:
        return None
    if options.tls_cert is None or options.tls_key is None:
        raise CommandError("--tls-cert and --tls-key go together; give both.")
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.tls_cert, options.tls_key)
    except ssl.SSLError as error:
        raise CommandError(
            f"{options.tls_cert} and {options.tls_key} are not a certificate and its key in PEM; give both files anew."
        ) from error
    except OSError as error:
        raise CommandError(
            f"{options.tls_cert} or {options.tls_key} cannot be read: {error.strerror}; give other files."
        ) from error
    return options.tls_cert, options.tls_key


def log_to_stderr(verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logger = logging.getLogger("adbc_telemetry.collector")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
