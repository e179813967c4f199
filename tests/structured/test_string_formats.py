"""Formats of strings: what answers are checked for, and what a grammar writes."""

import json
import sys
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pytest

from talu import Client, SchemaValidationError
from talu.engine.held_keywords import HeldKeywords
from talu.structured.checking import checker
from talu.structured.formats import format_of
from talu.structured.matching import contains, has_format, matches
from talu.structured.string_formats import CHECKED_FORMATS, GENERATED_FORMATS, PATTERNS

SUITE = Path(sys.prefix) / "share" / "schemas" / "formats"
NOT_WRITTEN = {  # valid texts that no grammar writes, by format
    "date-time": 3,  # leap seconds, small letters
    "email": 5,  # quoted names, addresses
    "ipv6": 4,  # addresses that end like IPv4
    "time": 7,  # leap seconds, small letters
}


def cases(name: str) -> list[tuple[str, bool]]:
    """Texts of the official suite, and whether they have a format."""
    groups = json.loads((SUITE / f"{name}.json").read_text())
    tests = [test for group in groups for test in group["tests"]]
    return [(test["data"], test["valid"]) for test in tests if isinstance(test["data"], str)]


def writes(name: str, text: str) -> bool:
    if name in PATTERNS:
        return matches(PATTERNS[name], text)
    return has_format(name, text)


@pytest.mark.parametrize("name", sorted(CHECKED_FORMATS))
def test_a_format_is_checked_as_the_official_suite_says(name: str) -> None:
    check = checker({"format": name})
    wrong = [text for text, valid in cases(name) if (check.problem(text) is None) is not valid]
    assert wrong == []
    assert check.problem(5) is None


@pytest.mark.parametrize("name", sorted(GENERATED_FORMATS))
def test_a_grammar_writes_nothing_that_a_format_forbids(name: str) -> None:
    written = [(text, valid) for text, valid in cases(name) if writes(name, text)]
    assert [text for text, valid in written if not valid] == []
    missing = sum(valid for _, valid in cases(name)) - len(written)
    assert missing == NOT_WRITTEN.get(name, 0)


@pytest.mark.parametrize(
    "text",
    ["0000-01-01", "0000-02-29", "1900-02-29", "2023-02-29", "2023-04-31", "10000-01-01"],
)
def test_a_day_that_no_calendar_has_is_not_written(text: str) -> None:
    assert not matches(PATTERNS["date"], text)
    assert checker({"format": "date"}).problem(text) is not None


@pytest.mark.parametrize(
    "text", ["0001-01-01", "0004-02-29", "2000-02-29", "2400-02-29", "9999-12-31"]
)
def test_every_day_that_python_knows_can_be_written(text: str) -> None:
    assert matches(PATTERNS["date"], text)
    assert date.fromisoformat(text).isoformat() == text


def test_what_is_written_can_be_read_by_python() -> None:
    moment = "2024-02-29T23:59:59.123456789+23:59"
    assert matches(PATTERNS["date-time"], moment)
    assert datetime.fromisoformat(moment).year == 2024
    assert time.fromisoformat("00:00:00Z").second == 0


def test_a_pattern_beside_a_format_is_kept() -> None:
    schema = {"type": "string", "format": "date", "pattern": "^20"}
    generated = HeldKeywords(schema, lambda pattern: True).schema
    (added,) = generated["allOf"]
    assert generated["pattern"] == "^20"
    assert contains(added["pattern"], "2024-01-01")
    with Client("talu/pocket") as client:
        for seed in range(5):
            answer = client.ask("Hi", response_format=schema, temperature=2.0, seed=seed)
            assert answer.parsed.startswith("20")
            assert answer.schema_report.enforced == ("#/type", "#/format", "#/pattern")


def test_a_format_without_a_check_is_reported_as_ignored() -> None:
    schema: dict[str, Any] = {
        "properties": {"a": {"format": "idn-hostname"}, "b": {"format": "uri"}}
    }
    report = format_of(schema).checked_report()
    assert report.ignored == ("#/properties/a/format",)
    assert "#/properties/b/format" in report.checked


def test_an_answer_of_another_format_is_refused() -> None:
    form = format_of({"type": "string", "format": "date-time"})
    assert form.read('"1998-12-31T23:59:60Z"') == "1998-12-31T23:59:60Z"
    with pytest.raises(SchemaValidationError, match="date-time"):
        form.read('"yesterday"')
