"""The connector's own telemetry and this package's pipeline, side by side: one collector, the same program.

    python compare.py [--cap SECONDS] [--rounds N] [--json]

It prints, in Markdown or as JSON: how the events of both differ, field by field, with the reason; and what users of the
connector's telemetry reported, measured on both. It ends with 1 where a difference has no reason.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from warehouse import warehouse

HERE: Final = Path(__file__).parent
CLIENTS: Final = ("own", "ours")

OWN, OURS, BOTH = "only the connector's", "only ours", "both, and they differ"

_USERS: Final = "the user's: told where `attach(allowed=...)` names it"
_ONE_DECISION: Final = "follows from the mechanism: one decision for all three"

REASONS: Final[Mapping[tuple[str, str], str]] = {
    (OWN, "driver_connection_params.http_path"): _USERS,
    (OWN, "driver_connection_params.host_info"): _USERS,
    (OWN, "driver_connection_params.host_info.host_url"): _USERS,
    (OWN, "driver_connection_params.host_info.port"): "with the host, or not at all",
    (OWN, "driver_connection_params.mode"): "theirs is THRIFT where no session opens, whatever was asked for",
    (OWN, "session_id"): "theirs is `unauth_session_id` where no session opens; ours names none",
    (OURS, "driver_connection_params.auth_flow"): _ONE_DECISION,
    (OURS, "auth_type"): _ONE_DECISION,
    (
        OURS,
        "error_info.stack_trace",
    ): "one word of a fixed list; theirs is a message, which the collector drops",
    (OURS, "sql_operation"): "theirs tells no operation of a session's beginning and of a failure",
    (OURS, "sql_operation.operation_detail"): "theirs never tells the operation",
    (
        OURS,
        "sql_operation.operation_detail.operation_type",
    ): "CREATE_SESSION, and EXECUTE_STATEMENT of queries",
    (OURS, "sql_operation.operation_detail.is_internal_call"): "always told",
    (OURS, "operation_latency_ms"): "theirs tells no latency of a session's beginning and of a failure",
    (OURS, "system_configuration.process_name"): "the program's name; theirs has no such field",
    (
        BOTH,
        "driver_connection_params.socket_timeout",
    ): "theirs is that of the host's newest connection, in all events",
    (BOTH, "system_configuration.runtime_name"): "`CPython 3.11.9`, where theirs has `Python 3.11.9`",
    (
        BOTH,
        "system_configuration.os_version",
    ): "the distribution's name, where theirs has the kernel's version",
    (BOTH, "system_configuration.char_set_encoding"): "`UTF-8` as other drivers write it; theirs has `utf-8`",
}
"""Each difference that there is, and why. `allowed` is empty, as it is unless the author says otherwise."""

# On some machines there is no difference.
OF_THE_MACHINE: Final = frozenset({(BOTH, "system_configuration.os_version")})
# They differ from run to run. Whether they are there is compared.
_PASSING: Final = frozenset(
    {"operation_latency_ms", "frontend_log_event_id", "timestamp_millis", "user_agent"}
)


class Difference(NamedTuple):
    """A field that is not the same in both: who has it, and its path below the driver's log."""

    side: str
    path: str


def leaves(log: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Each field of a log with its path, messages included."""
    for name, value in log.items():
        yield path + name, None if isinstance(value, dict) else value
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{name}.")


def differences(own: Mapping[str, Any], ours: Mapping[str, Any]) -> set[Difference]:
    """How two events that tell the same differ."""
    theirs, mine = dict(leaves(own)), dict(leaves(ours))
    found = {Difference(OWN, path) for path in theirs.keys() - mine.keys()}
    found |= {Difference(OURS, path) for path in mine.keys() - theirs.keys()}
    for path in theirs.keys() & mine.keys():
        if path.rpartition(".")[2] not in _PASSING and theirs[path] != mine[path]:
            found.add(Difference(BOTH, path))
    return found


def key(log: Mapping[str, Any]) -> tuple[Any, ...]:
    """What an event tells: of two runs of one program, events with the same key tell the same."""
    operation, error = log.get("sql_operation", {}), log.get("error_info", {})
    session = log.get("session_id", "unauth_session_id")
    kind = operation.get("statement_type", "")
    return session, log.get("sql_statement_id", ""), kind, error.get("error_name", "")


def pair(
    events: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The events of both by what they tell.

    Raises:
        AssertionError: one of them tells what the other does not, or tells it more than once.
    """
    own, ours = ({key(log): log for log in events[client]} for client in CLIENTS)
    assert own.keys() == ours.keys(), sorted(map(str, own.keys() ^ ours.keys()))
    assert len(own) == len(events["own"]), "the connector tells something twice"
    assert len(ours) == len(events["ours"]), "the pipeline tells something twice"
    return [(own[each], ours[each]) for each in own]


# A collector, and a program.


@contextmanager
def collector(store: Path) -> Iterator[str]:
    """The URL of a collector that serves; the store is whole when the block ends."""
    command = [sys.executable, "-m", "adbc_telemetry", "collect", "--port", "0", "--store", str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            started = re.fullmatch(r"collecting on (\S+) into .*\n", process.stdout.readline())
            assert started, "the collector did not start"
            yield started[1]
        finally:
            process.terminate()
            process.wait(60)


def run(client: str, hostname: str) -> str:
    """Run the scenarios with a client, to their end; what they printed."""
    command = [sys.executable, str(HERE / "scenarios.py"), client, hostname]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120, check=True).stdout.strip()


def events_of(store: Path) -> dict[str, list[Mapping[str, Any]]]:
    """What each client has sent, by the name in its user agent."""
    file = store.parent / "events.jsonl"
    command = [sys.executable, "-m", "adbc_telemetry", "export", str(store), "--to", str(file)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)
    events: dict[str, list[Mapping[str, Any]]] = {client: [] for client in CLIENTS}
    for line in file.read_text(encoding="utf-8").splitlines():
        log = json.loads(line)["log"]
        log = json.loads(log) if isinstance(log, str) else log
        agent = log["context"]["client_context"].get("user_agent", "")
        client = "ours" if "(ours)" in agent else "own"
        events[client].append(log["entry"]["sql_driver_log"])
    return events


# What users of the connector's telemetry reported.


_MEASURED: Final = "measured"
"""The session of the statements whose cost is measured."""


class Cost(NamedTuple):
    """Microseconds of the caller's thread per statement: on the clock, and of the processor."""

    wall: float
    cpu: float


def caller_cost(url: str, rounds: int, statements: int = 200) -> dict[str, Cost]:
    """What the query's thread pays per statement with each client, in one run, by turns: medians of the rounds."""
    from databricks.sql.auth.common import ClientContext
    from databricks.sql.telemetry.models.enums import ExecutionResultFormat, StatementType
    from databricks.sql.telemetry.models.event import (
        DriverConnectionParameters,
        HostDetails,
        SqlExecutionEvent,
    )
    from databricks.sql.telemetry.telemetry_client import TelemetryClientFactory
    from pipeline_client import attach

    event = SqlExecutionEvent(StatementType.QUERY, True, ExecutionResultFormat.INLINE_ARROW, 0, None)
    hosts = HostDetails(host_url="host.example", port=443)
    parameters = DriverConnectionParameters("/sql/1.0/warehouses/abc", None, hosts, enable_arrow=True)
    detach = dict.fromkeys(CLIENTS, lambda: None)
    spent: dict[str, list[Cost]] = {client: [] for client in CLIENTS}
    clients: dict[str, Any] = {}
    closes: dict[str, Any] = {}
    for name in CLIENTS:
        if name == "ours":
            detach[name] = attach()
        factory = TelemetryClientFactory
        factory.initialize_telemetry_client(
            telemetry_enabled=True,
            session_id_hex=_MEASURED,
            auth_provider=None,
            host_url=url,
            batch_size=factory.DEFAULT_BATCH_SIZE,
            client_context=ClientContext(hostname=url, user_agent=name),
        )
        clients[name] = factory.get_telemetry_client(host_url=url)
        closes[name] = factory.close
        clients[name].export_initial_telemetry_log(parameters, f"({name})", session_id=_MEASURED)
    for turn in range(rounds):
        for name in CLIENTS if turn % 2 else reversed(CLIENTS):
            call = clients[name].export_latency_log
            wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
            for number in range(statements):
                call(27, event, f"{turn}-{number}", session_id=_MEASURED)
            cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
            spent[name].append(Cost(wall / statements / 1e3, cpu / statements / 1e3))
    for name in CLIENTS:
        closes[name](host_url=url)
    _wait_for_the_connector()
    detach["ours"]()
    return {
        name: Cost(*(statistics.median(each) for each in zip(*spent[name], strict=True))) for name in CLIENTS
    }


def _wait_for_the_connector() -> None:
    """Its close starts its last request and does not wait for it."""
    import threading

    for thread in threading.enumerate():
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join(30)


def time_to_end(client: str, cap: float, close_timeout_ms: int) -> str:
    """How long the close and the end of a program take where the endpoint never answers; after `cap` it is killed."""
    settings = {**os.environ, "DATABRICKS_TELEMETRY_CLOSE_TIMEOUT_MS": str(close_timeout_ms)}
    with warehouse(None) as black_hole:
        command = [sys.executable, str(HERE / "scenarios.py"), client, black_hole.hostname, "end"]
        with subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            took = float(process.stdout.readline())
            closed = time.monotonic()
            try:
                process.wait(cap)
            except subprocess.TimeoutExpired:
                process.kill()
                return f"closed after {took:.1f} s, killed {cap:.0f} s later"
    return f"closed after {took:.1f} s, ended {time.monotonic() - closed:.1f} s later"


class Results(NamedTuple):
    """What was compared and measured; the tuples and lists are of the connector's own, and of ours."""

    events: int
    differences: list[Difference]
    cost: list[Cost]
    arrived: list[int]
    ended: list[str]
    late: list[str]


def measure(folder: Path, *, cap: float, rounds: int, close_timeout_ms: int) -> Results:
    """All of it, into one collector; `folder` takes its store."""
    store, late = folder / "telemetry", []
    with collector(store) as url:
        for client in CLIENTS:
            with warehouse(url) as there:  # a new one each time, so that its ids are the same
                late.append(run(client, there.hostname))
        cost = caller_cost(url, rounds)
    events = events_of(store)
    pairs = pair(
        {each: [log for log in events[each] if log.get("session_id") != _MEASURED] for each in CLIENTS}
    )
    found = {difference for each in pairs for difference in differences(*each)}
    timed = [[log for log in events[each] if log.get("session_id") == _MEASURED] for each in CLIENTS]
    arrived = [sum("sql_statement_id" in log for log in each) for each in timed]
    with ThreadPoolExecutor() as both:
        caps = (cap, max(cap, 60))
        ended = both.map(lambda each, cap: time_to_end(each, cap, close_timeout_ms), CLIENTS, caps)
    return Results(len(pairs), sorted(found), [cost[each] for each in CLIENTS], arrived, list(ended), late)


def as_markdown(results: Results) -> str:
    """Two tables."""
    rows: dict[str, Sequence[object]] = {
        "caller's time per statement, clock": [f"{each.wall:.1f} µs" for each in results.cost],
        "caller's time per statement, processor": [f"{each.cpu:.1f} µs" for each in results.cost],
        "of these statements arrived": results.arrived,
        "an endpoint that never answers": results.ended,
        "an event after the close": results.late,
    }
    lines = [f"{results.events} events of each client arrived.", "", *reasons(results.differences)]
    lines += ["", "| | the connector's own | ours |", "| --- | --- | --- |"]
    lines += [f"| {what} | {own} | {ours} |" for what, (own, ours) in rows.items()]
    own, ours = results.cost
    return "\n".join([*lines, "", f"{own.cpu / ours.cpu:.0f} times less of the caller's processor time."])


def reasons(found: Iterable[tuple[str, str]]) -> list[str]:
    """The lines of the table of differences."""
    lines = ["| field | who tells it | why |", "| --- | --- | --- |"]
    return lines + [
        f"| `{path}` | {side} | {REASONS.get((side, path), '?')} |" for side, path in sorted(found)
    ]


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cap", type=float, default=60, help="seconds to wait for the connector's program to end"
    )
    parser.add_argument("--rounds", type=int, default=15, help="of 200 statements with each client")
    parser.add_argument("--close-timeout-ms", type=int, default=5_000, help="of ours, where nothing answers")
    parser.add_argument("--json", action="store_true")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(
            Path(folder), cap=told.cap, rounds=told.rounds, close_timeout_ms=told.close_timeout_ms
        )
    print(json.dumps(results._asdict()) if told.json else as_markdown(results))
    return 0 if REASONS.keys() >= set(results.differences) else 1


if __name__ == "__main__":
    sys.exit(main())
