"""What a program does with the connector, in the order in which it is compared.

    python scenarios.py CLIENT HOSTNAME [end]

CLIENT is `own` or `ours`; HOSTNAME that of `warehouse.py`. With `end`, it is only a statement, a close and the end.
Every scenario opens connections of the real connector.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import databricks.sql
from databricks.sql.exc import Error
from databricks.sql.telemetry.telemetry_client import TelemetryClientFactory


def connect(hostname: str, client: str, warehouse: str = "abc", **more: Any) -> Any:
    """A connection to the warehouse on loopback; its user agent names the client, so that events can be told apart."""
    return databricks.sql.connect(
        server_hostname=hostname,
        http_path=f"/sql/1.0/warehouses/{warehouse}",
        access_token="token",
        use_sea=True,
        use_cloud_fetch=False,
        force_enable_telemetry=True,
        user_agent_entry=client,
        _retry_stop_after_attempts_count=1,
        **more,
    )


def statements(connection: Any, *sql: str) -> None:
    """Run statements and read their rows; an error is the driver's."""
    with connection.cursor() as cursor:
        for each in sql:
            with contextlib.suppress(Error):
                cursor.execute(each)
                cursor.fetchall()


def queries(hostname: str, client: str) -> None:
    """Queries, with rows and with an error."""
    with connect(hostname, client) as connection:
        statements(connection, "select 1", "select 2", "fail")


def metadata(hostname: str, client: str) -> None:
    """A question about the catalog."""
    with connect(hostname, client) as connection, connection.cursor() as cursor:
        cursor.catalogs()
        cursor.fetchall()


def closed_cursor(hostname: str, client: str) -> None:
    """A mistake of the program's: it goes on with a cursor that it has closed."""
    with connect(hostname, client) as connection:
        cursor = connection.cursor()
        cursor.close()
        with contextlib.suppress(Error):
            cursor.execute("select 1")


def two_settings(hostname: str, client: str) -> None:
    """Two connections to one host at once, with settings of their own."""
    with (
        connect(hostname, client, _socket_timeout=60) as first,
        connect(hostname, client, _socket_timeout=120) as second,
    ):
        statements(first, "select 1")
        statements(second, "select 1")


def use_after_close(hostname: str, client: str) -> None:
    """Telemetry that comes after the connection's close, by the client that it keeps. It prints what becomes of it."""
    connection = connect(hostname, client)
    kept = connection._telemetry_client
    connection.close()
    kept.export_failure_log("LateError", "private text")
    stats = kept.stats() if hasattr(kept, "stats") else None
    print("lost without a trace" if stats is None else f"dropped_closed={stats.dropped_closed}", flush=True)


def no_session(hostname: str, client: str) -> None:
    """The warehouse refuses the connection."""
    with contextlib.suppress(Error):
        connect(hostname, client, "closed")


# The last one is last: it leaves the connector's factory a client without credentials, for all that comes after it.
SCENARIOS: tuple[Callable[[str, str], None], ...] = (
    queries,
    metadata,
    closed_cursor,
    two_settings,
    use_after_close,
    no_session,
)


def close_and_end(hostname: str, client: str) -> None:
    """One statement, a close, and the end. It prints how many seconds the close took."""
    connection = connect(hostname, client)
    statements(connection, "select 1")
    started = time.monotonic()
    connection.close()
    print(time.monotonic() - started, flush=True)


def attach_if(client: str) -> None:
    """Put the pipeline under the connector for `ours`."""
    if client == "ours":
        from pipeline_client import attach

        attach()


def main() -> None:
    """See the module."""
    client, hostname, *end = sys.argv[1:]
    logging.getLogger("databricks").setLevel(logging.CRITICAL)  # the connector's remarks on its SEA backend
    attach_if(client)
    for scenario in (close_and_end,) if end else SCENARIOS:
        scenario(hostname, client)
        if client == "own" and not end:
            # Else what a scenario leaves in the factory's queue would be lost with the process.
            for holder in list(TelemetryClientFactory._clients.values()):
                holder.client._flush()


if __name__ == "__main__":
    main()
