"""The library in a process of its own: what it loads, what it leaves alone, and how the process ends."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import pytest

from support.server import TelemetryServer, black_hole, raw_endpoint, refused_url

EXTRAS = [
    "pyarrow",
    "duckdb",
    "starlette",
    "uvicorn",
    "rich",
    "opentelemetry",
    "adbc_driver_manager",
    "urllib3",
]
EXTRAS += ["confluent_kafka", "deltalake", "pybreaker", "asyncio"]


def run(code: str, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={key: value for key, value in os.environ.items() if not key.startswith("COV")},
    )


def test_importing_it_loads_no_extra_and_no_http() -> None:
    out = run(
        f"""
        import sys
        before = set(sys.modules)
        import adbc_telemetry
        loaded = {{name.split(".")[0] for name in set(sys.modules) - before}}
        assert loaded.isdisjoint({EXTRAS!r}), loaded
        """
    )
    assert out.returncode == 0, out.stderr


def test_http_is_loaded_when_something_is_to_be_sent_and_not_before() -> None:
    out = run(
        """
        import sys
        from adbc_telemetry import TelemetryClientManager, TelemetryConfiguration
        lease = TelemetryClientManager.get_instance().acquire("host", TelemetryConfiguration(enabled=True))
        assert "urllib3" not in sys.modules
        assert lease.release()
        assert "urllib3" not in sys.modules
        """
    )
    assert out.returncode == 0, out.stderr


def test_all_public_names_are_there() -> None:
    out = run(
        """
        import adbc_telemetry
        for name in adbc_telemetry.__all__:
            assert getattr(adbc_telemetry, name) is not None
            assert name in dir(adbc_telemetry)
        try:
            adbc_telemetry.no_such_name
        except AttributeError as error:
            assert "no_such_name" in str(error)
        """
    )
    assert out.returncode == 0, out.stderr


def test_hooks_signals_and_the_root_logger_stay_untouched() -> None:
    out = run(
        """
        import logging, signal, sys, threading
        def state():
            root = logging.getLogger()
            return (sys.excepthook, threading.excepthook, sys.unraisablehook, root.level, list(root.handlers),
                    root.disabled, [signal.getsignal(s) for s in signal.valid_signals() if s < 32])
        before = state()
        from adbc_telemetry import *
        from adbc_telemetry.schema import TelemetryFrontendLog
        with TelemetryClient(sys.argv[1], TelemetryConfiguration(enabled=True, max_retries=0)) as client:
            client.enqueue(TelemetryFrontendLog())
        assert state() == before
        assert logging.getLogger("adbc_telemetry").handlers == []
        """,
        refused_url(),
    )
    assert (out.returncode, out.stdout, out.stderr) == (0, "", "")


ENQUEUE = """
import sys
from adbc_telemetry import TelemetryClient, TelemetryConfiguration
from adbc_telemetry.schema import TelemetryFrontendLog
config = TelemetryConfiguration(enabled=True, flush_interval_ms=60_000, close_timeout_ms=500)
client = TelemetryClient(sys.argv[1], config)
for number in range(10):
    client.enqueue(TelemetryFrontendLog(frontend_log_event_id=str(number)))
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise RuntimeError('of the program')", 1),
        ("raise KeyboardInterrupt", None),
        ("import threading; threading.Thread(target=client.close, daemon=True).start()", 0),
    ],
)
def test_the_program_may_just_end_and_its_events_are_delivered(
    server: TelemetryServer, ending: str, code: int | None
) -> None:
    out = run(ENQUEUE + ending, server.url)
    assert code is None or out.returncode == code
    assert sorted(server.accepted) == [str(number) for number in range(10)]
    assert "adbc_telemetry" not in out.stderr


def test_a_black_hole_delays_the_end_of_the_process_by_the_timeout_at_most() -> None:
    with raw_endpoint(black_hole) as url:
        ended = run(ENQUEUE + "import time; print(time.monotonic(), flush=True)", url)
        at_exit = time.monotonic()
        assert ended.returncode == 0
        assert ended.stderr == ""
        # From the program's last line to the end of the process, the interpreter's own shutdown included.
        assert at_exit - float(ended.stdout) < 0.5 + 0.25 + 0.25


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_events_of_multiprocessing_children_are_delivered_once(
    server: TelemetryServer, method: str, tmp_path: object
) -> None:
    script = f"{tmp_path}/program.py"
    with open(script, "w") as file:
        file.write(
            textwrap.dedent(
                """
                import multiprocessing, sys, warnings
                from adbc_telemetry import TelemetryClient, TelemetryConfiguration
                from adbc_telemetry.schema import TelemetryFrontendLog
                config = TelemetryConfiguration(enabled=True, flush_interval_ms=60_000)
                client = None

                def get_client():
                    global client
                    if client is None:
                        client = TelemetryClient(sys.argv[1], config)
                    return client

                def child(number):
                    get_client().enqueue(TelemetryFrontendLog(frontend_log_event_id=f"child {number}"))

                if __name__ == "__main__":
                    warnings.simplefilter("ignore", DeprecationWarning)
                    multiprocessing.set_start_method(sys.argv[2])
                    get_client().enqueue(TelemetryFrontendLog(frontend_log_event_id="parent"))
                    children = [multiprocessing.Process(target=child, args=(n,)) for n in range(3)]
                    for process in children:
                        process.start()
                    for process in children:
                        process.join()
                """
            )
        )
    out = subprocess.run(
        [sys.executable, script, server.url, method], capture_output=True, text=True, timeout=120
    )
    assert (out.returncode, out.stderr) == (0, "")
    assert sorted(server.accepted) == ["child 0", "child 1", "child 2", "parent"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_has_a_sender_of_its_own_and_an_empty_queue(server: TelemetryServer) -> None:
    out = run(
        """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        """
        + textwrap.indent(ENQUEUE, "        ")
        + """
        pid = os.fork()
        if pid == 0:
            assert client.stats().enqueued == 0
            client.enqueue(TelemetryFrontendLog(frontend_log_event_id="child"))
            assert client.flush(10)
            os._exit(0 if client.stats().delivered == 1 else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert client.flush(10)
        assert client.stats().delivered == 10
        """,
        server.url,
    )
    assert out.returncode == 0, out.stderr
    assert sorted(server.accepted) == sorted([*map(str, range(10)), "child"])
