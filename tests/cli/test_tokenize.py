"""``talu tokenize``: prints the ids of a text, or their number."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from talu.client import Client

Talu = Callable[..., Any]
TOKENIZE = ["tokenize", "--model", "talu/pocket"]


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [(["a fox\n"], None), ([], "a fox\n"), ([], b"\xef\xbb\xbfa fox\n"), (["\n"], None)],
)
def test_the_ids_are_those_of_the_library(
    talu: Talu, arguments: list[str], stdin: str | bytes | None
) -> None:
    outcome = talu(*TOKENIZE, *arguments, stdin=stdin)
    with Client("talu/pocket") as client:
        expected = client.tokenize(arguments[0] if arguments else "a fox\n")
    assert (outcome.status, outcome.err) == (0, "")
    assert json.loads(outcome.out) == expected


def test_count_prints_a_number(talu: Talu) -> None:
    ids = json.loads(talu(*TOKENIZE, "a fox").out)
    assert talu(*TOKENIZE, "a fox", "--count").out == f"{len(ids)}\n"


@pytest.mark.parametrize(("arguments", "stdin"), [([], None), ([], ""), ([""], None)])
def test_no_text_to_tokenize_is_wrong_usage(
    talu: Talu, arguments: list[str], stdin: str | None
) -> None:
    outcome = talu(*TOKENIZE, *arguments, stdin=stdin)
    assert (outcome.status, outcome.out) == (2, "")
    assert "There is nothing to tokenize" in outcome.err
