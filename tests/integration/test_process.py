"""The library in its own process: what it imports and what it leaves untouched. `tests/faults` has the exits."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from support.server import refused_url

EXTRAS = [
    "pyarrow",
    "duckdb",
    "numpy",
    "prometheus_client",
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


def test_http_is_loaded_only_for_the_first_request() -> None:
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
