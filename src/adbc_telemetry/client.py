"""TelemetryClient: what happens to an event after `enqueue`.

    enqueue      appends the event to the queue, without a lock (`pipeline.queue`)
                 at the wake threshold it wakes the sender: for a first event, or a full batch
                 or it drops the event, because the queue is full or the client is closed
    sending      the sender's threads, which all hosts share, ask when the next batch is due (`pipeline.batch_timing`)
                 and export it behind the circuit breaker (`pipeline.batch_delivery`)
    after that   each event is finished: delivered, rejected, or counted as lost (`pipeline.account`)
                 or it is written to the spool, with `spool_dir`; `pipeline.replay` sends it later
                 or it is back in the queue: the circuit is open, or the export was preempted for another host
    flush        waits at a barrier until the events before it are finished (`pipeline.barriers`)
    close        takes no more events, sends the rest by a deadline, counts or spools what is left (`pipeline.closing`)

`pipeline.flow` holds all events of a client under its one lock. `pipeline.lifecycle` tracks whether it is open, closing
or closed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

from adbc_telemetry.config import TelemetryConfiguration, checked_config, opted_out
from adbc_telemetry.core.fork import renew_in_child
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.uwsgi import prefork
from adbc_telemetry.export.base import AbleExporter, TelemetryExporter, checked_exporter, with_abilities
from adbc_telemetry.export.circuit_breaker import CircuitBreakerTelemetryExporter
from adbc_telemetry.export.endpoints import checked_endpoint, make_exporter
from adbc_telemetry.export.local import as_the_user_wants
from adbc_telemetry.pipeline.batch_delivery import BatchDelivery
from adbc_telemetry.pipeline.closing import Closing
from adbc_telemetry.pipeline.flow import EventFlow
from adbc_telemetry.pipeline.lifecycle import Lifecycle
from adbc_telemetry.pipeline.shutdown import close_at_exit
from adbc_telemetry.protocols import ClientStats
from adbc_telemetry.schema import TelemetryFrontendLog
from adbc_telemetry.transport.auth import Auth

_LONGEST_WAIT_SECONDS: Final = 100_000_000.0  # no lock can be waited for longer than about this


def _count_error(error: Exception, client: TelemetryClient) -> None:
    client._flow.account.errors.increment()


class TelemetryClient:
    """Queues, batches and delivers the events of one host. Thread-safe; a (async) context manager.

    Since 0.1.

    Args:
        host: an endpoint: a host, an http(s) URL, or one of the other kinds in `export.endpoints`.
        config: see `TelemetryConfiguration`. If telemetry is not enabled, or the user has opted out, the client
            takes no events and sends nothing.
        exporter: where batches go, instead of where `host` says. The client puts it behind the circuit breaker,
            unless it is one, and closes it.
        auth: returns the headers that authenticate a request; called for every request, on a sender's thread.
        tenant: whose events these are, where several tenants share a host; see `TelemetryClientManager.acquire`.

    Raises:
        ValueError: `host` or `config` makes no sense, `auth` would go over plain HTTP to another machine, or `host`
            needs an extra that is not installed.
        TypeError: an argument is of the wrong type.
    """

    def __init__(
        self,
        host: str,
        config: TelemetryConfiguration,
        *,
        exporter: TelemetryExporter | None = None,
        auth: Auth | None = None,
        tenant: object = None,
    ) -> None:
        self._config = checked_config(config)
        if exporter is not None:
            checked_exporter(exporter)
        self._host = checked_endpoint(host, auth, own_exporter=exporter is not None)
        self._enabled = config.enabled and not opted_out()
        if self._enabled:
            config, exporter = as_the_user_wants(config, exporter, auth)
            self._config = config
        chain = _chain(self._host, config, exporter, auth)
        self._delivery = BatchDelivery(self._host, config, chain, enabled=self._enabled, tenant=tenant)
        self._closing = Closing(self._delivery)
        self._start(Lifecycle(enabled=self._enabled))
        renew_in_child(self)
        if self._enabled:
            close_at_exit(self)
            if not self._delivery.has_threads:  # under uWSGI, before it forks its workers
                prefork.start_when_forked(self)

    def _start(self, lifecycle: Lifecycle) -> None:
        """Set up all mutable state, in a new client and in a forked child's copy of it."""
        self._flow = EventFlow(self._config, lifecycle)
        self._queue = self._flow.queue
        self._events = self._queue.events
        if not lifecycle.is_open:
            self._queue.refuse(counted=self._enabled)  # its wake threshold is 0, so each new event is dropped
        self._delivery.start(self._flow, self)

    def after_fork_in_child(self) -> None:
        """The parent delivers its events; the child starts with none."""
        self._delivery.after_fork_in_child()
        self._start(self._flow.lifecycle.in_forked_child())

    @property
    def host(self) -> str:
        """The host or endpoint, normalised."""
        return self._host

    @property
    def is_open(self) -> bool:
        """True until `close` is called, also while telemetry is off."""
        return not self._flow.lifecycle.is_ending

    @property
    def is_closed(self) -> bool:
        """True once a close is complete."""
        return self._flow.lifecycle.closed.is_set()

    # The way in.

    def enqueue(self, log: TelemetryFrontendLog) -> None:
        """Take the event `log`. Never blocks, never raises; from any thread, destructor or signal handler.

        With the queue full, or after `close`, the event is dropped and counted.
        """
        if log is None:
            return  # type: ignore[unreachable]  # a mistake of a caller that is not type-checked
        events = self._events
        events.append(log)
        if len(events) >= self._queue.wake_threshold:
            self._on_wake_threshold()

    enqueue_statement = enqueue  # see `events.handover.StatementReceiver`

    @never_raises(_count_error)
    def _on_wake_threshold(self) -> None:
        # The event is in the queue already. `admit` keeps it, or drops it again.
        if self._queue.admit():
            self._delivery.wake()

    # Waiting until events are finished.

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every event enqueued before this call is finished: delivered, counted as lost, or in the spool.

        Args:
            timeout: seconds to wait; None for as long as it takes (retries and the circuit breaker bound it,
                unless `circuit_open` is "retain").

        Returns:
            True when all are finished; False when the timeout came first. False at once where nothing can be sent:
            in an interpreter that allows no threads, or that has ended.
        """
        if self._delivery.sends_nothing():
            return False
        seconds = _seconds(timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        return self._delivery.wait_at(self._delivery.request_flush(), deadline)

    async def aflush(self, timeout: float | None = None) -> bool:
        """`flush` for asyncio: the loop is never blocked, and the call may be cancelled."""
        from adbc_telemetry.pipeline.asyncio_support import LoopSignal

        if self._delivery.sends_nothing():
            return False
        signal = LoopSignal()
        barrier = self._delivery.request_flush(signal.send)
        try:
            if not self._delivery.has_threads:  # none could be started, so there is nothing to wait for
                return barrier.reached.is_set()
            return await signal.wait(_seconds(timeout))
        finally:
            self._flow.barriers.lower(barrier)

    def close(self, timeout: float | None = None) -> bool:
        """Deliver what has been enqueued so far, then stop. Idempotent: a second caller waits for the first.

        Args:
            timeout: seconds that delivery may take; None for `close_timeout_ms`. What is left then is counted or
                spooled.

        Returns:
            True when every event was finished in time.
        """
        deadline = self.close_deadline(timeout)
        self._closing.begin(deadline)  # the first caller begins; every caller waits, and one of them finishes
        return self._closing.finish(deadline)

    async def aclose(self, timeout: float | None = None) -> bool:
        """`close` for asyncio: the loop is never blocked. Cancelled, it still closes, in the background."""
        from adbc_telemetry.pipeline.asyncio_support import poll_until, run_in_thread

        try:
            closed = run_in_thread(lambda: self.close(timeout), "adbc-telemetry-close")
        except RuntimeError:  # no thread can be started
            deadline = self.close_deadline(timeout)
            self._closing.begin(deadline)
            await poll_until(self._flow.is_empty, deadline)
            return self.close(0)  # no time is left to wait: only count or spool the rest
        return await closed.wait()

    def close_deadline(self, timeout: float | None = None) -> float:
        """When a close that begins now has to be over: a `time.monotonic()` value.

        Args:
            timeout: seconds that the close may take; None for `close_timeout_ms`.

        Returns:
            The deadline.
        """
        seconds = _seconds(timeout)
        return time.monotonic() + (self._config.close_timeout_ms / 1000 if seconds is None else seconds)

    def stats(self) -> ClientStats:
        """The current counters."""
        return self._delivery.stats()

    # For the manager, for uWSGI, and for the end of the process (`pipeline.shutdown`).

    def run_soon(self, task: Callable[[], object]) -> bool:
        """Run `task` on a sender's thread; False where there is none. Reentrant, never blocks."""
        return self._delivery.run_soon(task)

    def start_sending(self) -> None:
        """Send what has been enqueued before threads were allowed; see `core.uwsgi`."""
        self._delivery.start_threads()
        self._delivery.wake_if_queued()

    def begin_close(self, deadline: float) -> None:
        """Take no more events, and have the rest sent by `deadline`; returns at once."""
        self._closing.begin(deadline)

    def finish_close(self) -> None:
        """Wait for the close that has begun, until its own deadline, and count or spool the rest."""
        self._closing.finish()

    def begin_exit(self, deadline: float) -> None:
        """The process ends: have all queued events sent by `deadline`, and later ones at once; returns at once."""
        self._closing.begin_exit(deadline)

    def finish_exit(self, deadline: float) -> bool:
        """Wait for that, until `deadline`; True where the client may stay open until the process is gone."""
        return self._closing.finish_exit(deadline)

    def begin_at_exit(self) -> None:
        """This client is made while the process ends: send each event at once."""
        self._closing.begin_at_exit()

    def __enter__(self) -> TelemetryClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> TelemetryClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _seconds(timeout: object) -> float | None:
    """The timeout, clamped to what a lock accepts. A value that is not a number counts as None."""
    if not isinstance(timeout, (int, float)) or timeout != timeout:
        return None
    return min(max(0.0, timeout), _LONGEST_WAIT_SECONDS)


def _chain(
    host: str, config: TelemetryConfiguration, exporter: TelemetryExporter | None, auth: Auth | None
) -> AbleExporter:
    inner = exporter if exporter is not None else make_exporter(host, config, auth)
    if isinstance(inner, CircuitBreakerTelemetryExporter) or not config.circuit_breaker_enabled:
        return with_abilities(inner)
    return CircuitBreakerTelemetryExporter(inner, host, config)
