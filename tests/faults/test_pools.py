"""Process pools and servers that fork or end their children in unusual ways (promise 7)."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults.scenario import Scenario
from support.process import PROGRAM, Ended, RunningPython, python, run_python
from support.server import Reply, TelemetryServer
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

WITH_THE_MASTER = "uWSGI's master runs no exit handlers"

WORK = (
    PROGRAM
    + """
client = None

def work(name):
    global client
    if client is None:
        client = make_client(sys.argv[1])
    client.enqueue(TelemetryFrontendLog(frontend_log_event_id=name))
    return os.getpid()

"""
)


def run_main(main: str, server: TelemetryServer, tmp_path: Path, *arguments: str) -> Ended:
    """Run `main` in a file that children can import."""
    body = "if __name__ == '__main__':\n" + textwrap.indent(textwrap.dedent(main), "    ")
    return run_python(WORK + body, server.url, *arguments, file=tmp_path / "program.py")


def names(count: int, prefix: str) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def arrived_once(server: TelemetryServer, *expected: list[str]) -> int:
    assert sorted(server.accepted) == sorted(name for names in expected for name in names)
    return len(server.accepted)


@pytest.mark.parametrize("first", ["the parent", "a child"])
@pytest.mark.parametrize("family", ["multiprocessing", "multiprocess", "billiard"])
def test_children_of_a_multiprocessing_library_end(
    fault: Scenario, server: TelemetryServer, tmp_path: Path, family: str, first: str
) -> None:
    """Three children of the library in brackets, which is multiprocessing or derived from it; the other value says
    which process makes the client first."""
    pytest.importorskip(family)
    out = run_main(
        f"""
        import {family}.process, {family}.util
        context = {family}.get_context("fork")
        if sys.argv[2] == "the parent":
            work("parent")
        children = [context.Process(target=work, args=(f"child {{n}}",)) for n in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        if client is None:
            work("parent")
        """,
        server,
        tmp_path,
        first,
    )
    assert (out.code, out.stderr) == (0, "")
    fault.seen(sent=4, delivered=arrived_once(server, ["parent"], names(3, "child ")))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_main_module_of_a_child_makes_the_client(
    fault: Scenario, server: TelemetryServer, tmp_path: Path, method: str
) -> None:
    """A child's main module makes a client at its import, before multiprocessing marks the process as a child."""
    code = """
        if sys.argv[1:]:
            client = make_client(sys.argv[1])
        if __name__ == "__main__":
            import multiprocessing
            context = multiprocessing.get_context(sys.argv[2])
            children = [context.Process(target=work, args=(f"child {n}",)) for n in range(3)]
            for child in children:
                child.start()
            for child in children:
                child.join()
        """
    out = run_python(WORK + textwrap.dedent(code), server.url, method, file=tmp_path / "program.py")
    assert (out.code, out.stderr) == (0, "")
    fault.seen(sent=3, delivered=arrived_once(server, names(3, "child ")))


@pytest.mark.parametrize("first", ["the parent", "a child"])
@pytest.mark.parametrize("end", ["close", "recycle", "terminate"])
def test_the_workers_of_billiards_pool_end(
    fault: Scenario, server: TelemetryServer, tmp_path: Path, end: str, first: str
) -> None:
    """A pool of two billiard workers, which run no finalizers, ends as the brackets say."""
    pytest.importorskip("billiard")
    out = run_main(
        """
        import billiard.pool, billiard.context
        if sys.argv[2] == "the parent":
            work("parent")
        limit = 4 if sys.argv[3] == "recycle" else None
        pool = billiard.pool.Pool(2, maxtasksperchild=limit, context=billiard.get_context("fork"))
        results = [pool.apply_async(work, (f"task {n}",)) for n in range(16)]
        assert os.getpid() not in [result.get(20) for result in results]
        if sys.argv[3] == "terminate":
            pool.terminate()
        else:
            pool.close()
        pool.join()
        if client is None:
            work("parent")
        """,
        server,
        tmp_path,
        first,
        end,
    )
    assert out.code == 0, out.stderr
    fault.seen(sent=17, delivered=arrived_once(server, ["parent"], names(16, "task ")))


# Celery.

TASKS = """
import os, sqlite3
from celery import Celery, signals
from adbc_telemetry import TelemetryConfiguration, instrument

here = os.environ["TEST_FOLDER"]
folders = {"data_folder_in": here + "/queue", "data_folder_out": here + "/queue", "control_folder": here + "/control"}
app = Celery("tasks", broker="filesystem://", broker_transport_options=folders)
app.conf.task_ignore_result = True

def connect():
    config = TelemetryConfiguration(enabled=True, flush_interval_ms=600_000)
    # The pool forks replacement children from a thread.
    return instrument(sqlite3.connect(":memory:", check_same_thread=False), os.environ["TEST_ENDPOINT"], config=config)

connection = None
if os.environ["TEST_FIRST"] == "the parent":
    connection = connect()

@app.task
def ask():
    global connection
    if connection is None:
        connection = connect()
    connection.execute("SELECT 1").fetchall()
    with open(here + "/ran", "a") as file:
        file.write(".")

@signals.worker_process_shutdown.connect
def end_connection(**_):
    if connection is not None:
        connection.execute("SELECT 1").fetchall()
        connection.close()
"""


@pytest.mark.parametrize("first", ["the parent", "a child"])
@pytest.mark.parametrize("end", ["recycled", "stopped"])
def test_celerys_prefork_children_end(
    fault: Scenario, server: TelemetryServer, tmp_path: Path, end: str, first: str
) -> None:
    """Celery's prefork pool runs 12 tasks in two children, and replaces them after 3 tasks or stops them (SIGTERM)."""
    pytest.importorskip("celery")
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")
    (tmp_path / "queue").mkdir()
    (tmp_path / "control").mkdir()
    environ = {
        "TEST_FOLDER": str(tmp_path),
        "TEST_ENDPOINT": server.url,
        "PYTHONPATH": str(tmp_path),
        "HOME": str(tmp_path),
        "TEST_FIRST": "",
        "DO_NOT_TRACK": "",
    }
    ask = "import tasks\nfor _ in range(12): tasks.ask.delay()"
    with python("-c", ask, environ=environ) as asking:
        assert asking.end(60).code == 0
    options = ["--max-tasks-per-child", "3"] if end == "recycled" else []
    options += ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "error"]
    worker = ["-m", "celery", "-A", "tasks", "worker", "-P", "prefork", "-c", "2", *options]
    with python(*worker, environ={**environ, "TEST_FIRST": first}) as running:
        wait_until(lambda: size_of(tmp_path / "ran") == 12, timeout=60)
        running.send(signal.SIGTERM)
        out = running.end(60)
    assert "Traceback" not in out.stderr, out.stderr
    told = operations(server)
    # At its shutdown, a child with a connection runs a last statement and closes it.
    children = told["DELETE_SESSION"]
    assert children >= (4 if end == "recycled" else 1)
    assert told["EXECUTE_STATEMENT"] == 12 + children
    assert told["CREATE_SESSION"] == (1 if first == "the parent" else children)
    sent = 12 + children * 2 + told["CREATE_SESSION"]
    fault.seen(sent=sent, delivered=len(set(server.accepted)))


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def operations(server: TelemetryServer) -> Counter[str]:
    return Counter(
        log["entry"]["sql_driver_log"]["sql_operation"]["operation_detail"]["operation_type"]
        for request in server.requests
        for log in request.logs
    )


# uWSGI, which runs Python's fork hooks only on request.

APPLICATION = """
import os, pathlib, sqlite3, time
from adbc_telemetry import TelemetryConfiguration, instrument

here = pathlib.Path(__file__).parent

def connect():
    config = TelemetryConfiguration(enabled=True, flush_interval_ms=int(os.environ["TEST_INTERVAL"]))
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    return instrument(connection, os.environ["TEST_ENDPOINT"], config=config)

connection = None
if os.environ["TEST_FIRST"] == "the module":
    connection = connect()
if os.environ["TEST_DECORATORS"]:
    import uwsgidecorators  # overwrites uWSGI's only hook

def application(environ, start_response):
    global connection
    if connection is None:
        connection = connect()
    name = environ["PATH_INFO"][1:]
    if name.startswith("held"):
        (here / name).touch()
        while not (here / "release").exists():
            time.sleep(0.005)
    connection.execute("SELECT 1").fetchall()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""


class Uwsgi:
    """A uWSGI server of `APPLICATION`; `places` is the number of threads in all its workers."""

    def __init__(self, running: RunningPython, port: int, folder: Path, places: int) -> None:
        self.running = running
        self._port = port
        self._folder = folder
        self._places = places

    def ask(self, count: int) -> None:
        """Make `count` requests; the first of them run at the same time, one per place."""
        held = min(count, self._places)
        with ThreadPoolExecutor(held) as threads:
            asked = [threads.submit(self._ask, f"held-{number}") for number in range(held)]
            try:
                wait_until(lambda: len(list(self._folder.glob("held-*"))) == held)
            finally:
                (self._folder / "release").touch()
            for each in asked:
                each.result()
        for _ in range(count - held):
            self._ask("")

    def _ask(self, name: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            connection.request("GET", f"/{name}")
            assert connection.getresponse().status == 200
        finally:
            connection.close()

    def stop(self) -> Ended:
        """Stop it gracefully: after a SIGINT, a worker that has just answered would run no exit handlers."""
        with (self._folder / "fifo").open("w") as fifo:
            fifo.write("q")
        return self.running.end(30)


@contextmanager
def uwsgi(
    server: TelemetryServer,
    folder: Path,
    *options: str,
    first: str,
    interval: int = 600_000,
    decorators: bool = False,
    places: int = 2,
) -> Iterator[Uwsgi]:
    pytest.importorskip("pyuwsgi")
    (folder / "application.py").write_text(APPLICATION, encoding="utf-8")
    environ = {
        "TEST_ENDPOINT": server.url,
        "TEST_FIRST": first,
        "TEST_INTERVAL": str(interval),
        "TEST_DECORATORS": "1" if decorators else "",
    }
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        running = python(
            *("-c", "import sys, pyuwsgi; pyuwsgi.run(sys.argv[1:])"),
            *(
                "--http-socket",
                f"fd://{listener.fileno()}",
                "--chdir",
                str(folder),
                "--pythonpath",
                str(folder),
            ),
            *(
                "--wsgi",
                "application",
                "--need-app",
                "--no-orphans",
                "--master-fifo",
                str(folder / "fifo"),
                *options,
            ),
            environ=environ,
            pass_fds=[listener.fileno()],
        )
        with running as process:
            yield Uwsgi(process, listener.getsockname()[1], folder, places)


def seen_once(fault: Scenario, server: TelemetryServer, statements: int) -> None:
    """Assert that all statements arrived, each with its own id, and the sessions that began in workers, too."""
    told = operations(server)
    assert told["EXECUTE_STATEMENT"] == statements
    assert len(set(server.accepted)) == len(server.accepted)
    lost = {} if told["CREATE_SESSION"] else {WITH_THE_MASTER: 1}
    fault.seen(sent=len(server.accepted) + sum(lost.values()), delivered=len(server.accepted), lost=lost)


@pytest.mark.parametrize("first", ["the module", "a request"])
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--enable-threads"],
        ["--lazy-apps"],
        ["--lazy-apps", "--enable-threads"],
        ["--enable-threads", "--py-call-uwsgi-fork-hooks"],
        ["--py-call-osafterfork"],
        ["--threads", "2"],
    ],
    ids=lambda options: " ".join(options).replace("--", "") or "by default",
)
def test_uwsgis_workers_end(
    fault: Scenario, server: TelemetryServer, tmp_path: Path, options: list[str], first: str
) -> None:
    """Two uWSGI workers serve 20 requests and are stopped; the brackets say what makes the connection."""
    with uwsgi(
        server,
        tmp_path,
        "--master",
        "--processes",
        "2",
        *options,
        first=first,
        places=4 if "--threads" in options else 2,
    ) as running:
        running.ask(20)
        out = running.stop()
    assert "Traceback" not in out.stderr, out.stderr
    seen_once(fault, server, 20)


def test_uwsgis_decorators_are_imported_after_the_library(
    fault: Scenario, server: TelemetryServer, tmp_path: Path
) -> None:
    """The application makes its connection, then imports `uwsgidecorators`, which overwrites uWSGI's fork hook."""
    options = ["--master", "--processes", "2"]
    with uwsgi(server, tmp_path, *options, first="the module", decorators=True) as running:
        running.ask(20)
        running.stop()
    seen_once(fault, server, 20)


@pytest.mark.parametrize("options", [[], ["--enable-threads"]], ids=["by default", "enable-threads"])
def test_uwsgi_replaces_its_workers(
    fault: Scenario, server: TelemetryServer, tmp_path: Path, options: list[str]
) -> None:
    """uWSGI replaces its worker after every 5 requests, long after the flush interval; the master made the connection.
    If the master had a sender thread, the next worker would hang."""
    options = ["--master", "--processes", "1", "--max-requests", "5", *options]
    with uwsgi(server, tmp_path, *options, first="the module", interval=50, places=1) as running:
        running.ask(20)
        running.stop()
    seen_once(fault, server, 20)


def test_uwsgis_worker_ends_while_the_endpoint_hangs(
    fault: Scenario, server: TelemetryServer, tmp_path: Path
) -> None:
    """The endpoint never answers, and uWSGI runs without threads; the worker ends after the close timeout."""
    release = threading.Event()
    server.always = lambda request: Reply(release=release)
    with uwsgi(server, tmp_path, "--master", "--processes", "1", first="a request", places=1) as running:
        running.ask(5)
        began = time.monotonic()
        running.stop()
        seconds = time.monotonic() - began
        release.set()
    assert 4.9 < seconds < 5 + 2.5  # uWSGI checks its workers once a second
    fault.seen(sent=6, delivered=0, lost={"failed": 6}, seconds=seconds)
