"""Computes the longest text that one token can represent.

It gives a lower bound on the tokens of a text, so that a text that cannot fit is refused before it
is tokenized.
"""

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["longest_piece"]

_SHRINKS = 4  # NFC keeps at least a third of the bytes: the Kelvin sign becomes "K"
_BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
_KEEP_ALL = {"ByteLevel", "Digits", "Metaspace", "Punctuation", "Split"}


def longest_piece(
    parts: Mapping[str, Any],
    vocabulary: Iterable[str],
    added: Iterable[str],
    *,
    byte_fallback: bool,
    alphabet: Iterable[str],
) -> int | None:
    """The most bytes of text that can become one token; None if there is no limit.

    There is none if characters are dropped, or if an unknown token can replace a whole word.

    Args:
        parts: ``normalizer`` and ``pre_tokenizer`` as in ``tokenizer.json``.
        vocabulary: the tokens of a BPE model.
        added: the texts of the added tokens; none of them absorbs the white space around it.
        byte_fallback: whether the model writes unknown characters as bytes.
        alphabet: the characters that stand for bytes in a byte-level vocabulary.
    """
    shrinks = _shrinking(parts["normalizer"])
    kinds = _kinds(parts["pre_tokenizer"])
    if shrinks is None or kinds is None:
        return None
    tokens = set(vocabulary)
    if "ByteLevel" in kinds and tokens.issuperset(alphabet):
        longest = max(map(len, tokens))
    elif byte_fallback and tokens >= _BYTES:
        longest = max(len(token.replace("▁", " ").encode()) for token in tokens)
    else:
        return None
    return max(longest * shrinks, *(len(text.encode()) * shrinks for text in added), 1)


def _shrinking(normalizer: Mapping[str, Any] | None) -> int | None:
    """The factor by which a normalizer can shorten a text; None if it can drop parts of it."""
    factor = 1
    for part in [] if normalizer is None else normalizer.get("normalizers", [normalizer]):
        match part:
            case {"type": "NFC"}:
                factor = _SHRINKS
            case {"type": "Prepend"}:
                pass
            case {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}:
                pass
            case _:
                return None
    return factor


def _kinds(pre_tokenizer: Mapping[str, Any] | None) -> set[str] | None:
    """The types of the pre-tokenizers; None if one can drop parts of the text."""
    if pre_tokenizer is None:
        return set()
    parts = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    kinds = {part.get("type") for part in parts}
    removes = any(part.get("behavior") == "Removed" for part in parts)
    return None if removes or not kinds <= _KEEP_ALL else kinds
