from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talu.exceptions import ValidationError
from talu.template.plain import plain


def test_infinitely_nested_messages_are_refused() -> None:
    nested: list[Any] = []
    nested.append(nested)
    with pytest.raises(ValidationError, match="nested more than 100"):
        plain(nested, "extra")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_plain_data_is_copied_and_equal(value: Any) -> None:
    copy = plain(value, "value")
    assert copy == value
    assert copy is not value or not isinstance(value, list | dict)


def test_subclasses_become_plain_types_without_their_methods() -> None:
    class Role(StrEnum):
        USER = "user"

    assert type(plain(Role.USER, "role")) is str
    assert plain(("a", "b"), "pair") == ["a", "b"]


def test_values_that_share_parts_are_refused_before_they_exhaust_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("talu.template.plain._MAX_VALUES", 10_000)
    value: list[object] = []
    for _ in range(60):
        value = [value, value]
    with pytest.raises(ValidationError, match="extra_context has more than 10,000 values"):
        plain(value, "extra_context")


class Endless(Mapping[str, int]):
    """A mapping that does not end, whatever its length says."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield str(number)

    def __getitem__(self, key: str) -> int:
        return 0


def test_a_mapping_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("talu.template.plain._MAX_VALUES", 10_000)
    with pytest.raises(ValidationError, match="extra_context has more than 10,000 values"):
        plain(Endless(), "extra_context")


def test_a_key_of_another_type_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"extra\['a'\] has a key of type tuple"):
        plain({"a": {(1, 2): "b"}}, "extra")


def test_a_long_path_in_an_error_is_shortened_between_its_keys() -> None:
    deep: Any = object()
    for level in range(60):
        deep = [deep] if level % 2 else {"level": deep}
    with pytest.raises(ValidationError) as caught:
        plain(deep, "extra_context")
    path = str(caught.value).partition(" ")[0]
    assert path.startswith("extra_context[0]['level'][0]['level']")
    assert path.endswith("[0][…]['level']")
    assert len(path) <= 100


def test_a_long_key_in_an_error_is_shortened_inside_its_quotes() -> None:
    with pytest.raises(ValidationError) as caught:
        plain({"k" * 10**6: object()}, "extra")
    assert str(caught.value).startswith(f"extra['{'k' * 40}'…] is of type object")


def test_a_check_can_stop_the_copying() -> None:
    def check() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        plain([[0] * 100] * 1000, "extra", check)
