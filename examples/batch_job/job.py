"""A nightly job that must never fail, or wait, because of telemetry.

It delivers its events at its end. What cannot be delivered goes into the folder `spool`, and the next run sends it.
"""

from __future__ import annotations

import sqlite3

import adbc_telemetry

ENDPOINT = "http://127.0.0.1:8317"
CONFIG = adbc_telemetry.TelemetryConfiguration(
    enabled=True,
    spool_dir="spool",
    spool_max_bytes=16_000_000,
    max_retries=1,
    close_timeout_ms=3_000,
)


def work(connection: sqlite3.Connection) -> float:
    """What the job is about: it loads sales, and sums them by region."""
    connection.execute("CREATE TABLE sales (region TEXT, amount REAL)")
    sales = [(region, amount * 1.5) for region in ("north", "south") for amount in range(1000)]
    connection.executemany("INSERT INTO sales VALUES (?, ?)", sales)
    connection.commit()
    total = 0.0
    for _, amount in connection.execute("SELECT region, sum(amount) FROM sales GROUP BY region"):
        total += amount
    return total


def main() -> None:
    # The lease is only for the account in the last line. A job that does not print it needs none.
    with adbc_telemetry.TelemetryClientManager.get_instance().acquire(ENDPOINT, CONFIG) as lease:
        connection = adbc_telemetry.instrument(sqlite3.connect(":memory:"), ENDPOINT, config=CONFIG)
        print(f"total {work(connection):,.0f}")
        connection.close()
    stats = lease.client.stats()
    print(
        f"delivered {stats.delivered}, spooled {stats.spooled}, sent from the spool {stats.replayed}, lost {stats.lost}"
    )


if __name__ == "__main__":
    main()
