import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import talu.models
from talu.exceptions import TokenizerError
from talu.tokenizer.decoding import IncrementalDecoder
from talu.tokenizer.loading import load
from talu.tokenizer.tokenizer import Tokenizer

TEXTS = st.text(
    st.one_of(
        st.sampled_from("the quick fox \n\t.,'"),
        st.sampled_from("今日は안녕👍🏽👩‍💻é̈नमस्ते"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=30,
)
one_fixture_for_all = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def pieces(decoder: IncrementalDecoder, ids: list[int]) -> list[str]:
    return [*map(decoder.push, ids), decoder.flush()]


@given(TEXTS)
@one_fixture_for_all
def test_the_pieces_of_a_text_join_to_the_text_of_all_tokens(
    tokenizer: Tokenizer, text: str
) -> None:
    ids = tokenizer.encode(text)
    assert "".join(pieces(tokenizer.decoder(), ids)) == tokenizer.decode(ids)


@given(data=st.data())
@one_fixture_for_all
def test_the_pieces_of_any_tokens_join_to_the_text_of_all_tokens(
    tokenizer: Tokenizer, data: st.DataObject
) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocabulary_size + 3), max_size=30))
    skip = data.draw(st.booleans())
    decoder = tokenizer.decoder(skip_special_tokens=skip)
    assert "".join(pieces(decoder, ids)) == tokenizer.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
@given(st.binary(max_size=12))
@example("é👍".encode() + b"\xe4\xb8")
@example(b"\xf0\x9f\xff\x9f\x91\x8d")
@example(b"\xed\xa0\x80\xc0\xaf")
@one_fixture_for_all
def test_invalid_bytes_are_decoded_as_in_decoding_all_at_once(
    tokenizers_by_kind: dict[str, Tokenizer], kind: str, content: bytes
) -> None:
    tokenizer = tokenizers_by_kind[kind]
    ids = [byte_id(tokenizer, kind, byte) for byte in content]
    assert "".join(pieces(tokenizer.decoder(), ids)) == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
@given(TEXTS)
@one_fixture_for_all
def test_no_piece_splits_a_character(
    tokenizers_by_kind: dict[str, Tokenizer], kind: str, text: str
) -> None:
    tokenizer = tokenizers_by_kind[kind]
    ids = [byte_id(tokenizer, kind, byte) for byte in text.encode()]
    shown = pieces(tokenizer.decoder(continues=True), ids)
    assert "".join(shown) == text
    assert "\ufffd" not in "".join(shown) or "\ufffd" in text


def byte_id(tokenizer: Tokenizer, kind: str, byte: int) -> int:
    if kind == "byte_fallback":
        found = tokenizer.token_id(f"<0x{byte:02X}>")
    else:
        printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        others = [b for b in range(256) if b not in printable]
        found = tokenizer.token_id(chr(byte if byte in printable else 0x100 + others.index(byte)))
    assert found is not None
    return found


def test_a_character_appears_with_its_last_byte(tokenizers_by_kind: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers_by_kind["byte_level"]
    ids = [byte_id(tokenizer, "byte_level", byte) for byte in "a👍b".encode()]
    assert pieces(tokenizer.decoder(), ids) == ["a", "", "", "", "👍", "b", ""]


def test_a_reply_cut_inside_a_character_ends_with_a_replacement_character(
    tokenizers_by_kind: dict[str, Tokenizer],
) -> None:
    tokenizer = tokenizers_by_kind["byte_level"]
    ids = [byte_id(tokenizer, "byte_level", byte) for byte in "👍".encode()[:3]]
    assert pieces(tokenizer.decoder(), ids) == ["", "", "", "\ufffd"]


@pytest.mark.parametrize("kind", ["byte_fallback", "metaspace"])
def test_the_space_before_the_first_word_is_kept_in_a_continuation(
    tokenizers_by_kind: dict[str, Tokenizer], kind: str
) -> None:
    tokenizer = tokenizers_by_kind[kind]
    ids = tokenizer.encode("the fox")
    assert "".join(pieces(tokenizer.decoder(), ids)) == "the fox"
    assert "".join(pieces(tokenizer.decoder(continues=True), ids)) == " the fox"


def test_special_tokens_are_hidden_and_other_added_tokens_are_text(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.token_id(token) or 0 for token in ("<s>", "<think>", "</s>")]
    assert "".join(pieces(tokenizer.decoder(), ids)) == "<think>"


def test_the_cost_of_a_token_does_not_depend_on_the_length_of_the_text(
    tokenizers_by_kind: dict[str, Tokenizer],
) -> None:
    tokenizer = tokenizers_by_kind["byte_level"]
    invalid = byte_id(tokenizer, "byte_level", 0x80)
    started = time.process_time()
    text = "".join(pieces(tokenizer.decoder(), [invalid] * 200_000))
    assert time.process_time() - started < 5  # decoding all again each time: minutes
    assert text == "\ufffd" * 200_000


def test_a_decoder_that_needs_all_tokens_at_once_is_refused() -> None:
    with pytest.raises(TokenizerError, match="CTC"):
        IncrementalDecoder({"type": "CTC", "pad_token": "<pad>"}, str)


@given(TEXTS)
@settings(max_examples=30)
def test_the_bundled_model_streams_what_it_decodes(text: str) -> None:
    tokenizer = Tokenizer(load(Path(talu.models.__path__[0]) / "pocket"))
    ids = tokenizer.encode(text)
    assert "".join(pieces(tokenizer.decoder(), ids)) == tokenizer.decode(ids) == text
