"""The delivery of one client's batches: export, requeue or spool, and the account.

The threads of `sender` call `next_send` and `send_batch`, one call at a time; see `scheduler.Sendable`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from adbc_telemetry.config import TelemetryConfiguration
from adbc_telemetry.core.diagnostics import Diagnostics
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.interpreters import forbids_threads
from adbc_telemetry.core.reentrant import released
from adbc_telemetry.core.uwsgi import prefork
from adbc_telemetry.events.statement import logs_of
from adbc_telemetry.export.base import (
    AbleExporter,
    BatchOutcome,
    ExportOutcome,
    ExportResult,
    failed_export,
    name_of_exporter,
    preempt,
    safe_export,
    takes_statements,
)
from adbc_telemetry.export.circuit_breaker import CircuitBreakerTelemetryExporter
from adbc_telemetry.pipeline.accounts import ClientAccount, Watched, accounts
from adbc_telemetry.pipeline.barriers import Barrier
from adbc_telemetry.pipeline.flow import EventFlow, Unsent, batch_sizes
from adbc_telemetry.pipeline.queue import Event
from adbc_telemetry.pipeline.replay import Replay
from adbc_telemetry.pipeline.reporting import ExportReport
from adbc_telemetry.pipeline.scheduler import PROMPT_SECONDS
from adbc_telemetry.pipeline.sender import SenderThreads, sender
from adbc_telemetry.pipeline.spool import Spool
from adbc_telemetry.protocols import ClientStats


def _no_threads(error: Exception, delivery: BatchDelivery) -> SenderThreads | None:
    delivery.flow.account.errors.increment()
    if isinstance(error, RuntimeError) and forbids_threads(error):
        delivery.flow.give_up()
    return None


class BatchDelivery:
    """Sends the batches of one client. See `scheduler.Sendable`.

    Args:
        host: the host, normalised.
        config: of the client.
        exporter: where batches go.
        enabled: whether anything will be sent.
        tenant: whose events these are, where several tenants share a host; see `spool`.

    Attributes:
        flow: the events. A forked child has a new one.
        replay: sends what lies in the spool; None without `spool_dir`.
        account: how many events came to which end. A forked child has a new one.
        is_degraded, usual_seconds: see `Sendable`.
    """

    flow: EventFlow

    def __init__(
        self,
        host: str,
        config: TelemetryConfiguration,
        exporter: AbleExporter,
        *,
        enabled: bool,
        tenant: object = None,
    ) -> None:
        self._host = host
        self._enabled = enabled
        self.exporter = exporter
        # What the exporter gets of a batch: some of our exporters take statements as they are.
        self._prepare: Callable[[Sequence[Any]], Sequence[Any]] = (
            list if takes_statements(exporter) else logs_of
        )
        self._diagnostics = Diagnostics(host)
        self._spool: Spool | None = None
        self.replay: Replay | None = None
        if enabled and config.spool_dir is not None:
            self._spool = Spool(config.spool_dir, host, config.spool_max_bytes, self._diagnostics, tenant)
            pause = config.flush_interval_ms / 1000
            self.replay = Replay(self._spool, exporter, batch_sizes(config)[0], pause)

    def start(self, flow: EventFlow, client: object) -> None:
        """Begin with `flow`, in a new client and in a forked child's copy of it.

        While the sender has events of the client's, it has to keep the client alive: those who handle forks and the
        exit find clients through weak references.
        """
        self.flow = flow
        self._client: object = client if flow.lifecycle.is_open else None
        self._diagnostics.reset()
        self.report = ExportReport(self._diagnostics)
        self.is_degraded = False
        self.usual_seconds = 0.0
        self._preempted = False
        self.account = self._open_account(client)
        self._user = object()
        self._threads: SenderThreads | None = None
        if flow.lifecycle.is_open:
            self._threads = self._attach()

    def after_fork_in_child(self) -> None:
        """The spool's files and locks are the parent's."""
        if self._spool is not None and self.replay is not None:
            self._spool.after_fork_in_child()
            self.replay.after_fork_in_child()

    # Threads.

    @property
    def has_threads(self) -> bool:
        """Whether batches are sent. Without threads there is nothing to wait for."""
        return self._threads is not None

    @never_raises(_no_threads)
    def _attach(self) -> SenderThreads | None:
        """The threads that send; None where none can be started, until the next flush tries again."""
        if not prefork.threads_may_start():
            return None
        threads = sender.attach(self._user)
        if self.replay is not None:
            threads.wake(self.replay)
        return threads

    def start_threads(self) -> None:
        """Attach to the threads, unless that is done."""
        if self._threads is None and self.flow.lifecycle.is_open:
            self._threads = self._attach()

    def wake(self) -> None:
        """Have the sender ask `next_send`. Reentrant, never blocks."""
        if self._threads is not None:
            self._threads.wake(self)

    def wake_if_queued(self) -> None:
        """`wake`, unless the queue is empty: the sender need not ask then, nor wait for a lock that is held here."""
        if self.flow.queue.events:
            self.wake()

    def run_soon(self, task: Callable[[], object]) -> bool:
        """Run `task` on a sender's thread; False where there is none. Reentrant, never blocks."""
        threads = self._threads
        if threads is None or not self.flow.lifecycle.is_open:
            return False
        threads.run_soon(task)
        return True

    def detach(self, deadline: float) -> None:
        """Unregister from the threads. The last client waits for their end, until `deadline`."""
        if self._threads is not None:
            self._threads.wake(self)  # `next_send` answers None
            sender.detach(self._user, self._threads, deadline)
        self._client = None

    # Sending.

    def next_send(self, now: float) -> float | None:
        """See `Sendable`."""
        return self.flow.next_send(now)

    def send_batch(self) -> None:
        """See `Sendable`."""
        flow = self.flow
        self._preempted = False
        batch, deadline = flow.take_batch()
        if not batch:
            return
        began = time.monotonic()
        logs: Sequence[Any] = batch
        result = ExportResult(ExportOutcome.FAILED)
        try:
            logs = self._prepare(batch)
            flow.logs_built(logs)
            result = safe_export(self.exporter, logs, deadline, flow.account.errors)
        except (
            BaseException
        ) as error:  # such as a SystemExit of the exporter's: it ends nothing in this thread
            flow.account.errors.increment()
            result = failed_export(error)
            raise
        finally:
            seconds = time.monotonic() - began
            accounts.exported(self.account, seconds, result)
            self._returned(result, result.batch_outcome(logs), seconds)

    def preempt(self, long_waits_only: bool) -> None:
        """See `Sendable`."""
        self._preempted = True
        preempt(self.exporter, long_waits_only, self.flow.account.errors)

    def _returned(self, result: ExportResult, batch: BatchOutcome, seconds: float) -> None:
        flow, outcome, preempted = self.flow, result.outcome, self._preempted
        unsent = flow.batch_returned(batch, result, preempted=preempted)
        if unsent is None:
            return
        cut_short = preempted and outcome is ExportOutcome.CANCELLED
        self.is_degraded = outcome is ExportOutcome.FAILED or cut_short or seconds > PROMPT_SECONDS
        if not batch.unsent:
            self.usual_seconds = seconds
        # Before the barriers open: a caller who has waited for this batch may ask for the last failure at once.
        self.report.exported(result, batch, requeued=unsent is Unsent.REQUEUED)
        if unsent is Unsent.TO_SPOOL:
            flow.batch_spooled(batch, result, self.to_spool(batch.unsent))
        self.report.dropped(flow.account.drops())
        flow.open_reached_barriers()

    def to_spool(self, events: Sequence[Event]) -> int:
        """Write down what could not be delivered. Does I/O: not under the lock.

        Returns:
            How many of the events are in the spool.
        """
        if self._spool is None or self.replay is None or not events:
            return 0
        spooled = self._spool.append(logs_of(events))
        if spooled and self._threads is not None:
            self.replay.look_soon()
            self._threads.wake(self.replay)
        return spooled

    # Waiting until events are finished.

    def send_all_now(self) -> None:
        """Have all queued events sent without delay. A client that closes does so already."""
        if self.flow.lifecycle.is_open:
            self.start_threads()
            self.flow.flush_all()
            self.wake_if_queued()

    def request_flush(self, notify: Callable[[], None] | None = None) -> Barrier:
        """Have all queued events sent without delay.

        Returns:
            The barrier for these events, which calls `notify` when it is reached.
        """
        self.send_all_now()
        barrier = self.flow.raise_barrier(notify)
        self.flow.open_reached_barriers()
        return barrier

    def wait_at(self, barrier: Barrier, deadline: float | None) -> bool:
        """Wait until `deadline` (`time.monotonic()`) for a barrier; not at all without threads.

        Returns:
            Whether it was reached.
        """
        try:
            if self._threads is None:
                return barrier.reached.is_set()
            with released(self.flow.lock):
                return barrier.reached.wait(None if deadline is None else deadline - time.monotonic())
        finally:
            self.flow.barriers.lower(barrier)

    def wait_for_batch_in_flight(self, deadline: float) -> None:
        """Wait until `deadline` for the batch in flight, if there is one."""
        barrier = self.flow.raise_in_flight_barrier()
        self.flow.open_reached_barriers()
        self.wait_at(barrier, deadline)

    def wait_for_replay(self, deadline: float) -> bool:
        """Wait until `deadline` for the replay to stop.

        Returns:
            Whether it has stopped, or there is none.
        """
        if self.replay is None:
            return True
        with released(self.flow.lock):
            return self.replay.wait_closed(deadline)

    def sends_nothing(self) -> bool:
        """Whether no event can be sent any more: there are no threads, or the interpreter ends and locks are unsafe."""
        return sys.is_finalizing() or self.flow.lifecycle.is_unable

    # The account.

    def stats(self) -> ClientStats:
        """The current counters."""
        return self.account.stats()

    def _open_account(self, client: object) -> ClientAccount:
        """A new account, in a new client and in a forked child's copy of it."""
        exporter, replay = self.exporter, self.replay
        guarded = exporter if isinstance(exporter, CircuitBreakerTelemetryExporter) else None
        account = ClientAccount(
            Watched(self._host, name_of_exporter(exporter)),
            self.flow,
            exporter_errors=None if guarded is None else guarded.error_counter,
            breaker=None if guarded is None else guarded.breaker,
            spool=self._spool,
            replayed=None if replay is None else replay.counts,
            diagnostics=self._diagnostics,
        )
        if replay is not None:
            replay.observe = partial(accounts.exported, account)
        if self._enabled:
            accounts.add(client, account)
        return account
