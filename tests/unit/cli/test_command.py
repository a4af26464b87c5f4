"""The command, as a process of its own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("starlette")

import urllib3  # noqa: E402

import adbc_telemetry  # noqa: E402
from adbc_telemetry import cli  # noqa: E402
from support.waiting import wait_until  # noqa: E402

TIMEOUT = 30.0
COMMAND = [sys.executable, "-m", "adbc_telemetry"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], TIMEOUT)
    assert readable, "the collector said nothing in time"
    return process.stdout.readline()


@contextmanager
def collecting(store: Path, *options: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A collector's process and its URL; what is left of it in the end is killed."""
    process = subprocess.Popen(
        [*COMMAND, "collect", "--port", "0", "--store", str(store), *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            line = first_line(process)
            match = re.fullmatch(r"collecting on (http://127\.0\.0\.1:\d+) into (.*)\n", line)
            assert match, line
            assert match[2] == str(store)
            yield process, match[1]
        finally:
            process.kill()


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> None:
    process.send_signal(number)
    assert process.wait(TIMEOUT) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""


def send(url: str, count: int = 1) -> int:
    error = {"session_id": "s", "error_info": {"error_name": "DataError"}}
    return send_logs(
        url,
        [
            {"frontend_log_event_id": str(uuid.uuid4()), "entry": {"sql_driver_log": error}}
            for _ in range(count)
        ],
    )


def send_logs(url: str, logs: list[object]) -> int:
    answer = urllib3.request(
        "POST",
        f"{url}/telemetry-unauth",
        json={"uploadTime": 1, "items": [], "protoLogs": [json.dumps(log) for log in logs]},
        timeout=TIMEOUT,
        retries=False,
    )
    return answer.status


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "telemetry"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_collect_runs_until_a_signal_and_leaves_parquet_files(store: Path, number: int) -> None:
    with collecting(store) as (process, url):
        assert send(url, 3) == 200
        end(process, number)
    assert list((store / "journal").iterdir()) == []
    found = duckdb.execute(f"SELECT count(*) FROM '{store}/events/**/*.parquet'").fetchall()
    assert found == [(3,)]


def test_an_answer_means_that_the_logs_survive_a_crash(store: Path) -> None:
    with collecting(store) as (process, url):
        assert send(url, 3) == 200
        process.kill()
        assert process.wait(TIMEOUT) == -signal.SIGKILL
    assert json.loads(run("report", store, "--json").stdout)["events"] == 3


def test_collect_goes_on_with_the_same_store(store: Path) -> None:
    for _ in range(2):
        with collecting(store) as (process, url):
            assert send(url) == 200
            end(process)
    assert json.loads(run("report", store, "--json").stdout)["events"] == 2


def test_an_idle_connection_does_not_hold_up_the_end(store: Path) -> None:
    with collecting(store) as (process, url):
        pool = urllib3.connection_from_url(url, timeout=TIMEOUT)
        assert pool.request("GET", "/healthz").status == 200
        began = time.monotonic()
        end(process)
        assert time.monotonic() - began < 5
        pool.close()


def test_a_second_interrupt_cuts_off_the_request_in_flight(store: Path) -> None:
    def refuses(port: int) -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), TIMEOUT).close()
        except ConnectionRefusedError:
            return True
        return False

    with collecting(store) as (process, url):
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
            connection.sendall(
                b"POST /telemetry-ext HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
            )
            assert connection.recv(100).startswith(b"HTTP/1.1 100"), (
                "the collector does not wait for the body"
            )
            process.send_signal(signal.SIGINT)
            wait_until(lambda: refuses(port))
            assert process.poll() is None
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(TIMEOUT) == 0
            assert time.monotonic() - began < 5


def test_the_maintenance_switch_can_be_given(store: Path, tmp_path: Path) -> None:
    switch = tmp_path / "down"
    with collecting(store, "--unavailable-while", switch) as (process, url):
        assert send(url) == 200
        switch.touch()
        assert send(url) == 503
        switch.unlink()
        assert send(url) == 200
        end(process)


def test_report_prints_tables_or_json(store: Path) -> None:
    with collecting(store) as (process, url):
        send(url, 2)
        end(process)
    tables = run("report", store)
    assert (tables.returncode, tables.stderr) == (0, "")
    assert "DataError" in tables.stdout
    assert "p95 ms" in tables.stdout
    report = json.loads(run("report", store, "--json").stdout)
    assert (report["events"], report["errors"], report["sessions"]) == (2, 2, 1)


def test_report_reads_a_running_collector_by_its_url_and_by_its_folder(store: Path) -> None:
    with collecting(store) as (process, url):
        send(url, 2)
        for source in (url, url + "/", store):
            assert json.loads(run("report", source, "--json").stdout)["events"] == 2
        end(process)


def test_a_second_collector_on_the_same_store_is_told_why_not(store: Path) -> None:
    with collecting(store) as (process, _):
        second = run("collect", "--port", "0", "--store", store)
        assert (second.returncode, second.stdout) == (2, "")
        assert second.stderr == (
            f"adbc-telemetry: {store} is in use by another collector; stop that one or give another folder.\n"
        )
        end(process)


def test_a_second_collector_on_the_same_port_is_told_why_not(store: Path, tmp_path: Path) -> None:
    with collecting(store) as (process, url):
        second = run("collect", "--port", url.rpartition(":")[2], "--store", tmp_path / "other.duckdb")
        assert (second.returncode, second.stdout) == (2, "")
        assert "--port" in second.stderr
        end(process)


@pytest.mark.parametrize(
    "command", [["collect", "--port", "0", "--store"], ["report"], ["serve", "--port", "0"]]
)
def test_a_file_that_is_not_a_store_ends_with_a_sentence(store: Path, command: list[str]) -> None:
    store.write_bytes(b"hello" * 1000)
    result = run(*command, store)
    assert result.returncode == 2
    assert result.stderr == (
        f"adbc-telemetry: {store} is not a folder, as a store is; give a folder that is new, empty or a store.\n"
    )
    assert store.read_bytes() == b"hello" * 1000


def test_report_on_nothing_ends_with_a_sentence(store: Path) -> None:
    result = run("report", store)
    assert result.returncode == 2
    assert "does not exist" in result.stderr
    assert not store.exists()


def test_report_on_a_collector_that_is_not_there_ends_with_a_sentence(store: Path) -> None:
    with collecting(store) as (process, url):
        end(process)
    result = run("report", url)
    assert result.returncode == 2
    assert result.stderr.startswith(f"adbc-telemetry: no collector answers at {url}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "the following arguments are required: COMMAND; see: adbc-telemetry --help"),
        (["--nonsense"], "the following arguments are required: COMMAND; see: adbc-telemetry --help"),
        (["report", "a", "b"], "unrecognized arguments: b; see: adbc-telemetry --help"),
        (["collect", "--port"], "argument --port: expected one argument; see: adbc-telemetry collect --help"),
        (
            ["collect", "--port=-1"],
            "argument --port: '-1' is no port from 0 to 65535; see: adbc-telemetry collect --help",
        ),
        (
            ["collect", "--port=65536"],
            "argument --port: '65536' is no port from 0 to 65535; see: adbc-telemetry collect --help",
        ),
    ],
)
def test_wrong_arguments_end_with_a_sentence(arguments: list[str], sentence: str) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"adbc-telemetry: {sentence}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["collect", "--port=x"]])
def test_a_word_that_is_not_known_ends_with_a_sentence(arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    assert line.startswith("adbc-telemetry: ")
    assert line.endswith(" --help")


def script_of_the_installation() -> list[str]:
    return [str(Path(sys.executable).with_name("adbc-telemetry"))]


@pytest.mark.parametrize("way", ["module", "script"])
def test_the_version_is_told_by_module_script_and_metadata_alike(way: str) -> None:
    command = COMMAND if way == "module" else script_of_the_installation()
    if way == "script" and not Path(command[0]).exists():
        pytest.skip("installed without its script")
    result = subprocess.run(
        [*command, "--version"], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"adbc-telemetry {adbc_telemetry.__version__}\n"
    assert adbc_telemetry.__version__ == importlib.metadata.version("adbc-telemetry")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("command", [["report"], ["report", "--json"], ["collect", "--port=0", "--store"]])
def test_output_that_cannot_be_written_ends_with_a_sentence(store: Path, command: list[str]) -> None:
    with collecting(store) as (process, _):
        end(process)
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*COMMAND, *command, str(store)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert result.returncode == 2
    assert result.stderr == (
        "adbc-telemetry: cannot write to standard output: No space left on device; send it elsewhere.\n"
    )


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_report_whose_reader_has_left_is_done(store: Path, options: list[str]) -> None:
    with collecting(store) as (process, _):
        end(process)
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [*COMMAND, "report", str(store), *options],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_report_can_be_read_whatever_encoding_the_terminal_has(store: Path, options: list[str]) -> None:
    with collecting(store) as (process, url):
        driver = {"session_id": "s", "error_info": {"error_name": "Überlauf"}}
        log = {"frontend_log_event_id": str(uuid.uuid4()), "entry": {"sql_driver_log": driver}}
        assert send_logs(url, [log]) == 200
        end(process)
    result = subprocess.run(
        [*COMMAND, "report", str(store), *options],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        timeout=TIMEOUT,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert ("Überlauf".encode() if options else b"?berlauf") in result.stdout


def test_a_defect_of_the_command_does_not_pass_for_a_failed_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def defective(options: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setitem(cli._COMMANDS, "report", cli._COMMANDS["report"]._replace(run=defective))
    assert cli.main(["report"]) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["duckdb", "prometheus_client", "rich", "starlette", "uvicorn"])
def test_without_the_extra_the_command_says_what_to_install(missing: str) -> None:
    script = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from adbc_telemetry.cli import main; sys.exit(main(['report']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert result.returncode == 2
    assert "install adbc-telemetry[collector]" in result.stderr
    assert "Traceback" not in result.stderr


def test_help_needs_no_extra_and_loads_none() -> None:
    script = (
        "import sys; from adbc_telemetry import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "extras = {'starlette', 'uvicorn', 'duckdb', 'numpy', 'rich', 'urllib3'}\n"
        "sys.exit(bool(extras & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=TIMEOUT, check=False)
    assert result.returncode == 0, result.stderr


def test_the_default_port_is_fixed_so_that_senders_can_be_told() -> None:
    options = cli._parser().parse_args(["collect"])
    assert (options.host, options.port, options.store) == ("127.0.0.1", 8317, "telemetry")
