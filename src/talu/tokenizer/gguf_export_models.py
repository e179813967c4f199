"""Describes the model of a tokenizer, and what is done before and after it, for GGUF files."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tokenizers
from tokenizers.models import BPE

from talu.exceptions import TokenizerError
from talu.tokenizer.gguf import SPACE, merges_of, pre_tokenizer_of
from talu.tokenizer.gguf_samples import sample_texts
from talu.tokenizer.gguf_vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    GgufVocabulary,
)
from talu.tokenizer.gguf_words import PRE_TOKENIZERS, Words
from talu.tokenizer.replaced import state_of

__all__ = ["Described", "GgufTokenizerError", "describe_model", "refused"]

Pairs = list[tuple[str, str]]
PREFERRED = ("llama-bpe", "smollm", "gpt-2", "qwen2", "gpt-4o", "deepseek-v3", "glm4")  # names
NESTED = ("normalizers", "pretokenizers")


class GgufTokenizerError(TokenizerError):
    """GGUF cannot describe a tokenizer."""


@dataclass(slots=True, kw_only=True)
class Described:
    """The description of a model.

    Attributes:
        metadata: values by key, without ``tokenizer.ggml.``.
        tokens: by id, where they are written otherwise than in the vocabulary; None if nowhere.
        types: by id.
        composes: the original puts texts into normal form C, and the file cannot say it.
        notes: what the file cannot say.
    """

    metadata: dict[str, Any]
    types: list[int]
    tokens: list[str] | None = None
    composes: bool = False
    notes: list[str] = field(default_factory=list)


def describe_model(backend: tokenizers.Tokenizer, vocabulary: GgufVocabulary) -> Described:
    """Describe the model of a tokenizer.

    Raises:
        GgufTokenizerError: GGUF has no kind for it.
    """
    state = state_of(backend.model) or {}
    kind = state.get("type")
    if kind == "BPE":
        if any(state.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix")):
            raise refused("its BPE model marks the parts of words")
        by_bytes = any(step["type"] == "ByteLevel" for step in _steps(backend.pre_tokenizer))
        describe = _byte_level if by_bytes else _sentencepiece
    elif kind in ("WordPiece", "Unigram"):
        describe = _wordpiece if kind == "WordPiece" else _unigram
    else:
        raise refused(f"it is a {kind} model")
    found = describe(backend, vocabulary, state)
    found.metadata |= _ends(backend, wordpiece=kind == "WordPiece")
    return found


def refused(why: str) -> GgufTokenizerError:
    """The error for a tokenizer that GGUF cannot describe."""
    return GgufTokenizerError(f"a GGUF file cannot describe this tokenizer: {why}")


def _steps(part: object) -> list[dict[str, Any]]:
    """The steps of a part of the backend, sequences resolved."""
    state = state_of(part)
    left, found = [state] if state else [], []
    while left:
        step = left.pop(0)
        inner = next((step[name] for name in NESTED if name in step), None)
        if inner is None:
            found.append(step)
        else:
            left = [*inner, *left]
    return found


def _ends(backend: tokenizers.Tokenizer, *, wordpiece: bool) -> dict[str, Any]:
    """The tokens around a text."""
    bare = backend.encode("a", add_special_tokens=False).ids
    whole = backend.encode("a").ids
    places = range(len(whole) - len(bare) + 1)
    at = next((n for n in places if whole[n : n + len(bare)] == bare), None)
    before, after = ([], whole) if at is None else (whole[:at], whole[at + len(bare) :])
    if len(before) > 1 or len(after) > 1:
        raise refused("it adds more than one token before or after a text")
    if wordpiece:
        if not before or not after:
            raise refused("it adds no token before or after a text, which WordPiece must")
        return {
            "bos_token_id": before[0],
            "cls_token_id": before[0],
            "seperator_token_id": after[0],
        }
    ends: dict[str, Any] = {"add_bos_token": bool(before), "add_eos_token": bool(after)}
    ends |= {"bos_token_id": before[0]} if before else {}
    return ends | ({"eos_token_id": after[0]} if after else {})


def _byte_level(
    backend: tokenizers.Tokenizer, vocabulary: GgufVocabulary, state: Mapping[str, Any]
) -> Described:
    normalizers = [step["type"] for step in _steps(backend.normalizer)]
    if normalizers not in ([], ["NFC"]):
        raise refused(f"it changes texts before they are split ({', '.join(normalizers)})")
    merges = _pairs(state)
    notes = []
    if normalizers:
        notes.append(
            "programs that read the file do not put texts into Unicode's normal form C first; "
            "letters that are written with separate accents become other tokens"
        )
    return Described(
        metadata={
            "model": "gpt2",
            "pre": _pre_tokenizer(backend, vocabulary, merges),
            "merges": [f"{left} {right}" for left, right in merges],
        },
        types=list(vocabulary.types),
        composes=bool(normalizers),
        notes=notes,
    )


def _pairs(state: Mapping[str, Any]) -> Pairs:
    """The merges of a BPE model."""
    merges = state["merges"]
    return [tuple(each) if isinstance(each, list) else tuple(each.split(" ", 1)) for each in merges]


def _pre_tokenizer(backend: tokenizers.Tokenizer, vocabulary: GgufVocabulary, merges: Pairs) -> str:
    """The name of the pre-tokenizer that splits texts as the backend does."""
    samples = [*sample_texts()]
    own = [backend.pre_tokenizer.pre_tokenize_str(text) for text in samples]

    def same(words: Words) -> bool:
        other = pre_tokenizer_of(words)
        return all(
            other.pre_tokenize_str(text) == pieces
            for text, pieces in zip(samples, own, strict=True)
        )

    whole, matching = bool(backend.model.ignore_merges), []
    names: dict[Words, str] = {}
    for name in (*PREFERRED, *PRE_TOKENIZERS):
        names.setdefault(PRE_TOKENIZERS[name], name)
    for words, name in sorted(names.items(), key=lambda each: each[0].whole_words != whole):
        if words.bytes and same(words):
            if words.whole_words == whole:
                return name
            matching.append(name)
    if not matching:
        raise refused("it splits texts into words in a way that has no name in GGUF")
    if _merged_anyway(vocabulary, merges):
        return matching[0]
    raise refused("words that are tokens are, or are not, merged first, unlike in GGUF")


def _merged_anyway(vocabulary: GgufVocabulary, merges: Pairs) -> bool:
    """Whether merges alone make every token from its bytes."""
    ids = {text: number for number, text in enumerate(vocabulary.tokens)}
    model = BPE(ids, merges)
    texts = (vocabulary.tokens[number] for number in vocabulary.ids(NORMAL))
    return all(len(model.tokenize(text)) == 1 for text in texts)


def _sentencepiece(
    backend: tokenizers.Tokenizer, vocabulary: GgufVocabulary, state: Mapping[str, Any]
) -> Described:
    """BPE with scores instead of merges: the result of an earlier merge has a higher one."""
    if not state.get("byte_fallback"):
        raise refused("it has neither bytes nor a token for each byte")
    steps = [*_steps(backend.normalizer), *_steps(backend.pre_tokenizer)]
    merges = _pairs(state)
    ranks: dict[str, int] = {}
    for left, right in merges:
        ranks.setdefault(left + right, len(ranks))
    scores = [float(-ranks.get(text, len(ranks))) for text in vocabulary.tokens]
    bytes_ = {f"<0x{byte:02X}>" for byte in range(256)}
    types = [
        UNKNOWN
        if text == state["unk_token"]
        else BYTE
        if kind == NORMAL and text in bytes_
        else kind
        for text, kind in zip(vocabulary.tokens, list(vocabulary.types), strict=True)
    ]
    notes = []
    if any(step.get("prepend_scheme") == "first" for step in steps):
        notes.append(
            "programs that read the file also put a space before a text that follows a special "
            "token, not only at the beginning"
        )
    made = GgufVocabulary(
        tokens=vocabulary.tokens,
        types=bytes(types),
        scores=scores,
        roles=vocabulary.roles,
        notes=(),
    )
    if set(merges_of(made, "the converted model")) != set(merges):
        notes.append(
            "some pairs of tokens are merged by the file's rules and not by the original's"
        )
    return Described(
        metadata={
            "model": "llama",
            "pre": "default",
            "scores": np.array(scores, np.float32),
            "add_space_prefix": _first_piece(backend).startswith(SPACE),
        },
        types=types,
        notes=notes,
    )


def _first_piece(backend: tokenizers.Tokenizer) -> str:
    """How a text that is one letter looks to the model."""
    text = "a" if backend.normalizer is None else backend.normalizer.normalize_str("a")
    if backend.pre_tokenizer is None:
        return text
    return str(backend.pre_tokenizer.pre_tokenize_str(text)[0][0])


def _unigram(
    backend: tokenizers.Tokenizer, vocabulary: GgufVocabulary, state: Mapping[str, Any]
) -> Described:
    scores = [0.0] * len(vocabulary.tokens)
    for number, (_, score) in enumerate(state["vocab"][: len(scores)]):
        scores[number] = score
    metadata: dict[str, Any] = {
        "model": "t5",
        "pre": "default",
        "scores": np.array(scores, np.float32),
        "unknown_token_id": state["unk_id"],
        "add_space_prefix": _first_piece(backend).startswith(SPACE),
        "remove_extra_whitespaces": _merges_spaces(backend),
    }
    tables = [step for step in _steps(backend.normalizer) if step["type"] == "Precompiled"]
    if tables:
        table = base64.b64decode(tables[0]["precompiled_charsmap"])
        metadata["precompiled_charsmap"] = np.frombuffer(table, np.uint8)
    types = [
        UNKNOWN if number == state["unk_id"] else kind
        for number, kind in enumerate(list(vocabulary.types))
    ]
    return Described(metadata=metadata, types=types)


def _merges_spaces(backend: tokenizers.Tokenizer) -> bool:
    """Whether several spaces are as good as one."""
    one, two = (backend.encode(text, add_special_tokens=False).ids for text in ("a b", "a  b"))
    return bool(one == two)


def _wordpiece(
    backend: tokenizers.Tokenizer, vocabulary: GgufVocabulary, state: Mapping[str, Any]
) -> Described:
    mark = state["continuing_subword_prefix"]
    steps = _steps(backend.normalizer)
    bert = next((step for step in steps if step["type"] == "BertNormalizer"), {})
    lower_case = bool(bert.get("lowercase") or any(step["type"] == "Lowercase" for step in steps))
    strips = bert.get("strip_accents")
    whole = vocabulary.ids(CONTROL, UNKNOWN, USER_DEFINED)
    return Described(
        metadata={
            "model": "bert",
            "pre": "default",
            "normalizer.lowercase": lower_case,
            "normalizer.strip_accents": lower_case if strips is None else strips,
        },
        types=list(vocabulary.types),
        tokens=_marked(vocabulary.tokens, {*whole, *vocabulary.roles.values()}, mark),
    )


def _marked(tokens: Sequence[str], whole: set[int], mark: str) -> list[str]:
    """Tokens whose beginnings of words are marked, instead of their rest."""
    return [
        text if number in whole else text[len(mark) :] if text.startswith(mark) else SPACE + text
        for number, text in enumerate(tokens)
    ]
