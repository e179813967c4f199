from collections.abc import Callable
from typing import Any

import pytest

from talu.engine.sequence import Sequence
from talu.engine.stops import Stops
from talu.engine.ticket import Mailbox, Piece, Result
from talu.protocols import Sampled
from talu.sampling import SamplingParams
from talu.tokenizer.tokenizer import Tokenizer
from talu.types import FinishReason


@pytest.fixture
def begin(tokenizer: Tokenizer) -> Callable[..., Sequence]:
    """A sequence with a prompt of three tokens."""

    def new(context_length: int = 100, **params: Any) -> Sequence:
        settings = SamplingParams(**params)
        return Sequence(
            tokens=[1, 2, 3],
            context_length=context_length,
            params=settings,
            mailbox=Mailbox(3),
            tokenizer=tokenizer,
            decoder=tokenizer.decoder(),
            stops=Stops(settings.stop_sequences),
        )

    return new


def feed(sequence: Sequence, text: str, tokenizer: Tokenizer) -> FinishReason | None:
    """Accept the bytes of a text as tokens; what the last one said."""
    reasons = [sequence.accept(Sampled(token)) for token in tokenizer.encode(text)]
    assert not any(reasons[:-1])
    return reasons[-1]


def shown(sequence: Sequence, reason: FinishReason) -> tuple[str, Result]:
    sequence.end(reason)
    texts = []
    while isinstance(item := sequence.mailbox.take(), Piece):
        texts.append(item.text)
    assert isinstance(item, Result)
    return "".join(texts), item


def test_half_a_character_is_held_back_until_it_is_whole(
    begin: Callable[..., Sequence], tokenizer: Tokenizer
) -> None:
    sequence = begin()
    first, second = tokenizer.encode("é")
    sequence.accept(Sampled(first))
    assert sequence.mailbox.take() == Piece("", (first,))
    sequence.accept(Sampled(second))
    assert sequence.mailbox.take() == Piece("é", (second,))


def test_half_a_character_at_the_end_is_shown_as_a_replacement(
    begin: Callable[..., Sequence], tokenizer: Tokenizer
) -> None:
    sequence = begin(max_tokens=2)
    sequence.accept(Sampled(tokenizer.encode("a")[0]))
    reason = sequence.accept(Sampled(tokenizer.encode("é")[0]))
    assert reason is FinishReason.LENGTH
    assert shown(sequence, reason)[0] == "a\ufffd"


def test_an_end_token_shows_what_a_stop_sequence_held_back(
    begin: Callable[..., Sequence], tokenizer: Tokenizer
) -> None:
    end = tokenizer.token_id("<|im_end|>")
    sequence = begin(stop_sequences=("END",), stop_token_ids=frozenset([end]))
    feed(sequence, "the EN", tokenizer)
    reason = sequence.accept(Sampled(end))
    assert reason is FinishReason.STOP
    text, result = shown(sequence, reason)
    assert (text, result.stop_sequence) == ("the EN", None)
    assert result.usage.completion_tokens == 7


def test_a_stop_sequence_that_ends_with_the_last_token_is_a_stop(
    begin: Callable[..., Sequence], tokenizer: Tokenizer
) -> None:
    sequence = begin(stop_sequences=("END",), max_tokens=7)
    reason = feed(sequence, "the END", tokenizer)
    assert reason is FinishReason.STOP
    text, result = shown(sequence, reason)
    assert (text, result.stop_sequence, result.notes) == ("the ", "END", ())


def test_the_context_ends_a_sequence_with_a_note_unless_max_tokens_does(
    begin: Callable[..., Sequence], tokenizer: Tokenizer
) -> None:
    for max_tokens, notes in ((5, 0), (6, 1)):
        sequence = begin(context_length=8, max_tokens=max_tokens)
        reason = feed(sequence, "hello", tokenizer)
        assert reason is FinishReason.LENGTH
        assert len(shown(sequence, reason)[1].notes) == notes
