"""The package's costs beside the peers', as ratios; `make bench` runs it.

    python benchmarks/run.py [--quick] [--check] [--json FILE] [--docs FOLDER] [--systems NAME ...]

This pipeline, the telemetry client of `databricks-sql-connector` and OpenTelemetry's batch log processor do the same
work in one run and deliver it to the same null server, a separate process. Each measurement has a fresh process. Each
round measures all systems and begins with another one. Times depend on the machine and the moment, so the claims in
`report.py` are ratios within a round.
"""

from __future__ import annotations

import argparse
import gzip as gzip_module
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import chart
import report
from report import GZIP, IN_USE, READY
from systems import ALL, CONNECTOR, OPENTELEMETRY, OURS, Settings, load

HERE: Final = Path(__file__).resolve().parent
CONNECTIONS: Final = (1, 10, 100, 1000)
PRODUCERS: Final = (1, 2, 4, 8, 16)
PACKAGES: Final = {CONNECTOR: "databricks.sql", OPENTELEMETRY: "opentelemetry.sdk"}
IMPORTS: Final = {
    OURS: "import adbc_telemetry",
    OURS + IN_USE: "from adbc_telemetry import DatabricksTelemetryExporter, TelemetryClient",
    CONNECTOR: "from databricks.sql.telemetry.telemetry_client import TelemetryClient",
    OPENTELEMETRY: "from opentelemetry.sdk._logs import LoggerProvider\n"
    "from opentelemetry.sdk._logs.export import BatchLogRecordProcessor\n"
    "from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter",
}
BEGIN, END = "<!-- figures: begin, by benchmarks/run.py -->", "<!-- figures: end -->"


@dataclass(frozen=True)
class Size:
    """The amount of work per measurement."""

    rounds: int
    caller_events: int
    delivered_events: int
    wire_events: int
    queued_events: int
    thread_events: int
    imports: int
    other_events: int
    """For figures without a claim."""
    sweep_events: int
    """0: no sweep."""


FULL: Final = Size(
    rounds=5,
    caller_events=20_000,
    delivered_events=200_000,
    wire_events=10_000,
    queued_events=100_000,
    thread_events=40_000,
    imports=15,
    other_events=50_000,
    sweep_events=20_000,
)
QUICK: Final = Size(
    rounds=1,
    caller_events=2_000,
    delivered_events=5_000,
    wire_events=1_000,
    queued_events=5_000,
    thread_events=4_000,
    imports=3,
    other_events=5_000,
    sweep_events=0,
)


def _environment() -> dict[str, str]:
    """This process's environment without the variables that turn a system off or set a proxy."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DATABRICKS_", "ADBC_", "OTEL_"))
        and name != "DO_NOT_TRACK"
        and not name.lower().endswith("_proxy")
    }


def measure(measurement: str, system: str, **arguments: Any) -> Any:
    """Run `measure.py` in its own process; returns its figures."""
    done = subprocess.run(
        [sys.executable, str(HERE / "measure.py"), measurement, system, json.dumps(arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=_environment(),
    )
    if done.returncode:
        raise SystemExit(f"{measurement} of {system} failed:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def null_server(keep: Path | None = None) -> Iterator[str]:
    """The URL of a null server."""
    options = [] if keep is None else ["--keep", str(keep)]
    with subprocess.Popen(
        [sys.executable, str(HERE / "null_server.py"), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.stdin.close()


def count_of(url: str) -> dict[str, float]:
    """The null server's counts."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/counts", timeout=10) as answer:
        return json.load(answer)  # type: ignore[no-any-return]


class Samples:
    """All rounds' values, by figure and then by system or count."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, list[float]]] = {}

    def add(self, figure: str, of: str, value: float) -> None:
        self.values.setdefault(figure, {}).setdefault(of, []).append(value)

    def add_all(self, figure: str, values: Mapping[str, float]) -> None:
        for of, value in values.items():
            self.add(figure, of, value)


def sweep(systems: list[str], url: str, events: int) -> tuple[dict[str, Settings], list[dict[str, Any]]]:
    """Each system's best settings, by events delivered per second."""
    best: dict[str, Settings] = {}
    tried: list[dict[str, Any]] = []
    for name in systems:
        system: Any = load(name)
        best[name] = system.BEST
        if not events:
            continue
        results: list[tuple[float, Settings]] = []
        for candidate in system.CANDIDATES:
            many = 5 * events if name == OURS else events  # otherwise ours ends too soon to measure
            figures = measure("delivery", name, url=url, events=many, settings=candidate)
            results.append((figures["events_per_s"], candidate))
            tried.append(
                {"system": name, "settings": candidate, "events_per_s": round(figures["events_per_s"])}
            )
        best[name] = max(results, key=lambda result: result[0])[1]
    return best, tried


def rounds(systems: list[str], url: str, size: Size, best: Mapping[str, Settings], samples: Samples) -> None:
    """Measure times: the systems take turns, and each round begins with another system."""
    for number in range(size.rounds):
        turn = [systems[(number + index) % len(systems)] for index in range(len(systems))]
        _say(f"round {number + 1} of {size.rounds}")
        for name in turn:
            figures = measure("caller", name, url=url, events=size.caller_events, settings=best[name])
            samples.add("caller", name, figures["caller"] / 1e3)
            if name == CONNECTOR:
                samples.add("caller at once", name, figures["caller at once"] / 1e3)
        for name in turn:
            figures = measure("delivery", name, url=url, events=size.delivered_events, settings=best[name])
            samples.add("events_per_s", name, figures["events_per_s"])
            samples.add("cpu_us", name, figures["cpu_us"])
        options = {"url": url, "events": size.other_events, "settings": best[OURS]}
        for what, option in ((READY, {"ready": True}), (GZIP, {"gzip": True})):
            figures = measure("delivery", OURS, **options, **option)
            samples.add("events_per_s", OURS + what, figures["events_per_s"])
            samples.add("cpu_us", OURS + what, figures["cpu_us"])
        samples.add_all("enqueue", measure("enqueue", OURS, url=url, events=size.caller_events))
        for prefix, counts, figures in (
            (
                "connections",
                CONNECTIONS,
                measure(
                    "connections",
                    OURS,
                    url=url,
                    events=size.caller_events // 2,
                    counts=_turned(CONNECTIONS, number),
                ),
            ),
            (
                "threads",
                PRODUCERS,
                measure(
                    "threads",
                    OURS,
                    url=url,
                    events=size.thread_events,
                    counts=_turned(PRODUCERS, number),
                    settings=best[OURS],
                ),
            ),
        ):
            for figure, by_count in figures.items():
                unit = 1e3 if figure == "caller" else 1
                samples.add_all(
                    f"{prefix} {figure}", {str(count): by_count[str(count)] / unit for count in counts}
                )
        samples.add_all("stages", measure("stages", OURS, url=url, events=size.caller_events // 2))


def _turned(counts: tuple[int, ...], number: int) -> list[int]:
    """The counts in ascending and descending order, by turns."""
    return list(counts if number % 2 == 0 else reversed(counts))


def sizes(systems: list[str], size: Size, best: Mapping[str, Settings], samples: Samples) -> None:
    """Measure sizes, which do not vary: bytes on the wire and in memory."""
    _say("bytes")
    for name in systems:
        for gzip in (False, True) if name != CONNECTOR else (False,):
            with tempfile.TemporaryDirectory() as folder, null_server(Path(folder)) as url:
                measure("wire", name, url=url, events=size.wire_events, settings=best[name], gzip=gzip)
                seen = count_of(url)
                bodies = [path.read_bytes() for path in Path(folder).iterdir()]
            arrived = sum(_events_in(name, gzip_module.decompress(body) if gzip else body) for body in bodies)
            if arrived != size.wire_events:
                raise SystemExit(f"{name} sent {arrived} of {size.wire_events} events")
            total = seen["head_bytes"] + seen["body_bytes"]
            samples.add("wire", name + (GZIP if gzip else ""), total / size.wire_events)
        samples.add("memory", name, measure("memory", name, events=size.queued_events)["memory"])


def _events_in(system: str, body: bytes) -> int:
    if system == OPENTELEMETRY:
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

        request = ExportLogsServiceRequest.FromString(body)
        return sum(
            len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs
        )
    return len(json.loads(body)["protoLogs"])


def imports(systems: list[str], count: int, samples: Samples) -> None:
    """Measure a fresh interpreter's time with the import, less that without it, alternately."""
    _say("imports")
    codes = {name: code for name, code in IMPORTS.items() if name.partition(",")[0] in systems}
    codes = {"": "pass", **codes}
    times: dict[str, list[float]] = {name: [] for name in codes}
    for number in range(-1, count):  # the first one writes the bytecode and does not count
        for name, code in codes.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env=_environment())
            if number >= 0:
                times[name].append(time.perf_counter() - started)
    empty = statistics.median(times.pop(""))
    for name, values in times.items():
        for value in values:
            samples.add("import", name, (value - empty) * 1e3)


def about(systems: list[str]) -> dict[str, Any]:
    """The machine, and the versions of the systems."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "machine": {
            "cores": cores,
            "python": python,
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {name: metadata.version(name) for name in systems},
    }


def _significant(value: float) -> float:
    """The value in five digits; more would be noise."""
    return float(f"{value:.5g}")


def write_docs(run: Mapping[str, Any], folder: Path) -> None:
    """Write `performance.json`, the chart, and the tables between the markers in `performance.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "performance.json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    chart.draw(run, folder / "performance.svg")
    page = folder / "performance.md"
    text = page.read_text(encoding="utf-8") if page.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{report.tables(run)}\n\n{END}{after}", encoding="utf-8")


def _say(what: str) -> None:
    print(f"{what} ...", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="one short round without a sweep, as a smoke test"
    )
    parser.add_argument("--rounds", type=int, help="how many rounds (five)")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a ratio is missed")
    parser.add_argument("--json", type=Path, help="write the run to this file")
    parser.add_argument("--docs", type=Path, help="write the run, its tables and its chart to this folder")
    parser.add_argument(
        "--systems", nargs="+", choices=ALL, default=list(ALL), help="without the peers, there are no claims"
    )
    arguments = parser.parse_args()

    systems = [name for name in ALL if name in {OURS, *arguments.systems}]
    absent = [name for name in systems if name != OURS and not _is_installed(PACKAGES[name])]
    if absent:
        parser.error(f"not installed: {', '.join(absent)}; `make bench` installs them into .bench-venv")
    complete = systems == list(ALL)
    if not complete and (arguments.check or arguments.docs):
        parser.error("--check and --docs need all systems")

    size = QUICK if arguments.quick else FULL
    if arguments.rounds:
        size = Size(**{**vars(size), "rounds": arguments.rounds})
    samples = Samples()
    with null_server() as url:
        _say("settings")
        best, tried = sweep(systems, url, size.sweep_events)
        before, started = count_of(url), time.monotonic()
        rounds(systems, url, size, best, samples)
        busy = (count_of(url)["cpu_seconds"] - before["cpu_seconds"]) / (time.monotonic() - started)
    sizes(systems, size, best, samples)
    imports(systems, size.imports, samples)

    run = {
        **about(systems),
        "rounds": size.rounds,
        "sizes": vars(size),
        "settings": {name: dict(settings) for name, settings in best.items()},
        "sweep": tried,
        "null_server_busy": _significant(busy),
        "samples": {
            figure: {of: [_significant(value) for value in values] for of, values in by.items()}
            for figure, by in samples.values.items()
        },
    }
    print(report.tables(run))
    if arguments.json:
        arguments.json.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    if arguments.docs:
        write_docs(run, arguments.docs)
    if arguments.check and (claims := report.missed(run)):
        raise SystemExit("missed: " + "; ".join(claims))


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    main()
