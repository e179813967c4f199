"""Schemas in a short form."""

import pytest

from talu.exceptions import StructuredOutputError
from talu.structured.concise import concise_schema


def test_fields_have_names_types_and_descriptions() -> None:
    schema = concise_schema("name, age int, tags str[], bio: what he did")
    assert schema["properties"] == {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "bio": {"type": "string", "description": "what he did"},
    }
    assert schema["required"] == ["name", "age", "tags", "bio"]


def test_lines_may_have_commas_in_descriptions() -> None:
    schema = concise_schema("\n name: first, then last\n score float\n")
    assert list(schema["properties"]) == ["name", "score"]
    assert schema["properties"]["name"]["description"] == "first, then last"


@pytest.mark.parametrize("text", ["", " , ", "age integer", "a, a", "a b c", "-"])
def test_a_malformed_field_is_refused(text: str) -> None:
    with pytest.raises(StructuredOutputError, match="response_format has"):
        concise_schema(text)
