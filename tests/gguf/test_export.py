"""A tokenizer that is described for a GGUF file is the one that the file had."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tests.gguf.bytes import metadata_of

from talu.tokenizer.gguf import build_from_metadata, chat_templates, pre_tokenizer_of
from talu.tokenizer.gguf_export import GgufTokenizerError, tokenizer_metadata
from talu.tokenizer.gguf_samples import sample_texts
from talu.tokenizer.gguf_vocabulary import end_token_ids
from talu.tokenizer.gguf_words import PRE_TOKENIZERS
from talu.tokenizer.loading import Loaded
from talu.tokenizer.vocabulary import Vocabulary

KEY = "tokenizer.ggml."
VOCABULARIES = Path(sys.prefix) / "share" / "vocabularies"


@pytest.mark.parametrize(
    ("name", "same"),  # what is compared by value, because the original says nothing else
    [
        ("bert-bge", ("tokens", "model", "cls_token_id", "seperator_token_id")),
        ("deepseek-llm", ("tokens", "merges", "pre", "token_type", "add_bos_token")),
        ("llama-bpe", ("tokens", "merges", "pre", "token_type", "bos_token_id")),
        ("llama-spm", ("tokens", "model", "token_type", "add_bos_token")),
        ("nomic-bert-moe", ("tokens", "model", "precompiled_charsmap", "scores")),
        ("qwen2", ("tokens", "merges", "pre", "eos_token_id")),
    ],
)
def test_the_tokenizers_of_llama_cpps_test_files_are_described_as_in_the_files(
    name: str, same: tuple[str, ...]
) -> None:
    metadata = metadata_of(VOCABULARIES / f"ggml-vocab-{name}.gguf")
    loaded = build_from_metadata(metadata, "file")
    found, _ = tokenizer_metadata(
        loaded,
        len(metadata[KEY + "tokens"]),  # type: ignore[arg-type]
        ends=end_token_ids(metadata, "file"),
        templates=chat_templates(metadata, "file"),
        texts=[],
    )
    for key in same:
        if key == "scores":  # those of tokens with a role have no meaning
            ours, theirs = found[KEY + key], np.asarray(metadata[KEY + key])
            assert (ours == theirs).mean() > 0.999
        else:
            assert np.array_equal(found[KEY + key], metadata[KEY + key]), key


def test_the_samples_tell_all_ways_to_split_texts_apart() -> None:
    samples = [*sample_texts()]
    ways = {words.patterns: words for words in PRE_TOKENIZERS.values() if words.bytes}
    found: dict[str, list[tuple[str, ...]]] = {}
    for patterns, words in ways.items():
        split = pre_tokenizer_of(words).pre_tokenize_str
        found.setdefault(repr([split(text) for text in samples]), []).append(patterns)
    same = [ways for ways in found.values() if len(ways) > 1]
    qwen, bailing = (PRE_TOKENIZERS[name].patterns for name in ("qwen2", "bailingmoe"))
    assert same == [[qwen, bailing]]  # which differ in how they write the same


def test_a_tokenizer_that_no_file_can_describe_is_refused() -> None:
    path = Path(__file__).parents[1] / "tokenizer" / "golden" / "qwen_prefix.tokenizer.json"
    loaded = Loaded(Vocabulary(tokenizers.Tokenizer.from_file(str(path))), {}, ())
    with pytest.raises(GgufTokenizerError, match="has no name in GGUF"):
        tokenizer_metadata(loaded, 1000, ends=None, templates={}, texts=[])


def test_a_normal_form_that_the_file_cannot_say_is_noted() -> None:
    path = Path(__file__).parents[1] / "tokenizer" / "golden" / "qwen.tokenizer.json"
    loaded = Loaded(Vocabulary(tokenizers.Tokenizer.from_file(str(path))), {}, ())
    _, notes = tokenizer_metadata(loaded, 1000, ends=None, templates={}, texts=[])
    assert any("normal form C" in note for note in notes)
