"""gunicorn on a free port, and requests to it."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.process import RunningPython, python


@contextmanager
def running_gunicorn(
    folder: Path, application: str, endpoint: str, *options: str, interpreter_options: tuple[str, ...] = ()
) -> Iterator[tuple[RunningPython, Callable[[str], bytes]]]:
    """gunicorn with two workers, and a function that requests a path and returns the answer.

    Args:
        folder: the server's folder; the application's module is written there.
        application: the module, which defines `application`.
        endpoint: `TEST_ENDPOINT` in the server's environment.
        options: further options for gunicorn.
        interpreter_options: options for Python.
    """
    (folder / "application.py").write_text(application, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        port = listener.getsockname()[1]

        def ask(name: str) -> bytes:
            # The port listens already: an early request waits in the backlog.
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            try:
                connection.request("GET", f"/{name}")
                return connection.getresponse().read()
            finally:
                connection.close()

        gunicorn = python(
            *(*interpreter_options, "-m", "gunicorn", "application:application", "--workers", "2", *options),
            *("--bind", f"fd://{listener.fileno()}", "--chdir", str(folder), "--log-level", "warning"),
            environ={
                "TEST_ENDPOINT": endpoint,
                "HOME": str(folder),
            },  # gunicorn leaves files in the home folder
            pass_fds=[listener.fileno()],
        )
        with gunicorn as running:
            yield running, ask
