"""gunicorn reads this by itself. Two processes with two threads each: four connections, and one client per process."""

import sqlite3

bind = "127.0.0.1:8000"
workers = 2
threads = 2
# Import the application once. Its connections are opened later, in the workers.
preload_app = True
# A worker that stops delivers its events within five seconds (close_timeout_ms); leave it the time.
graceful_timeout = 15


def on_starting(server: object) -> None:
    """Make the database once, before there are workers."""
    with sqlite3.connect("shop.sqlite") as database:
        database.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, amount REAL)")
    database.close()
