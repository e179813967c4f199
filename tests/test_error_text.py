"""Values in error messages are always short."""

import pickle
from typing import Any

import numpy as np
import pytest

from talu.error_text import nearest, shown
from talu.exceptions import TaluError, ValidationError


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "value",
    [
        "text",
        "it's\n",
        b"bytes",
        1,
        -2.5,
        None,
        True,
        [1, "a", (), (1,), (1, 2)],
        {"b": 1, "a": [2]},
        {},
        set(),
        {1},
        frozenset(),
        frozenset({1}),
        [],
        np.float32(1.5),
        range(3),
        int,
    ],
    ids=repr,
)
def test_a_short_value_is_shown_as_python_shows_it(value: object) -> None:
    assert shown(value) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10_000_000,
        b"x" * 10_000_000,
        10**5000,
        [10**5000],
        ["x" * 1_000_000] * 1000,
        {"x" * 1_000_000: "y" * 1_000_000},
        list(range(1_000_000)),
        set(range(1_000_000)),
        dict.fromkeys(range(1_000_000)),
        nested(100_000),
        CYCLE,
        np.zeros((1000, 1000)),
        Broken(),
        [Broken()],
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_large_or_broken_value_takes_about_a_hundred_characters(value: object) -> None:
    assert 0 < len(shown(value)) < 120


def test_a_cut_text_says_that_it_was_cut() -> None:
    assert shown("x" * 1000) == "'" + "x" * 99 + "…"


def test_an_object_whose_repr_fails_is_shown_as_its_type() -> None:
    assert shown(Broken()) == "an object of type Broken"


@pytest.mark.parametrize(
    "value", [None, True, 2.5, 7, "x" * 5000, [1, ("a",)], {"a": {1}}], ids=str
)
def test_the_details_of_an_error_have_a_small_plain_value_itself(value: object) -> None:
    assert TaluError("wrong", details={"value": value}).details["value"] is value


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10_000_000,
        10**5000,
        [["x" * 100] * 100] * 100,
        nested(100_000),
        CYCLE,
        np.zeros(1_000_000),
        Broken(),
        lambda: None,
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_details_of_an_error_have_a_short_text_in_place_of_any_other_value(
    value: object,
) -> None:
    error = TaluError("wrong", details={"value": value, "nested": [value]})
    assert len(pickle.dumps(error)) < 500
    assert len(str(error.details)) < 500


def test_an_error_shortens_a_very_long_message_in_the_middle() -> None:
    message = str(TaluError("begin " + "x" * 10_000_000 + " end"))
    assert len(message) < 5100
    assert (message[:5], message[-3:]) == ("begin", "end")


def test_the_nearest_name_is_proposed() -> None:
    assert nearest("temprature", ["temperature", "top_k"]) == "; did you mean 'temperature'?"
    assert nearest("x" * 1_000_000, ["temperature"]) == ""


@pytest.mark.parametrize(
    "key",
    ["sk-CANARY-123456789", "sk-proj-" + "a1B2" * 40, "gsk_0123456789abcdef", "AIza" + "x1" * 17],
)
def test_what_looks_like_a_key_is_in_no_message_and_in_no_details(key: str) -> None:
    error = ValidationError("wrong", details={"value": key, "nested": {"a": [key]}})
    texts = (shown(key), shown([{"a": key}]), shown("x" * 95 + f" {key}"), str(error.details))
    assert not any(key[8:] in text or key[:12] in text for text in texts)


def test_names_of_models_are_not_taken_for_keys() -> None:
    for name in ("sk-learn-embeddings", "Meta-Llama-3-8B-Instruct", "hf-internal-testing/tiny"):
        assert shown(name) == repr(name)
