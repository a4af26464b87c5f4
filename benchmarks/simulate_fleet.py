"""A fleet as a discrete-event model: clients, collectors, Kafka, sinks, and their failures.

    python benchmarks/simulate_fleet.py                      the table of docs/fleet.md
    python benchmarks/simulate_fleet.py --processes 100000 --collectors 4 --sinks 3 --seeds 1-5
    python benchmarks/simulate_fleet.py --check              a small real run beside its model

Service times are those that `benchmarks/fleet.py` measured. The model knows nothing of the code but them and its rules:

    clients      send a request every five seconds, with the events of that time; one that fails goes to another
                 collector after a back-off, as often as it takes
    balancer     spreads requests at random; it finds out that a collector is gone after some seconds
    collectors   one core each; a request takes it for `per_request + events * per_event`, then waits for Kafka
    Kafka        acknowledges after a moment, or while its network is away not at all: 503 after eight seconds
    sinks        one core each; read what their partitions got since the last commit, then commit. When one dies, its
                 partitions wait for the group to notice, then others have them; a rebalance stops all for a moment

Of a run with more than 100,000 requests, several arrive as one, which makes waiting times longer than they are; the
table says how many.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final, NamedTuple

import simpy

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

Steps = Generator[Any, Any, None]
_MOST_ARRIVALS: Final = 100_000


class Costs(NamedTuple):
    """Measured service times in seconds; see `benchmarks/fleet.py`."""

    per_request: float = 255e-6
    per_event: float = 21e-6
    acknowledgement: float = 0.010
    sink_per_event: float = 29e-6
    commit: float = 0.25
    """Assumed, of an object store; on a local disk it is some 0.05."""


class Size(NamedTuple):
    """A fleet."""

    processes: int
    events_per_second: float
    """Of one process."""
    collectors: int
    sinks: int
    partitions: int = 48
    flush_seconds: float = 5.0
    commit_seconds: float = 10.0
    cells: int = 1
    """Only one of so many equal parts is simulated: neither collectors nor sinks know of those of other parts."""

    def cell(self) -> Size:
        """One of the equal parts."""
        return self._replace(
            processes=self.processes // self.cells,
            collectors=self.collectors // self.cells,
            sinks=self.sinks // self.cells,
            partitions=self.partitions // self.cells,
            cells=1,
        )

    @property
    def requests_per_second(self) -> float:
        """Of all processes. One without an event sends nothing."""
        return self.processes * min(1.0 / self.flush_seconds, self.events_per_second)

    @property
    def events_per_request(self) -> float:
        """On average."""
        return max(1.0, self.events_per_second * self.flush_seconds)


class Failures(NamedTuple):
    """Seconds. A mean of 0 means never."""

    collector_every: float = 600.0
    collector_away: float = 20.0
    noticed_after: float = 5.0
    sink_every: float = 600.0
    sink_away: float = 20.0
    session: float = 45.0
    rebalance: float = 4.0
    network_every: float = 900.0
    network_away: float = 30.0


NO_FAILURES: Final = Failures(collector_every=0, sink_every=0, network_every=0)


class Outcome(NamedTuple):
    """What a run shows. Times are in seconds."""

    acknowledged: list[float]
    """From a request's first attempt to its 200, for each."""
    retried: float
    """The share of requests that took more than one attempt."""
    lags: list[float]
    """From an event's arrival in Kafka to its row in the table."""
    collector_load: float
    """The share of time in which a collector's core is busy."""
    sink_load: float
    most_waiting: int
    """Events that clients held at one moment."""


class Model:
    """One run."""

    def __init__(self, size: Size, failures: Failures, costs: Costs, seed: int, seconds: float) -> None:
        self._size, self._failures, self._costs = size, failures, costs
        self._seconds = seconds
        self._chance = random.Random(seed)
        self._env = simpy.Environment()
        self._cores = [simpy.Resource(self._env) for _ in range(size.collectors)]
        self._down = [0.0] * size.collectors  # until when
        self._seen_down = [(0.0, 0.0)] * size.collectors  # from when until when the balancer leaves it out
        self._network_down = 0.0
        self._backlog: list[list[tuple[float, float]]] = [[] for _ in range(size.partitions)]
        self._alive = [True] * size.sinks
        self._owners = [number % size.sinks for number in range(size.partitions)]
        self._paused = 0.0
        self._busy_collectors = self._busy_sinks = 0.0
        self._bundle = max(1.0, size.requests_per_second * seconds / _MOST_ARRIVALS)
        self._acknowledged: list[float] = []
        self._retried = 0
        self._lags: list[float] = []
        self._waiting = 0.0
        self._most_waiting = 0.0

    def run(self) -> Outcome:
        """Simulate it."""
        failures = self._failures
        self._env.process(self._arrivals())
        for number in range(self._size.sinks):
            self._env.process(self._sink(number))
        for every, happens in (
            (failures.collector_every, self._lose_collector),
            (failures.sink_every, self._lose_sink),
            (failures.network_every, self._lose_network),
        ):
            if every:
                self._env.process(self._now_and_then(every, happens))
        self._env.run(until=self._seconds)
        return Outcome(
            self._acknowledged,
            self._retried / max(1, len(self._acknowledged)),
            self._lags,
            self._busy_collectors / self._seconds / self._size.collectors,
            self._busy_sinks / self._seconds / self._size.sinks,
            round(self._most_waiting),
        )

    def _arrivals(self) -> Steps:
        rate = self._size.requests_per_second / self._bundle
        while True:
            yield self._env.timeout(self._chance.expovariate(rate))
            self._env.process(self._request())

    def _request(self) -> Steps:
        env, costs = self._env, self._costs
        events = self._bundle * self._size.events_per_request
        began, attempts = env.now, 0
        self._waiting += events
        self._most_waiting = max(self._most_waiting, self._waiting)
        while True:
            attempts += 1
            number = self._choose_collector()
            if env.now < self._down[number]:
                yield env.timeout(self._chance.uniform(0.05, 0.4))
                continue
            with self._cores[number].request() as turn:
                yield turn
                service = self._bundle * costs.per_request + events * costs.per_event
                self._busy_collectors += service
                yield env.timeout(service)
            if env.now < self._down[number]:
                continue  # it died with the request in it
            if env.now < self._network_down:
                yield env.timeout(min(8.0, self._network_down - env.now))
                if env.now < self._network_down:
                    yield env.timeout(self._chance.uniform(5.0, 10.0))  # 503, Retry-After: 5
                    continue
            yield env.timeout(self._chance.lognormvariate(0.0, 0.5) * costs.acknowledgement)
            break
        self._backlog[self._chance.randrange(self._size.partitions)].append((env.now, events))
        self._waiting -= events
        self._retried += attempts > 1
        self._acknowledged.append(env.now - began)

    def _choose_collector(self) -> int:
        seen = [
            number
            for number, (since, until) in enumerate(self._seen_down)
            if not since <= self._env.now < until
        ]
        return self._chance.choice(seen or range(self._size.collectors))

    def _sink(self, number: int) -> Steps:
        env, costs = self._env, self._costs
        yield env.timeout(self._chance.uniform(0, self._size.commit_seconds))
        while True:
            began = env.now
            owned = [each for each, owner in enumerate(self._owners) if owner == number]
            if self._alive[number] and env.now >= self._paused and env.now >= self._network_down:
                taken = [(each, list(self._backlog[each])) for each in owned]
                events = sum(count for _, records in taken for _, count in records)
                if events:
                    service = events * costs.sink_per_event + costs.commit
                    self._busy_sinks += service
                    yield env.timeout(service)
                    if self._alive[number] and env.now >= self._paused:  # else nothing of it is committed
                        for each, records in taken:
                            del self._backlog[each][: len(records)]
                            self._lags += [env.now - arrived for arrived, _ in records]
            yield env.timeout(max(0.05, began + self._size.commit_seconds - env.now))

    def _now_and_then(self, every: float, happens: Any) -> Steps:
        while True:
            yield self._env.timeout(self._chance.expovariate(1 / every))
            self._env.process(happens())

    def _lose_collector(self) -> Steps:
        number = self._chance.randrange(self._size.collectors)
        now, failures = self._env.now, self._failures
        self._down[number] = now + failures.collector_away
        back = self._down[number] + failures.noticed_after
        self._seen_down[number] = (now + failures.noticed_after, back)
        yield self._env.timeout(0)

    def _lose_sink(self) -> Steps:
        env, failures = self._env, self._failures
        number = self._chance.randrange(self._size.sinks)
        if not self._alive[number]:
            return
        self._alive[number] = False
        self._env.process(self._notice(number))
        yield env.timeout(failures.sink_away)
        self._alive[number] = True
        self._rebalance()

    def _notice(self, number: int) -> Steps:
        yield self._env.timeout(self._failures.session)
        if not self._alive[number]:
            self._rebalance()

    def _rebalance(self) -> None:
        self._paused = self._env.now + self._failures.rebalance
        alive = [number for number, alive in enumerate(self._alive) if alive]
        if alive:
            self._owners = [alive[each % len(alive)] for each in range(self._size.partitions)]

    def _lose_network(self) -> Steps:
        away = self._chance.expovariate(1 / self._failures.network_away)
        self._network_down = max(self._network_down, self._env.now + away)
        yield self._env.timeout(0)


def simulate(
    size: Size,
    failures: Failures = NO_FAILURES,
    costs: Costs = Costs(),  # noqa: B008 - immutable
    seed: int = 1,
    seconds: float = 600.0,
) -> Outcome:
    """Run the model once."""
    return Model(size.cell(), failures, costs, seed, seconds).run()


def quantile(values: list[float], share: float) -> float:
    """A quantile of values that need no order; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def row(size: Size, failures: Failures, seeds: range, seconds: float) -> str:
    """A row of the table: the median of some seeds, and of the longest times the longest."""
    found = [simulate(size, failures, seed=seed, seconds=seconds) for seed in seeds]

    def median(of: Callable[[Outcome], float]) -> float:
        return statistics.median(map(of, found))

    cells = (
        f"{size.processes:,}",
        f"{size.processes * size.events_per_second:,.0f}",
        f"{size.requests_per_second:,.0f}",
        str(size.collectors),
        str(size.sinks),
        "yes" if failures.collector_every else "no",
        f"{median(lambda each: each.collector_load):.0%}",
        f"{median(lambda each: each.sink_load):.0%}",
        f"{median(lambda each: quantile(each.acknowledged, 0.5)) * 1000:.0f}",
        f"{median(lambda each: quantile(each.acknowledged, 0.99)) * 1000:,.0f}",
        f"{median(lambda each: each.retried):.1%}",
        f"{median(lambda each: quantile(each.lags, 0.5)):.0f}",
        f"{max(max(each.lags, default=0.0) for each in found):.0f}",
        f"{max(each.most_waiting for each in found) * size.cells:,}",
        f"{max(1.0, size.cell().requests_per_second * seconds / _MOST_ARRIVALS):.0f}",
    )
    return "| " + " | ".join(cells) + " |"


HEADINGS: Final = (
    "processes",
    "events/s",
    "requests/s",
    "collectors",
    "sinks",
    "failures",
    "collector busy",
    "sink busy",
    "ack p50 ms",
    "ack p99 ms",
    "retried",
    "lag p50 s",
    "longest lag s",
    "most waiting",
    "as one",
)
PLAN: Final = (
    Size(10_000, 0.2, collectors=2, sinks=2, partitions=12),
    Size(100_000, 0.2, collectors=12, sinks=3, partitions=24),
    Size(1_000_000, 0.2, collectors=120, sinks=12, partitions=96, cells=6),
)


def check(seconds: float = 30.0, rate: float = 40.0, batch: int = 20) -> int:
    """A real collector and a real sink beside their model: how busy they are, and how long events take."""
    from fleet import measure_small_run

    with tempfile.TemporaryDirectory(prefix="adbc-telemetry-check-") as folder:
        real = measure_small_run(Path(folder), rate, batch, seconds)
    size = Size(
        int(rate * 5),
        batch / 5,
        collectors=1,
        sinks=1,
        partitions=6,
        commit_seconds=real.commit_seconds,
    )
    model = simulate(size, costs=Costs(commit=0.05), seed=1, seconds=seconds * 10)
    print("| | collector busy | sink busy | ack p50 ms | lag p50 s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    print(
        f"| model | {model.collector_load:.1%} | {model.sink_load:.1%} | "
        f"{quantile(model.acknowledged, 0.5) * 1000:.0f} | {quantile(model.lags, 0.5):.1f} |"
    )
    print(
        f"| real | {real.collector_load:.1%} | {real.sink_load:.1%} | "
        f"{quantile(real.acknowledged, 0.5) * 1000:.0f} | {quantile(real.lags, 0.5):.1f} |"
    )
    wrong = [
        what
        for what, ours, theirs in (
            ("collector", model.collector_load, real.collector_load),
            ("sink", model.sink_load, real.sink_load),
            ("lag", quantile(model.lags, 0.5), quantile(real.lags, 0.5)),
        )
        if not theirs / 4 <= ours <= theirs * 4
    ]
    print("PASS" if not wrong else f"FAIL: {', '.join(wrong)}")
    return int(bool(wrong))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int)
    parser.add_argument("--events-per-second", type=float, default=0.2, help="of one process")
    parser.add_argument("--collectors", type=int, default=2)
    parser.add_argument("--sinks", type=int, default=2)
    parser.add_argument("--partitions", type=int, default=48)
    parser.add_argument("--seeds", default="1-3")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        return check()
    first, _, last = options.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    sizes: tuple[Size, ...] = PLAN
    if options.processes:
        sizes = (
            Size(
                options.processes,
                options.events_per_second,
                options.collectors,
                options.sinks,
                options.partitions,
            ),
        )
    print("| " + " | ".join(HEADINGS) + " |")
    print("|" + " ---: |" * len(HEADINGS))
    for size in sizes:
        for failures in (NO_FAILURES, Failures()):
            print(row(size, failures, seeds, options.seconds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
