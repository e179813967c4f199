"""``talu embed``: prints one vector as JSON for each text."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from talu.client import Client

Talu = Callable[..., Any]
TEXTS = ["What is 2+2?", "Tell me a story."]
EMBED = ["embed", "--model", "talu/pocket"]


def test_each_text_gives_a_line_with_the_numbers_of_the_library(talu: Talu) -> None:
    outcome = talu(*EMBED, *TEXTS, "--pooling", "mean")
    with Client("talu/pocket") as client:
        expected = client.embed_batch(TEXTS, pooling="mean")
    assert (outcome.status, outcome.err) == (0, "")
    assert [json.loads(line) for line in outcome.out.splitlines()] == expected


def test_lines_of_standard_input_are_texts(talu: Talu) -> None:
    piped = talu(*EMBED, "--pooling", "mean", stdin="\n".join(TEXTS) + "\n")
    assert piped.out == talu(*EMBED, "--pooling", "mean", *TEXTS).out


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--pooling", "model"], "pooled"), (["--pooling", "max"], "max")],
)
def test_an_unsupported_pooling_is_an_error_of_one_line(
    talu: Talu, options: list[str], said: str
) -> None:
    outcome = talu(*EMBED, "text", *options)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert said in outcome.err


def test_a_text_that_is_too_long_can_be_truncated(talu: Talu) -> None:
    long = "fox " * 2000
    assert talu(*EMBED, long).status == 1
    cut = talu(*EMBED, "short", long, "--truncate")
    assert (cut.status, cut.err) == (0, "talu: text 1 was cut\n")
