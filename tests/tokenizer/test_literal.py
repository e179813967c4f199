import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from talu.exceptions import TokenizerError
from talu.tokenizer.tokenizer import Tokenizer

PIECES = st.lists(
    st.tuples(
        st.sampled_from(["the", " fox", "\n", "<", "</s>", "<s>", "<think>", "é"]), st.just(0)
    )
    | st.tuples(st.sampled_from(["</s>", "<s>", "<think>", "<unk>"]), st.just(1)),
    max_size=8,
).map(lambda pieces: [(text, bool(literal)) for text, literal in pieces])
one_fixture_for_all = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


def without_added_tokens(tokenizer: Tokenizer) -> Backend:
    content = json.loads(tokenizer._backend.to_str())
    return Backend.from_str(json.dumps(content | {"added_tokens": []}))


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "words"])
def test_a_literal_spelling_has_the_ids_of_text(
    tokenizers_by_kind: dict[str, Tokenizer], kind: str
) -> None:
    tokenizer = tokenizers_by_kind[kind]
    parts = [("the ", False), ("</s>", True), (" fox<", False), ("<think>", True)]
    text = "".join(piece for piece, _ in parts)
    assert tokenizer.encode_parts(parts) == without_added_tokens(tokenizer).encode(text).ids


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "words"])
@given(PIECES)
@one_fixture_for_all
def test_only_the_other_pieces_become_special_tokens(
    tokenizers_by_kind: dict[str, Tokenizer], kind: str, parts: list[tuple[str, bool]]
) -> None:
    tokenizer = tokenizers_by_kind[kind]
    ids = tokenizer.encode_parts([*parts, ("", False), ("", False)])
    for token in ("</s>", "<s>", "<think>"):
        written = sum(text == token for text, literal in parts if not literal)
        assert ids.count(tokenizer.token_id(token) or 0) == written


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "metaspace", "words"])
@given(PIECES)
@one_fixture_for_all
def test_without_literal_spellings_the_ids_are_those_of_the_whole_text(
    tokenizers_by_kind: dict[str, Tokenizer], kind: str, parts: list[tuple[str, bool]]
) -> None:
    tokenizer = tokenizers_by_kind[kind]
    text = "".join(piece for piece, literal in parts if not literal)
    assert tokenizer.encode_parts([(text, False), ("", False)]) == tokenizer.encode(
        text, special_tokens=False
    )


def test_a_spelling_that_the_vocabulary_cannot_write_as_text_is_refused(
    tokenizers_by_kind: dict[str, Tokenizer],
) -> None:
    tokenizer = tokenizers_by_kind["metaspace"]  # "</s>" is a piece of its vocabulary
    with pytest.raises(TokenizerError, match="cannot write '</s>' as plain text"):
        tokenizer.encode_parts([("the ", False), ("</s>", True)])
