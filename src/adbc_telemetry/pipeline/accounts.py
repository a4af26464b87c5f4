"""The accounts of all clients of this process: of those that live, and the sum of those that are gone.

They are for watching a pipeline from outside, as `otel.pipeline_metrics` does. What is counted never goes back: a
client that is closed and collected leaves its counts behind, under the endpoint and the exporter that it had.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct

from adbc_telemetry.core.diagnostics import Diagnostics
from adbc_telemetry.core.fork import renew_in_child
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.native import Lock
from adbc_telemetry.core.reentrant import AtomicCounter
from adbc_telemetry.export.base import ExportOutcome, ExportResult
from adbc_telemetry.pipeline.account import error_type_of
from adbc_telemetry.pipeline.flow import EventFlow
from adbc_telemetry.pipeline.replay import ReplayCounts
from adbc_telemetry.pipeline.spool import Spool
from adbc_telemetry.protocols import ClientStats

if TYPE_CHECKING:
    from adbc_telemetry.export.breaker import CircuitBreaker

# More endpoints than this are counted together. OpenTelemetry keeps 2,000 sets of attributes for each metric, and an
# endpoint has one for each reason of a loss.
_MOST_ENDPOINTS: Final = 250
_LONGEST_READ_SECONDS: Final = 1.0
_COUNTS: Final = tuple(name for name in ClientStats.__struct_fields__ if name != "last_failure")


class Watched(Struct, frozen=True):
    """What clients with one account are told by.

    Attributes:
        endpoint: the host or endpoint, normalised.
        exporter: the full name of the exporter's class.
    """

    endpoint: str
    exporter: str


OTHERS: Final = Watched("", "")
"""Stands for all further endpoints, where there are too many to tell them apart."""


class ClientAccount:
    """Where the events of one client are. It refers to nothing that leads to the client, so it may outlive it.

    Args:
        watched: which client it is.
        flow: the client's events.
        exporter_errors: counts the exceptions that ended in the exporter's chain; None where none do.
        breaker: the client's, if it has one.
        spool: the client's, if it has one.
        replayed: what was sent from that.
        diagnostics: knows the last failure.
    """

    def __init__(
        self,
        watched: Watched,
        flow: EventFlow,
        *,
        exporter_errors: AtomicCounter | None,
        breaker: CircuitBreaker | None,
        spool: Spool | None,
        replayed: ReplayCounts | None,
        diagnostics: Diagnostics,
    ) -> None:
        self.watched = watched
        self.breaker = breaker
        self._flow = flow
        self._exporter_errors = exporter_errors
        # The exporter may have been another client's, or is the parent's.
        self._earlier_errors = 0 if exporter_errors is None else exporter_errors.value()
        self._spool = spool
        self._replayed = replayed
        self._diagnostics = diagnostics

    @property
    def is_open(self) -> bool:
        """Whether the client takes events."""
        return self._flow.lifecycle.is_open

    @property
    def capacity(self) -> int:
        """How many events may wait."""
        return self._flow.queue.capacity

    def stats(self) -> ClientStats:
        """All counts."""
        flow, spool, replayed = self._flow, self._spool, self._replayed
        with flow.lock:
            if flow.lifecycle.is_closed:
                flow.queue.drop_all()
            further_errors = 0
            if self._exporter_errors is not None:
                further_errors += self._exporter_errors.value() - self._earlier_errors
            if spool is not None:
                further_errors += spool.errors
            if replayed is not None:
                further_errors += replayed.errors.value()
            return flow.account.stats(
                taken=flow.queue.taken,
                queued=len(flow.queue),
                in_flight=flow.in_flight.count,
                replayed=0 if replayed is None else replayed.delivered,
                spool_lost=(0 if replayed is None else replayed.refused)
                + (0 if spool is None else spool.dropped),
                further_errors=further_errors,
                last_failure=self._diagnostics.last_failure,
            )

    def undelivered(self) -> dict[str, int]:
        """How many events were rejected or failed, by `error.type`."""
        with self._flow.lock:
            return dict(self._flow.account.undelivered)


class Total(Struct, frozen=True):
    """The accounts of all clients, living and gone, that are told alike.

    Attributes:
        watched: which clients they are.
        number: of the endpoint and its exporter in this process, from 0.
        stats: the sum; without a last failure.
        undelivered: events that were rejected or failed, by `error.type`.
        capacity: how many events may wait in the open clients.
        breaker: of the open clients, which share one; None where they have none.
    """

    watched: Watched
    number: int
    stats: ClientStats
    undelivered: dict[str, int]
    capacity: int
    breaker: CircuitBreaker | None


ExportObserver: TypeAlias = Callable[[Watched, int, float, ExportResult, str | None], object]
"""Is told of each export that was tried: which client has made it, and its number (see `Total`); the seconds that it
took with all its retries; what the exporter has answered; why it has not delivered all, or None if it has. Called on a
sender's thread, without any lock: it must not block.
"""


class _Gone(Struct, frozen=True):
    stats: ClientStats
    undelivered: dict[str, int]


class Accounts:
    """The accounts of this process. Clients add themselves; `totals` tells what they come to."""

    def __init__(self) -> None:
        self.observers: tuple[ExportObserver, ...] = ()
        self._numbers: dict[Watched, int] = {}
        self._next_number = itertools.count()  # two threads get two, so that no two endpoints share one
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """The parent tells what the parent has done. The child's clients add themselves anew."""
        self._living: dict[ClientAccount, weakref.ref[object]] = {}
        self._gone: dict[Watched, _Gone] = {}
        # Held while an account moves from the living to the gone, so that each is counted once. No other lock is taken
        # inside, and a signal handler that meets it locked does without.
        self._moving = Lock()

    def add(self, client: object, account: ClientAccount) -> None:
        """Watch `account` for as long as `client` lives, and keep its counts after that."""
        self._move_gone()
        self._living[account] = weakref.ref(client)

    def totals(self) -> list[Total]:
        """What all clients come to, one total for each endpoint and exporter, in the order of their numbers."""
        self._move_gone()
        if not self._moving.acquire(timeout=_LONGEST_READ_SECONDS):
            return []
        try:
            gone = dict(self._gone)
            living = list(self._living)
        finally:
            self._moving.release()
        by_watched: dict[Watched, list[ClientAccount]] = {watched: [] for watched in gone}
        for account in living:
            by_watched.setdefault(self._bounded(account.watched), []).append(account)
        totals = [self._total(watched, each, gone.get(watched)) for watched, each in by_watched.items()]
        return sorted(totals, key=lambda total: total.number)

    def exported(self, account: ClientAccount, seconds: float, result: ExportResult) -> None:
        """Tell the observers of an export, unless the circuit was open. Costs nothing where there are none."""
        for observer in self.observers:
            if result.outcome is not ExportOutcome.DROPPED:
                self._tell(observer, account.watched, seconds, result)

    @never_raises(lambda error, *_: None)
    def _tell(self, observer: ExportObserver, watched: Watched, seconds: float, result: ExportResult) -> None:
        complete = result and not result.rejected
        watched = self._bounded(watched)
        error_type = None if complete else error_type_of(result)
        observer(watched, self._numbers[watched], seconds, result, error_type)

    def _total(self, watched: Watched, living: list[ClientAccount], gone: _Gone | None) -> Total:
        moved = [] if gone is None else [gone]
        accounts = [_Gone(account.stats(), account.undelivered()) for account in living] + moved
        opened = [account for account in living if account.is_open]
        return Total(
            watched=watched,
            number=self._numbers[watched],
            stats=_sum(each.stats for each in accounts),
            undelivered=_sum_by_name(each.undelivered for each in accounts),
            capacity=sum(account.capacity for account in opened),
            breaker=opened[-1].breaker if opened else None,
        )

    def _move_gone(self) -> None:
        """Take the accounts of clients that live no more out of the living, and keep their sum."""
        for account in [each for each, client in list(self._living.items()) if client() is None]:
            # Don't do this with the lock: it takes the client's.
            last = _Gone(account.stats(), account.undelivered())
            if not self._moving.acquire(blocking=False):
                return  # another task is at it, perhaps the one that this one has interrupted
            try:
                if self._living.pop(account, None) is not None:
                    self._keep(self._bounded(account.watched), last)
            finally:
                self._moving.release()

    def _keep(self, watched: Watched, last: _Gone) -> None:
        before = self._gone.get(watched)
        both = [last] if before is None else [before, last]
        stats = _sum(each.stats for each in both)
        self._gone[watched] = _Gone(stats, _sum_by_name(each.undelivered for each in both))

    def _bounded(self, watched: Watched) -> Watched:
        """`watched`, which has a number from now on, or `OTHERS` if there are too many."""
        if watched not in self._numbers:
            if len(self._numbers) >= _MOST_ENDPOINTS:
                watched = OTHERS
            self._numbers.setdefault(watched, next(self._next_number))
        return watched


def _sum(stats: Iterable[ClientStats]) -> ClientStats:
    stats = list(stats)
    return ClientStats(**{name: sum(getattr(each, name) for each in stats) for name in _COUNTS})


def _sum_by_name(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total


accounts: Final = Accounts()
