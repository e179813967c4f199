from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talu.engine.stops import StopMatcher
from talu.exceptions import ValidationError

FEW = st.text(alphabet="abc\n", max_size=40)  # few letters: sequences overlap all the time
SEQUENCES = st.lists(st.text(alphabet="abc\n", min_size=1, max_size=5), max_size=4)


def feed(matcher: StopMatcher, pieces: list[str]) -> str:
    return "".join([matcher.push(piece) for piece in pieces] + [matcher.flush()])


def by_definition(text: str, sequences: list[str]) -> tuple[str, str | None]:
    places = [
        (start, start + len(sequence), sequence)
        for sequence in sequences
        for start in range(len(text))
        if text.startswith(sequence, start)
    ]
    if not places:
        return text, None
    start, _, sequence = min(places)
    return text[:start], sequence


@given(FEW, SEQUENCES, st.sets(st.integers(0, 40)))
def test_any_cut_into_pieces_gives_what_the_definition_says(
    text: str, sequences: list[str], cuts: set[int]
) -> None:
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    matcher = StopMatcher(sequences)
    shown = feed(matcher, [text[a:b] for a, b in pairwise(borders)])
    assert (shown, matcher.matched) == by_definition(text, sequences)


@given(FEW, SEQUENCES)
def test_only_the_start_of_a_sequence_is_held_back(text: str, sequences: list[str]) -> None:
    matcher = StopMatcher(sequences)
    shown = matcher.push(text)
    if matcher.matched is None:
        held = text[len(shown) :]
        assert held == "" or any(s.startswith(held) for s in sequences if s != held)


def test_a_sequence_may_span_pieces() -> None:
    matcher = StopMatcher(["\n\nUser:"])
    assert [matcher.push(p) for p in ("Hi.", "\n", "\nUs", "er: more")] == ["Hi.", "", "", ""]
    assert matcher.matched == "\n\nUser:"


def test_a_start_that_comes_to_nothing_is_given_out_with_the_next_piece() -> None:
    matcher = StopMatcher(["END"])
    assert [matcher.push(p) for p in ("a EN", "EN", "D?")] == ["a ", "EN", ""]
    assert matcher.matched == "END"


def test_the_sequence_that_starts_first_wins_although_another_is_complete_before() -> None:
    matcher = StopMatcher(["abcd", "bc"])
    assert matcher.push("xabc") == "x"
    assert matcher.matched is None
    assert matcher.push("d") == ""
    assert matcher.matched == "abcd"


def test_the_end_of_the_text_decides_for_the_sequence_that_is_complete() -> None:
    matcher = StopMatcher(["abcd", "bc"])
    assert matcher.push("xabc") + matcher.flush() == "xa"
    assert matcher.matched == "bc"


def test_nothing_comes_after_a_match() -> None:
    matcher = StopMatcher(["."])
    assert matcher.push("One. Two") == "One"
    assert matcher.push(" more") + matcher.flush() == ""


def test_without_sequences_nothing_is_held_back() -> None:
    matcher = StopMatcher()
    assert (matcher.push("a\n"), matcher.flush(), matcher.matched) == ("a\n", "", None)


def test_an_empty_sequence_is_refused() -> None:
    with pytest.raises(ValidationError, match="empty"):
        StopMatcher(["ok", ""])
