"""The accounts of all clients of a process: each is counted once, whatever happens meanwhile."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

from adbc_telemetry.core.diagnostics import Diagnostics
from adbc_telemetry.export.base import BatchOutcome, ExportOutcome, ExportResult
from adbc_telemetry.pipeline import accounts as module
from adbc_telemetry.pipeline.account import error_type_of
from adbc_telemetry.pipeline.accounts import OTHERS, Accounts, ClientAccount, Watched
from adbc_telemetry.pipeline.flow import EventFlow
from adbc_telemetry.pipeline.lifecycle import Lifecycle
from support.clients import configuration
from support.logs import make_log
from support.waiting import run_in_threads


class Client:
    """What keeps an account among the living."""


def account_of(endpoint: str, delivered: int = 0) -> ClientAccount:
    flow = EventFlow(configuration(), Lifecycle(enabled=True))
    if delivered:
        flow.queue.events.extend(make_log() for _ in range(delivered))
        flow.take_batch()
        outcome = BatchOutcome(delivered=delivered, rejected=0, unsent=[])
        flow.batch_returned(outcome, ExportResult(ExportOutcome.DELIVERED), preempted=False)
    return ClientAccount(
        Watched(endpoint, "an exporter"),
        flow,
        exporter_errors=None,
        breaker=None,
        spool=None,
        replayed=None,
        diagnostics=Diagnostics(endpoint),
    )


def test_an_account_is_counted_while_its_client_lives_and_after() -> None:
    accounts = Accounts()
    clients = [Client() for _ in range(3)]
    for client in clients:
        accounts.add(client, account_of("host", delivered=2))
    before = [total.stats.delivered for total in accounts.totals()]
    del client, clients[:2]
    gc.collect()
    after = [total.stats.delivered for total in accounts.totals()]
    clients.clear()
    gc.collect()

    assert (before, after) == ([6], [6])
    assert [total.stats.delivered for total in accounts.totals()] == [6]
    assert [total.capacity for total in accounts.totals()] == [0]
    assert not accounts._living


def test_endpoints_keep_their_numbers() -> None:
    accounts = Accounts()
    clients = [Client(), Client(), Client()]
    for client, endpoint in zip(clients, ("b", "a", "b"), strict=True):
        accounts.add(client, account_of(endpoint, delivered=1))

    first = [(total.watched.endpoint, total.number, total.stats.delivered) for total in accounts.totals()]
    clients.clear()
    del client
    gc.collect()
    second = [(total.watched.endpoint, total.number, total.stats.delivered) for total in accounts.totals()]

    assert first == second == [("b", 0, 2), ("a", 1, 1)]


def test_after_so_many_endpoints_the_others_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_ENDPOINTS", 3)
    accounts = Accounts()
    clients = [Client() for _ in range(10)]
    for index, client in enumerate(clients):
        accounts.add(client, account_of(f"host {index}", delivered=1))

    totals = accounts.totals()

    assert [(total.watched == OTHERS, total.stats.delivered) for total in totals] == [
        (False, 1),
        (False, 1),
        (False, 1),
        (True, 7),
    ]


def test_no_reader_sees_a_count_go_back_while_clients_come_and_go() -> None:
    accounts = Accounts()
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(sum(total.stats.delivered for total in accounts.totals()))

    def come_and_go(index: int) -> None:
        for _ in range(100):
            accounts.add(Client(), account_of("host", delivered=1))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        run_in_threads(3, come_and_go)
    finally:
        done.set()
        reader.join(20)

    assert seen == sorted(seen)
    assert [total.stats.delivered for total in accounts.totals()] == [300]


def test_who_finds_the_accounts_locked_does_without_and_nothing_is_lost() -> None:
    accounts = Accounts()
    accounts.add(Client(), account_of("host", delivered=1))
    with accounts._moving:  # as a signal handler may find it, on the thread that holds it
        accounts.add(Client(), account_of("host", delivered=1))

    assert [total.stats.delivered for total in accounts.totals()] == [2]


def test_an_observer_that_raises_stops_no_other_and_no_export() -> None:
    accounts = Accounts()
    told: list[Any] = []

    def broken(*_: object) -> None:
        raise RuntimeError

    def listening(*arguments: object) -> None:
        told.append(arguments)

    accounts.observers = (broken, listening)
    accounts.exported(account_of("host"), 0.5, ExportResult(ExportOutcome.FAILED, reason="HTTP 503"))
    accounts.exported(account_of("host"), 0.5, ExportResult(ExportOutcome.DROPPED))

    assert [(watched.endpoint, seconds, error_type) for watched, _, seconds, _, error_type in told] == [
        ("host", 0.5, "503")
    ]


def test_a_forked_child_has_no_accounts_of_the_parents() -> None:
    accounts = Accounts()
    client = Client()
    accounts.add(client, account_of("host", delivered=1))
    accounts.add(Client(), account_of("other", delivered=1))
    accounts.after_fork_in_child()

    assert accounts.totals() == []


@pytest.mark.parametrize(
    ("result", "error_type"),
    [
        (ExportResult(ExportOutcome.FAILED, reason="HTTP 503"), "503"),
        (ExportResult(ExportOutcome.REJECTED, reason="HTTP 400"), "400"),
        (ExportResult(ExportOutcome.FAILED, reason="ConnectTimeoutError"), "ConnectTimeoutError"),
        (ExportResult(ExportOutcome.CANCELLED, reason="the deadline came"), "cancelled"),
        (ExportResult(ExportOutcome.REJECTED, reason="too large"), "rejected"),
        (
            ExportResult(ExportOutcome.DELIVERED, rejected=1, reason="the server did not accept all"),
            "rejected",
        ),
        (ExportResult(ExportOutcome.FAILED, reason="it cost 7 euros at https://secret.example"), "_OTHER"),
        (ExportResult(ExportOutcome.FAILED, reason="x" * 101), "_OTHER"),
        (ExportResult(ExportOutcome.FAILED, reason=7), "_OTHER"),  # type: ignore[arg-type]
        (ExportResult(ExportOutcome.FAILED), "_OTHER"),
    ],
)
def test_an_error_type_is_of_low_cardinality_and_private(result: ExportResult, error_type: str) -> None:
    assert error_type_of(result) == error_type
