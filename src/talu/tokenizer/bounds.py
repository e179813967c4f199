"""The longest text that one token can stand for.

From it follows how few tokens a text can have, so that a text that cannot fit is refused before it
is tokenized.
"""

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["longest_piece"]

_SHRINKS = 4  # NFC leaves at least a third of the bytes of a text: "K" of the Kelvin sign
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
    """The most bytes of a text that become one token; None if there is no such number.

    There is none where characters are dropped, and where an unknown token may stand for a word.

    Args:
        parts: ``normalizer`` and ``pre_tokenizer`` as in ``tokenizer.json``.
        vocabulary: the tokens of a BPE model.
        added: the texts of the tokens beside it; none of them takes the white space around it.
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
    """By which factor a normalizer may shorten a text; None if it may drop some of it."""
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
    """The types of the pre-tokenizers; None if one may drop some of the text."""
    if pre_tokenizer is None:
        return set()
    parts = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    kinds = {part.get("type") for part in parts}
    removes = any(part.get("behavior") == "Removed" for part in parts)
    return None if removes or not kinds <= _KEEP_ALL else kinds
