from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from talu.engine.ngrams import MATCH, PLACES, NGrams

tokens = st.lists(st.integers(0, 3), max_size=60)


def test_the_longest_match_is_found() -> None:
    text = [1, 2, 3, 50, 7, 8, 2, 3, 60, 9, 1, 2, 3]
    assert NGrams(text).find() == (3, 3)


def test_of_equal_matches_the_last_is_found() -> None:
    assert NGrams([1, 2, 50, 1, 2, 60, 1, 2]).find() == (5, 2)


def test_a_single_equal_token_is_no_match() -> None:
    assert NGrams([1, 2, 3, 4, 1]).find() is None
    assert NGrams([5]).find() is None
    assert NGrams([]).find() is None


def test_tokens_that_were_appended_are_found() -> None:
    text = [1, 2, 3]
    index = NGrams(text)
    assert index.find() is None
    text += [4, 1, 2]
    assert index.find() == (2, 2)


def test_the_continuation_of_a_place_near_the_end_repeats_itself() -> None:
    text = [9, 1, 2, 3, 1, 2]
    assert NGrams(text).continuation(3, 7) == [3, 1, 2, 3, 1, 2, 3]


@given(tokens, tokens)
def test_a_match_is_one_and_no_place_among_the_last_ones_matches_more(
    first: list[int], later: list[int]
) -> None:
    text = list(first)
    index = NGrams(text)
    index.find()
    text += later
    end = len(text)
    lengths = {place: matching(text, place) for place in range(2, end)}
    places = [place for place in sorted(lengths, reverse=True) if lengths[place] >= 2][:PLACES]
    best = max(places, key=lambda place: lengths[place], default=None)
    expected = None if best is None else (best, lengths[best])
    assert index.find() == expected


def matching(text: list[int], place: int) -> int:
    """How many tokens before a place equal those at the end."""
    count = 0
    while count < min(MATCH, place) and text[place - count - 1] == text[len(text) - count - 1]:
        count += 1
    return count


class Counting(list[int]):
    """A list that counts how often it is read."""

    reads = 0

    def __getitem__(self, index: Any) -> Any:
        self.reads += 1
        return super().__getitem__(index)


def test_a_search_after_another_token_takes_the_same_time_in_a_long_text() -> None:
    text = Counting([1] * 20_000 + [2, 1, 1])
    index = NGrams(text)
    index.find()
    text.reads = 0
    text.append(1)
    index.find()
    assert text.reads < 3 * PLACES * MATCH
