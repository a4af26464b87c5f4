"""Filters as URLs and commands name them."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

pytest.importorskip("duckdb")

from adbc_telemetry.collector.queries.filters import BadQuestion, Filter, parse_filter

NOW = datetime(2026, 3, 1, 12, 0, 30, tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800), ("2w", 1_209_600)]
)
def test_a_duration_is_counted_back_from_now(text: str, seconds: int) -> None:
    assert parse_filter({"since": text}, now=NOW).since == NOW - seconds


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-01T11:00:00Z",
        "2026-03-01T11:00:00",
        "2026-03-01T12:00:00+01:00",
        # A plus sign that nothing escaped.
        "2026-03-01T12:00:00 01:00",
    ],
)
def test_a_time_is_utc_where_it_names_no_zone(text: str) -> None:
    assert parse_filter({"since": text}, now=NOW).since == NOW - 3630


@pytest.mark.parametrize(
    "parameters",
    [
        {"since": "yesterday"},
        {"since": ""},
        {"until": "15 m"},
        {"since": "1h", "until": "2h"},
        {"colour": "red"},
        {"driver": "x" * 1001},
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(parameters: dict[str, str]) -> None:
    with pytest.raises(BadQuestion) as refused:
        parse_filter(parameters, now=NOW)
    sentence = str(refused.value)
    assert "give" in sentence
    assert sentence.endswith(".")
    assert "red" not in sentence


def test_an_empty_value_asks_for_events_without_one() -> None:
    assert parse_filter({"driver": "", "host": "a"}, now=NOW).values() == {"driver": "", "host": "a"}


def test_whole_minutes_widen_the_range() -> None:
    widened = Filter(since=NOW - 60, until=NOW, host="a").in_whole_minutes()
    assert widened == Filter(since=NOW - 90, until=NOW + 30, host="a")
