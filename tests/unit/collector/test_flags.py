"""Feature flags out of a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("starlette")

from adbc_telemetry.collector.flags import FlagsError, FlagsFile


def flags_of(file: FlagsFile) -> dict[str, str]:
    return {flag.name: flag.value for flag in file.current().flags}


def test_names_and_values_become_flags_of_strings(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    path.write_text('{"a": true, "b": "x", "c": 5, "d": 1.5, "e": false}')
    assert flags_of(FlagsFile(path)) == {"a": "true", "b": "x", "c": "5", "d": "1.5", "e": "false"}


def test_the_service_s_own_form_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    path.write_text('{"flags": [{"name": "a", "value": "true"}], "ttl_seconds": 7}')
    current = FlagsFile(path).current()
    assert (current.ttl_seconds, current.flags[0].name, current.flags[0].value) == (7, "a", "true")


def test_without_a_file_there_are_no_flags() -> None:
    current = FlagsFile(None).current()
    assert (current.flags, current.ttl_seconds) == ([], 900)


def test_a_change_of_the_file_is_seen_and_a_bad_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "flags.json"
    path.write_text('{"a": "1"}')
    file = FlagsFile(path)

    def replace(content: str) -> None:
        other = tmp_path / "new.json"
        other.write_text(content)
        os.replace(other, path)

    replace('{"a": "2"}')
    assert flags_of(file) == {"a": "2"}
    replace('{"a": ')
    assert flags_of(file) == flags_of(file) == {"a": "2"}
    assert file.problem is not None
    assert len(caplog.records) == 1
    path.unlink()
    assert flags_of(file) == {"a": "2"}
    replace('{"a": "3"}')
    assert flags_of(file) == {"a": "3"}
    assert file.problem is None


@pytest.mark.parametrize("content", ["", "[]", "3", '{"a": {}}', '{"flags": [1]}', "\xff", '{"a": null}'])
def test_a_file_that_is_no_list_of_flags_is_refused_with_a_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "flags.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(FlagsError, match="is not a list of flags; write them as JSON"):
        FlagsFile(path)


def test_a_file_that_is_not_there_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FlagsError, match="is not a file"):
        FlagsFile(tmp_path / "none")
    large = tmp_path / "large.json"
    large.write_text(json.dumps({"a": "x" * 1_000_001}))
    with pytest.raises(FlagsError, match="is larger than"):
        FlagsFile(large)
