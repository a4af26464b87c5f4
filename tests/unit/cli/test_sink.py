"""The commands of a fleet: what they refuse, and how they end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("confluent_kafka")
pytest.importorskip("deltalake")
pytest.importorskip("starlette")

from adbc_telemetry.cli import main

TO = ["--to", "table"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["collect", "--sink", "kafka://one", "--port", "0"], "no address of a Kafka topic"),
        (["collect", "--sink", "kafka://one/t", "--store", "folder"], "not allowed with argument"),
        (["collect", "--kafka-config", "linger.ms=1"], "of use with --sink only"),
        (["collect", "--sink", "kafka://one/t", "--kafka-config", "acks=1"], "acks is not for users"),
        (
            ["collect", "--sink", "kafka://one/t", "--port", "0", "--kafka-config", "no.such=1"],
            "does not take the setting no.such",
        ),
        (["sink", "--from", "somewhere", *TO], "no address of a Kafka topic"),
        (
            ["sink", "--from", "kafka://one/t", *TO, "--kafka-config", "group.id=g"],
            "group.id is not for users",
        ),
        (["sink", "--from", "kafka://one/t", *TO, "--storage-option", "x"], "is not KEY=VALUE"),
        (["sink", "--from", "kafka://one/t"], "required: --to"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_sink_without_a_broker_ends_by_a_signal_with_its_account(
    number: signal.Signals, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "adbc_telemetry", "sink"]
    command += ["--from", "kafka://127.0.0.1:1/t", "--to", str(tmp_path / "table")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("writing kafka://127.0.0.1:1/t into ")
            process.send_signal(number)
            told, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert told.startswith("0 events written, 0 duplicates left out")
