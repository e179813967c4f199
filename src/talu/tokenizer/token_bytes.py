"""Gives the bytes of every token, as they stand inside a longer text."""

from collections.abc import Callable, Mapping
from typing import Any

from talu.tokenizer.decoding import FALLBACK_BYTES, LEVEL_BYTES

__all__ = ["token_bytes"]


def token_bytes(
    rules: Mapping[str, Any] | None,
    token_of: Callable[[int], str | None],
    size: int,
    verbatim: Mapping[int, str],
) -> list[bytes]:
    """The bytes of the tokens 0 to ``size`` - 1; those of an id without a token are empty.

    Args:
        rules: the ``decoder`` object of ``tokenizer.json``.
        token_of: the vocabulary's entry of an id, None if there is none.
        size: number of tokens.
        verbatim: texts of ids that a byte-level decoder must not read as bytes.
    """
    convert = _converter(rules)
    found = []
    for number in range(size):
        text = verbatim.get(number)
        if text is not None:
            found.append(text.encode())
            continue
        token = token_of(number)
        found.append(b"" if token is None else convert(token))
    return found


def _converter(rules: Mapping[str, Any] | None) -> Callable[[str], bytes]:
    if rules is None:  # tokens are words
        return lambda token: (" " + token).encode()
    parts = rules.get("decoders", [rules])
    kinds = {part.get("type") for part in parts}
    if "ByteLevel" in kinds:
        return _level_bytes
    changes = [
        (str(part["pattern"]["String"]), str(part["content"]))
        for part in parts
        if part.get("type") == "Replace"
    ]
    changes += [(str(p["replacement"]), " ") for p in parts if p.get("type") == "Metaspace"]
    fallback = FALLBACK_BYTES if "ByteFallback" in kinds else {}

    def convert(token: str) -> bytes:
        byte = fallback.get(token)
        if byte is not None:
            return bytes((byte,))
        for old, new in changes:
            token = token.replace(old, new)
        return token.encode()

    return convert


def _level_bytes(token: str) -> bytes:
    try:
        return bytes([LEVEL_BYTES[character] for character in token])
    except KeyError:  # an added token, written as it is
        return token.encode()
