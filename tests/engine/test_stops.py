from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talu.engine.stops import ReplyForm, StopMatcher, Stops
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
def test_any_division_of_the_text_into_pieces_gives_the_defined_result(
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


IN_CHAT = ReplyForm(has_regions=True)
REPLY = "<think>\nI see END.\n</think>\n\nThe END."


@given(st.sets(st.integers(0, len(REPLY))))
def test_a_sequence_is_not_looked_for_in_reasoning(cuts: set[int]) -> None:
    borders = sorted({0, len(REPLY), *cuts})
    pieces = [REPLY[a:b] for a, b in pairwise(borders)]
    stops = Stops(["END", "\n"], form=IN_CHAT)
    assert "".join(map(stops.push, pieces)) + stops.flush() == REPLY.removesuffix("END.")
    assert stops.matched == "END"


def test_reasoning_that_the_prompt_opened_is_left_out_too() -> None:
    stops = Stops(["END"], form=ReplyForm(has_regions=True, in_reasoning=True))
    pieces = ["an END", "</th", "ink>", " EN", "D"]
    assert [stops.push(piece) for piece in pieces] == ["an END", "</th", "ink>", " ", ""]
    assert stops.matched == "END"


def test_without_reasoning_all_text_counts() -> None:
    for text in ("So <think> END", " \n<thin END", "END"):
        stops = Stops(["END"], form=IN_CHAT)
        assert "".join(map(stops.push, text)) + stops.flush() == text.removesuffix("END")
    stops = Stops(["END"], form=ReplyForm(continues=True))
    assert stops.push("<think> END") == "<think> "


def test_a_tag_that_is_a_token_is_known_by_its_mark() -> None:
    stops = Stops(["END"], form=IN_CHAT, mark_tags=lambda tag: "!" + tag)
    assert stops.push("!<think>a </think> END!</think>b END") == "!<think>a </think> END!</think>b "


def test_a_sequence_that_is_a_token_is_found_by_its_id() -> None:
    stops = Stops(["<e>", "x"], {"<e>": 7}.get)
    assert [stops.is_token(number) for number in (7, 8)] == [True, False]
    assert stops.matched is None
    stops.end_at(8)
    assert stops.matched is None
    stops.end_at(7)
    assert stops.matched == "<e>"


def test_very_long_sequences_are_refused() -> None:
    StopMatcher(["a" * 1000] * 65)
    with pytest.raises(ValidationError, match="66,000 characters; the limit is 65,536"):
        StopMatcher(["a" * 1000] * 66)


def test_a_sequence_with_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(ValidationError, match="lone surrogate"):
        StopMatcher(["a\ud800"])
