"""One trace through Python and driver: a Flight SQL server, its driver in Go, and the driver's own spans."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.otlp import OtlpReceiver, ReceivedSpan, otlp_receiver
from support.process import running_python
from support.spans import Spans
from support.waiting import wait_until

flightsql = pytest.importorskip("adbc_driver_flightsql.dbapi")

ROAPI = shutil.which("roapi", path=str(Path(sys.executable).parent))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Flight SQL server with a table of cities. roapi wants to be told its ports."""
    if ROAPI is None:
        pytest.skip("the package roapi is not installed")
    table = tmp_path_factory.mktemp("roapi") / "cities.csv"
    table.write_text("city,lat\nBern,46.9\nOslo,59.9\n")
    http, flight, postgres = _free_ports(3)
    addresses = {"--addr-http": http, "--addr-flight-sql": flight, "--addr-postgres": postgres}
    options = [word for name, port in addresses.items() for word in (name, f"127.0.0.1:{port}")]
    process = subprocess.Popen(
        [ROAPI, "--table", f"cities={table}", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: process.poll() is not None or _listens(flight))
        assert process.poll() is None, "roapi has ended"
        yield f"grpc://127.0.0.1:{flight}"
    finally:
        process.kill()
        process.wait(20)


@pytest.mark.filterwarnings("ignore:Cannot disable autocommit")
def test_the_driver_refuses_the_parent_for_a_statement_and_takes_it_for_the_connection(server: str) -> None:
    spans = Spans()
    with flightsql.connect(server) as raw:
        connection = spans.follow(raw)
        told: list[dict[str, str]] = []

        class Watched:
            def __init__(self, handle: Any) -> None:
                self._handle = handle

            def set_options(self, **options: str) -> None:
                told.append(options)
                self._handle.set_options(**options)

        parent = connection._adbc_telemetry.observer._parent
        for _ in range(2):
            with connection.cursor() as cursor:
                cursor.execute("SELECT city FROM cities")
                assert cursor.fetch_arrow_table().num_rows == 2
        assert parent.is_wanted
        parent.tell(
            spans.all[-1].get_span_context(),
            type("C", (), {"adbc_connection": Watched(raw.adbc_connection)})(),
        )
    ((value,),) = (options.values() for options in told)
    assert value.split("-")[2] == f"{spans.all[-1].get_span_context().span_id:016x}"
    assert spans.names == ["SELECT", "SELECT"]
    assert spans.all[0].attributes["db.system.name"] == "other_sql"
    assert events(spans) == [["adbc.first_batch", "adbc.last_batch"]] * 2


def events(spans: Spans) -> list[list[str]]:
    return [[event.name for event in span.events] for span in spans.all]


PROGRAM = """
import sys, warnings
warnings.simplefilter("ignore")
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)

from adbc_telemetry.otel import ADBCInstrumentor
ADBCInstrumentor().instrument()

import adbc_driver_flightsql.dbapi as flightsql
with trace.get_tracer("shop").start_as_current_span("request"):
    with flightsql.connect(sys.argv[1], db_kwargs=dict(each.split("=") for each in sys.argv[2:])) as connection:
        for sql in ("SELECT city FROM cities", "SELECT lat FROM cities"):
            with connection.cursor() as cursor:
                cursor.execute(sql)
                assert cursor.fetch_arrow_table().num_rows == 2
provider.shutdown()
print("done")
"""


def _followed_by(theirs: list[tuple[str, str]], spans: list[ReceivedSpan]) -> None:
    """Assert that each statement of the program's is the parent of spans of the driver's, which are (trace, parent)."""
    (request,) = (span for span in spans if span.name == "request")
    ours = [span for span in spans if span.scope == "adbc_telemetry.otel" and span.name == "SELECT"]
    assert [span.parent_id for span in ours] == [request.span_id] * 2
    for span in ours:
        assert (request.trace_id, span.span_id) in theirs, theirs


def _run(receiver: OtlpReceiver, server: str, *options: str, **environ: str) -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        **environ,
    }
    with running_python(PROGRAM, server, *options, environ=variables) as running:
        ended = running.end(60)
    assert (ended.code, ended.stdout.strip()) == (0, "done"), ended.stderr


def test_the_spans_that_the_driver_sends_to_a_collector_are_children_of_ours(server: str) -> None:
    with otlp_receiver() as receiver:
        # The driver sends over gRPC as well, and in vain: it may try for so many milliseconds (Python: seconds).
        _run(receiver, server, OTEL_TRACES_EXPORTER="otlp", OTEL_EXPORTER_OTLP_TIMEOUT="1000")
        spans = receiver.spans
    theirs = [(span.trace_id, span.parent_id) for span in spans if span.service != "shop"]
    _followed_by(theirs, spans)


def test_the_spans_that_the_driver_writes_into_a_file_are_children_of_ours(
    server: str, tmp_path: Path
) -> None:
    with otlp_receiver() as receiver:
        exporter = "adbc.telemetry.traces_exporter=adbcfile"
        _run(receiver, server, exporter, f"adbc.telemetry.traces_folder_path={tmp_path}")
        spans = receiver.spans
    lines = [line for file in tmp_path.glob("*.jsonl") for line in file.read_text().splitlines()]
    parents = [json.loads(line)["Parent"] for line in lines]
    _followed_by([(parent["TraceID"], parent["SpanID"]) for parent in parents], spans)
