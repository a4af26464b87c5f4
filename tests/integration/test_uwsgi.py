"""The handling of uWSGI, with a fake one in each mode; `tests/faults/test_pools.py` runs the real one."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from adbc_telemetry import InMemoryTelemetryExporter, TelemetryClient, TelemetryConfiguration
from adbc_telemetry import client as client_module
from adbc_telemetry.core.uwsgi import _Prefork
from adbc_telemetry.pipeline import batch_delivery
from adbc_telemetry.pipeline import sender as sender_module
from adbc_telemetry.schema import TelemetryFrontendLog


def fake_uwsgi(monkeypatch: pytest.MonkeyPatch, *, master: int = 0, worker: int = 0, **more: Any) -> Any:
    uwsgi = SimpleNamespace(masterpid=lambda: master, worker_id=lambda: worker, **more)
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    monkeypatch.setitem(sys.modules, "uwsgidecorators", None)  # as without a master
    return uwsgi


def test_threads_start_without_uwsgi() -> None:
    assert _Prefork().threads_may_start()


def test_threads_start_in_uwsgis_workers_and_not_in_its_master(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_uwsgi(monkeypatch, master=os.getpid())
    assert not _Prefork().threads_may_start()
    fake_uwsgi(monkeypatch, master=os.getppid())
    assert _Prefork().threads_may_start()


def test_threads_start_in_the_master_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_uwsgi(monkeypatch, master=os.getpid())
    prefork = _Prefork()
    prefork.end_of_forks()
    assert prefork.threads_may_start()


def test_without_a_master_threads_start_in_numbered_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_uwsgi(monkeypatch, worker=0)
    assert not _Prefork().threads_may_start()
    fake_uwsgi(monkeypatch, worker=1)
    assert _Prefork().threads_may_start()


def test_the_programs_hook_is_called_too(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    uwsgi = fake_uwsgi(monkeypatch, post_fork_hook=lambda: called.append("the program's"))
    prefork = _Prefork()
    assert not prefork.threads_may_start()
    uwsgi.post_fork_hook()
    assert called == ["the program's"]
    assert prefork.threads_may_start()


def test_uwsgis_decorators_get_the_new_hook_and_overwrite_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[str] = []
    uwsgi = fake_uwsgi(
        monkeypatch, post_fork_hook=lambda: called.append("the program's"), mule_msg_hook="taken"
    )

    class Finder:
        """Imports decorators that set the same attributes of `uwsgi` as the real ones."""

        @staticmethod
        def find_spec(name: str, *_: object) -> Any:
            if name != "uwsgidecorators":
                return None
            from importlib.machinery import ModuleSpec

            return ModuleSpec(name, Finder)  # type: ignore[arg-type]

        @staticmethod
        def create_module(spec: object) -> None:
            return None

        @staticmethod
        def exec_module(module: Any) -> None:
            module.postfork_chain = []
            uwsgi.post_fork_hook = lambda: [each() for each in module.postfork_chain]
            uwsgi.spooler = uwsgi.mule_msg_hook = "of the decorators"

    monkeypatch.delitem(sys.modules, "uwsgidecorators")
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    prefork = _Prefork()
    assert (uwsgi.mule_msg_hook, uwsgi.spooler) == ("taken", "of the decorators")
    uwsgi.post_fork_hook()
    assert called == ["the program's"]
    assert prefork.threads_may_start()
    del sys.modules["uwsgidecorators"]


def test_events_from_before_the_fork_are_sent_by_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    uwsgi = fake_uwsgi(monkeypatch)  # without a master, the process that loads the application is a worker
    prefork = _Prefork()
    monkeypatch.setattr(client_module, "prefork", prefork)
    monkeypatch.setattr(batch_delivery, "prefork", prefork)
    monkeypatch.setattr(sender_module, "prefork", prefork)
    exporter = InMemoryTelemetryExporter()
    config = TelemetryConfiguration(enabled=True, flush_interval_ms=60_000)
    with TelemetryClient("host", config, exporter=exporter) as client:
        for _ in range(10):
            client.enqueue(TelemetryFrontendLog())
        assert not client.flush()
        assert (client.stats().queued, client.stats().errors) == (10, 0)
        uwsgi.post_fork_hook()
        assert client.flush(10)
        assert client.stats().delivered == 10
