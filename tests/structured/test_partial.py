"""The beginning of a JSON text has the value that is known so far."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talu.structured.partial import NOTHING, partial_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", NOTHING),
        ('"a', "a"),
        ('"a\\', "a"),
        ('"a\\u00', "a"),
        ('"\\ud83d', ""),
        ("[1", []),
        ("[1,", [1]),
        ("[1, tr", [1]),
        ('{"a', {}),
        ('{"a": ', {}),
        ('{"a": "b', {"a": "b"}),
        ('{"a": [{"b": "c', {"a": [{"b": "c"}]}),
        ('{"a": 1, "b": nul', {"a": 1}),
        ("12", NOTHING),
    ],
)
def test_a_cut_text_has_what_is_known(text: str, value: object) -> None:
    assert partial_value(text) == value


def test_a_number_is_known_when_its_text_has_ended() -> None:
    assert partial_value("12", ended=True) == 12


@pytest.mark.parametrize("text", ["Sure", "{1", "[1 2", '{"a" 1', "}"])
def test_other_text_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        partial_value(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(VALUES, st.booleans(), st.integers(0, 200))
def test_every_beginning_of_json_can_be_read(value: object, escaped: bool, cut: int) -> None:
    text = json.dumps([value], ensure_ascii=escaped)
    assert isinstance(partial_value(text[: max(1, cut)]), list)
    assert partial_value(text) == [value]
