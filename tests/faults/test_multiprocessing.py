"""Children of multiprocessing, which do not run `atexit` handlers (promise 7)."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest

from faults.processes import WITH_THE_PROCESS, arrived_once, ended_cleanly, numbers
from faults.scenario import Scenario
from support.process import PROGRAM, Ended, run_program, run_python
from support.server import TelemetryServer, black_hole, raw_endpoint

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

# In a file that children can import: `spawn` and `forkserver` start from it.
CHILDREN = (
    PROGRAM
    + """
import io, multiprocessing
client = None

def get_client():
    global client
    if client is None:
        client = make_client(sys.argv[1])
    return client

def work(name):
    get_client().enqueue(TelemetryFrontendLog(frontend_log_event_id=name))
    return os.getpid()

def context():
    # Set the arguments here: a forkserver does not pass them to its children.
    return multiprocessing.get_context(sys.argv[2])

"""
)


def run_children(main: str, tmp_path: Path, server: TelemetryServer, method: str) -> Ended:
    body = "if __name__ == '__main__':\n" + textwrap.indent(textwrap.dedent(main), "    ")
    return run_python(CHILDREN + body, server.url, method, file=tmp_path / "program.py")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_end(
    fault: Scenario, server: TelemetryServer, method: str, tmp_path: Path
) -> None:
    """Three children each make a client and enqueue; one returns, one exits, one raises. The parent enqueues, too."""
    main = """
        def end(name):
            work(name)
            if name == "child 1":
                sys.exit(0)
            if name == "child 2":
                sys.stderr = io.StringIO()  # multiprocessing prints the child's exception
                raise RuntimeError("of the program")

        """
    children = """
        work("parent")
        children = [context().Process(target=end, args=(f"child {n}",)) for n in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0, 0, 1]
        """
    body = textwrap.dedent(main) + "if __name__ == '__main__':\n" + textwrap.indent(children, "    ")
    out = run_python(CHILDREN + textwrap.dedent(body), server.url, method, file=tmp_path / "program.py")
    ended_cleanly(out)
    fault.seen(sent=4, delivered=arrived_once(server, ["parent"], numbers(3, "child ")))


def test_children_of_multiprocessing_inherit_the_parents_client(
    fault: Scenario, server: TelemetryServer, tmp_path: Path
) -> None:
    """Three forked children use the parent's client, whose queue holds 10 events."""
    out = run_children(
        """
        enqueue(get_client(), 10)
        children = [context().Process(target=work, args=(f"child {n}",)) for n in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        """,
        tmp_path,
        server,
        "fork",
    )
    ended_cleanly(out)
    (stats,) = out.accounts
    assert (stats.enqueued, stats.delivered) == (10, 10)  # the parent's events only
    fault.seen(sent=13, delivered=arrived_once(server, numbers(10), numbers(3, "child ")))


def test_a_child_of_multiprocessing_is_terminated(
    fault: Scenario, server: TelemetryServer, tmp_path: Path
) -> None:
    """`Process.terminate` (SIGTERM) ends a child with one unflushed event."""
    out = run_children(
        """
        def wait(connection):
            work("child")
            connection.send("ready")
            time.sleep(30)

        work("parent")
        here, there = context().Pipe()
        child = context().Process(target=wait, args=(there,))
        child.start()
        here.recv()
        child.terminate()
        child.join()
        """,
        tmp_path,
        server,
        "fork",
    )
    ended_cleanly(out)
    fault.seen(sent=2, delivered=arrived_once(server, ["parent"]), lost={WITH_THE_PROCESS: 1})


def test_a_child_of_multiprocessing_ends_while_the_endpoint_is_a_black_hole(fault: Scenario) -> None:
    """A forked child of multiprocessing ends while the endpoint never answers."""
    with raw_endpoint(black_hole) as url:
        out = run_program(
            """
            import multiprocessing
            def child():
                enqueue(make_client(sys.argv[1], close_timeout_ms=500), 10)
                os.write(1, f"last {time.monotonic()}\\n".encode())
            process = multiprocessing.get_context("fork").Process(target=child)
            process.start()
            process.join()
            print("joined", time.monotonic())
            """,
            url,
        )
    ended_cleanly(out)
    seconds = float(out.told("joined")[0]) - float(out.told("last")[0])
    assert 0.4 < seconds < 0.5 + 0.25 + 0.1
    fault.seen(sent=10, delivered=0, lost={"failed": 10}, seconds=seconds)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_workers_of_a_pool_end(
    fault: Scenario, server: TelemetryServer, method: str, tmp_path: Path
) -> None:
    """A `multiprocessing.Pool` of two runs 40 tasks with one event each, and is closed and joined."""
    out = run_children(
        """
        work("parent")
        pool = context().Pool(2)
        assert os.getpid() not in pool.map(work, [f"task {n}" for n in range(40)], chunksize=1)
        pool.close()
        pool.join()
        """,
        tmp_path,
        server,
        method,
    )
    ended_cleanly(out)
    fault.seen(sent=41, delivered=arrived_once(server, ["parent"], numbers(40, "task ")))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_workers_of_an_executor_end(
    fault: Scenario, server: TelemetryServer, method: str, tmp_path: Path
) -> None:
    """A `ProcessPoolExecutor` of two runs 40 tasks with one event each, and is shut down."""
    out = run_children(
        """
        from concurrent.futures import ProcessPoolExecutor
        work("parent")
        with ProcessPoolExecutor(2, mp_context=context()) as pool:
            assert os.getpid() not in pool.map(work, [f"task {n}" for n in range(40)])
        """,
        tmp_path,
        server,
        method,
    )
    ended_cleanly(out)
    fault.seen(sent=41, delivered=arrived_once(server, ["parent"], numbers(40, "task ")))
