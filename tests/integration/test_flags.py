"""The server's flags and whole processes: how they end, and how a fleet follows."""

from __future__ import annotations

import sys
import threading

import pytest

from adbc_telemetry.feature_flags import FIRST_ANSWER_SECONDS
from support.flags import FlagServer
from support.process import running_python
from support.server import TelemetryServer, black_hole, raw_endpoint
from support.waiting import wait_until

PROGRAM = """
import multiprocessing, sys
from adbc_telemetry import ConnectionTelemetry

def work():
    global telemetry  # nothing closes it before the process ends
    telemetry = ConnectionTelemetry.create(driver_name="tiny", driver_version="1", host={url!r})
    with telemetry.statement():
        pass

"""

ENDINGS = {
    "the end of the program": "work()",
    "an exception": "work()\n1 / 0",
    "sys.exit": "work()\nsys.exit(3)",
    "the end of a child": """
context = multiprocessing.get_context("fork")
child = context.Process(target=work)
child.start()
child.join()
""",
}


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_end_of_a_process_waits_for_the_first_answer_and_then_delivers(
    server: TelemetryServer, ending: str, on: bool
) -> None:
    if sys.platform == "win32" and "child" in ending:
        pytest.skip("there is no fork")
    flags = FlagServer(server)
    flags.turn(on)
    release = flags.hold()
    with running_python(PROGRAM.format(url=server.url) + ENDINGS[ending]) as running:
        wait_until(lambda: flags.asked)
        threading.Timer(0.2, release.set).start()
        ended = running.end(60)
    assert ended.code == {"an exception": 1, "sys.exit": 3}.get(ending, 0), ended.stderr
    assert flags.operations == (["CREATE_SESSION", "EXECUTE_STATEMENT"] if on else [])


DOWN = """
import time
from adbc_telemetry import ConnectionTelemetry

def use():
    telemetry = ConnectionTelemetry.create(driver_name="tiny", driver_version="1", host={url!r})
    with telemetry.statement():
        pass
    return telemetry

start = time.monotonic()
for _ in range(3):
    use().close()
left_open = [use() for _ in range(3)]
print("closed", time.monotonic() - start, flush=True)
print("ends", time.monotonic(), flush=True)
"""


def test_a_process_waits_for_an_endpoint_that_is_silent_once_and_no_longer_than_the_first_answer_may_take() -> (
    None
):
    with raw_endpoint(black_hole) as url, running_python(DOWN.format(url=url)) as running:
        ended = running.end(60)
    assert ended.code == 0, ended.stderr
    assert FIRST_ANSWER_SECONDS - 0.5 < float(ended.told("closed")[0]) < FIRST_ANSWER_SECONDS + 3
    assert ended.at - float(ended.told("ends")[0]) < 3


FLEET = """
import os, signal, sys, time
import adbc_telemetry.connection
from adbc_telemetry import ConnectionTelemetry

def work():
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(60)
    told = {{"adbc.databricks.telemetry.flush_interval_ms": "20"}}
    with ConnectionTelemetry.create(told, driver_name="tiny", driver_version="1", host={url!r}) as telemetry:
        before = None
        while os.getppid() == parent and not os.path.exists({stop!r}):
            with telemetry.statement():
                pass
            if telemetry.enabled is not before:
                before = telemetry.enabled
                os.write(1, b"turned %d\\n" % before)
            time.sleep(0.02)

parent = os.getpid()
children = []
for _ in range({count}):
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
print("over", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_twenty_processes_follow_a_change_within_one_refresh_and_each_asks_once(
    server: TelemetryServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    count, stop = 20, tmp_path_factory.mktemp("fleet") / "stop"
    flags = FlagServer(server)
    flags.ttl_seconds = 1.0
    flags.turn(True)
    release = flags.hold()
    program = FLEET.format(url=server.url, stop=str(stop), count=count)
    with running_python(program) as running:
        lines = iter(running.process.stdout.readline, "") if running.process.stdout else iter(())

        def turned(to: bool) -> None:
            waiting = count
            while waiting:
                waiting -= next(lines).strip() == f"turned {int(to)}"

        turned(False)  # while nothing is known
        wait_until(lambda: len(flags.asked) == count)
        release.set()
        turned(True)
        flags.turn(False)
        turned(False)
        flags.turn(True)
        before = len(flags.operations)
        turned(True)
        stop.touch()
        assert running.end(60).code == 0
    assert flags.operations[before:].count("DELETE_SESSION") == count
    times = sorted(request.at for request in flags.asked)
    refreshes = 1 + (times[-1] - times[0]) / flags.ttl_seconds
    assert len(flags.asked) <= refreshes * count, "one request per host, process and refresh"
