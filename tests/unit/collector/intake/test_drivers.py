"""Every driver's events are taken, as each is known to send them: the golden logs in `tests/data/drivers`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("starlette")

from adbc_telemetry.collector.intake import AcceptedLog, Intake, read_request
from support.collecting import request_body
from support.wire import parse_strictly

DRIVERS = sorted((Path(__file__).parents[3] / "data" / "drivers").glob("*.json"))
PRIVATE = "PRIVATE"


@pytest.fixture(params=DRIVERS, ids=[path.stem for path in DRIVERS])
def golden(request: pytest.FixtureRequest) -> Any:
    return json.loads(request.param.read_text())


def taken(log: Any) -> tuple[AcceptedLog, Intake]:
    intake = read_request(request_body(json.dumps(log)))
    assert intake.errors == []
    (accepted,) = intake.logs
    return accepted, intake


def facts(value: Any, path: str = "") -> dict[str, Any]:
    """Each value that is no object, by its path."""
    if not isinstance(value, dict):
        return {path: value}
    return {
        place: fact for name, inner in value.items() for place, fact in facts(inner, f"{path}.{name}").items()
    }


def test_the_drivers_are_those_that_are_known_to_depart() -> None:
    assert [path.stem for path in DRIVERS] == ["csharp", "go", "jdbc", "node", "python"]


def test_the_log_is_kept_as_it_came_but_for_private_texts(golden: Any) -> None:
    accepted, intake = taken(golden["log"])
    assert accepted.event_id == golden["log"]["frontend_log_event_id"]
    sent = facts(golden["log"])
    private = [place for place, fact in sent.items() if str(fact).startswith(PRIVATE)]
    assert facts(json.loads(accepted.text)) == {
        place: fact for place, fact in sent.items() if place not in private
    }
    if not private:
        assert accepted.text == json.dumps(golden["log"])
    assert intake.dropped_private == golden["dropped_private"] == len(private)
    assert PRIVATE not in f"{intake}"


def test_the_canonical_form_has_all_that_the_schema_knows(golden: Any) -> None:
    accepted, _ = taken(golden["log"])
    assert accepted.canonical is not None
    assert json.loads(accepted.canonical) == golden["canonical"]
    parse_strictly(golden["canonical"]["entry"]["sql_driver_log"])


def test_what_is_not_in_the_canonical_form_is_counted_by_name(golden: Any) -> None:
    _, intake = taken(golden["log"])
    assert intake.unknown == dict.fromkeys(golden["unknown"], 1)
    known = facts(golden["canonical"])
    for place, fact in facts(golden["log"]).items():
        unknown = place.lstrip(".") in intake.unknown or f"{place.lstrip('.')}={fact}" in intake.unknown
        private = str(fact).startswith(PRIVATE)
        moved = place == ".context.timestamp_millis"
        assert place in known or unknown or private or moved or fact is None, f"{place} is lost"


def test_the_canonical_form_of_a_log_is_canonical(golden: Any) -> None:
    accepted, _ = taken(golden["log"])
    again, intake = taken(golden["canonical"])
    assert again.canonical is None
    assert (again.event_id, intake.unknown, intake.dropped_private) == (accepted.event_id, {}, 0)
