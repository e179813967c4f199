"""The bytes of tokens join to the text that a decoder gives."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from talu.tokenizer.tokenizer import Tokenizer

TEXTS = st.text(st.sampled_from('the quick {}":,[] \n\t今日👍🏽é2'), max_size=30)


@given(TEXTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_the_bytes_of_the_tokens_of_a_text_are_those_of_the_text(
    tokenizer: Tokenizer, text: str
) -> None:
    ids = [token for token in tokenizer.encode(text) if token not in tokenizer.hidden_ids]
    table = tokenizer.token_bytes()
    decoder = tokenizer.decoder(continues=True)
    decoded = "".join([*map(decoder.push, ids), decoder.flush()])
    assert b"".join(table[token] for token in ids).decode() == decoded


def test_every_token_has_an_entry(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.token_bytes()) == tokenizer.vocabulary_size


def test_special_tokens_are_no_part_of_a_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.special_ids <= tokenizer.unwritten_ids
