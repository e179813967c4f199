"""The official JSON-Schema-Test-Suite: no answer is accepted that a schema forbids."""

import sys
from pathlib import Path

import pytest
from tools.schema_coverage import DRAFTS, Coverage, covered, table

SUITE = Path(sys.prefix) / "share" / "schemas"
PAGE = Path(__file__).parents[2] / "docs" / "guides" / "structured-output.md"


@pytest.fixture(scope="module")
def results() -> dict[str, Coverage]:
    return {draft: covered(SUITE, draft) for draft in DRAFTS}


@pytest.mark.parametrize("draft", DRAFTS)
def test_no_instance_is_accepted_that_its_schema_forbids(
    results: dict[str, Coverage], draft: str
) -> None:
    assert results[draft].violations == []


@pytest.mark.parametrize("draft", DRAFTS)
def test_most_schemas_are_followed_and_most_valid_instances_can_be_written(
    results: dict[str, Coverage], draft: str
) -> None:
    each = results[draft]
    assert each.refused < 0.12 * each.schemas
    assert each.reachable > 0.96 * each.valid


def test_the_table_in_the_guide_is_what_the_tool_prints(results: dict[str, Coverage]) -> None:
    assert table(results) in PAGE.read_text()
