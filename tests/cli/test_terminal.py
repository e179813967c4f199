"""Control characters in a model's text do not reach a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talu.cli.terminal import VisibleText, visible

CASES = {
    "plain text\twith\nlines": "plain text\twith\nlines",
    "Grüße, 世界 🙂": "Grüße, 世界 🙂",
    "\x1b[31mred\x1b[0m": "red",
    "\x9b2Jgone": "gone",
    "\x1b[?25l\x1b[10;20Hmoved": "moved",
    "\x1b]0;title\x07text": "]0;titletext",
    "\x1b]8;;http://example.org\x1b\\link": "]8;;http://example.org\\link",
    "over\rwritten\b\x00\x7f\x85": "overwritten",
    "\x1b[" + "1;" * 200 + "mlong": "long",
    "cut \x1b[3": "cut [3",
}


@pytest.mark.parametrize("text", CASES, ids=repr)
def test_control_sequences_and_characters_are_removed(text: str) -> None:
    assert visible(text) == CASES[text]


@given(st.lists(st.text(alphabet="\x1b\x9b[];0m?A \n\x07a€", max_size=6), max_size=12))
def test_text_in_pieces_is_shown_like_the_whole_text(pieces: list[str]) -> None:
    text = VisibleText()
    shown = [text.push(piece) for piece in pieces]
    assert "".join(shown) + text.flush() == visible("".join(pieces))


@given(st.lists(st.text(alphabet="\x1b[01;x", max_size=90), max_size=12))
def test_no_piece_ever_shows_a_control_character(pieces: list[str]) -> None:
    text = VisibleText()
    shown = "".join(text.push(piece) for piece in pieces) + text.flush()
    assert not set(shown) & {chr(i) for i in [*range(9), *range(11, 32), *range(127, 160)]}


def test_a_sequence_without_end_is_not_held_back_forever() -> None:
    text = VisibleText()
    shown = "".join(text.push(piece) for piece in ["\x1b[", *["0;"] * 100])
    assert shown.count("0;") > 60
