"""Limits how much longer the parts of ``tokenizer.json`` can make a text.

Without a limit, a file of a kilobyte could turn a short prompt into gigabytes of text.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from talu.exceptions import TokenizerError

__all__ = ["check_growth", "check_model", "normalizer_in"]

MAX_GROWTH = 256  # times; those of the known tokenizers are below 40
MAX_CONTENT = 64  # characters that one part puts into a text
MAX_STEPS = 256  # of one part
MAX_ENDS = 64  # special tokens around a text
MAX_WORD = 1000  # characters of a word; WordPiece takes cubic time
_COMPATIBLE = 18  # characters of the longest compatibility decomposition, that of U+FDFA
_UNICODE = {  # characters that one character becomes; doing it again changes nothing
    "BertNormalizer": 12,
    "Lowercase": 3,
    "NFC": 3,
    "NFD": 4,
    "NFKC": _COMPATIBLE,
    "NFKD": _COMPATIBLE,
    "Nmt": 1,
    "Strip": 1,
    "StripAccents": 1,
}
_NESTED = ("normalizers", "pretokenizers", "decoders", "processors")
_TAKES_A_CHARACTER = re.compile(
    r"(\\[sSdDwWnrt]|\\p\{\w+\}|[^\\^$.|?*+()\[\]{}]|\[[^\]\[]+\])(\+|\{[1-9]\d*,?\d*\})?"
)
_AGAIN = re.compile(r'"normalizer"|\\u00[67]')  # the name, or an escaped letter of it


def normalizer_in(content: str) -> object:
    """The normalizer of ``tokenizer.json``, without reading the vocabulary where possible.

    Raises:
        ValueError, RecursionError: the content is not JSON.
    """
    head, _, tail = content.partition('"model"')
    if not _AGAIN.search(tail):
        try:
            return json.loads(head + '"model": null}').get("normalizer")
        except (ValueError, AttributeError):
            pass
    whole = json.loads(content)
    return whole.get("normalizer") if isinstance(whole, dict) else None


def check_growth(parts: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Refuse parts that can make a text far longer than any known tokenizer does.

    Args:
        parts: the normalizer, pre-tokenizer, post-processor and decoder as in ``tokenizer.json``.

    Raises:
        TokenizerError: a part exceeds a limit; the message names both.
    """
    for name, part in parts.items():
        steps = [*_steps(part)]
        if len(steps) > MAX_STEPS:
            raise _exceeded(f"the {name} has {len(steps):,} steps", MAX_STEPS)
        for step in steps:
            _check_contents(name, step)
        growth = _growth(steps)
        if growth > MAX_GROWTH:
            shown = f"{growth:,}" if growth < 10**12 else "more than 10¹²"
            raise _exceeded(f"the {name} can make a text {shown} times as long", MAX_GROWTH)
        ends = sum(map(_ends, steps))
        if ends > MAX_ENDS:
            raise _exceeded(f"the {name} puts {ends:,} special tokens around a text", MAX_ENDS)


def check_model(model: object) -> None:
    """Refuse a model whose affixes or words are far longer than those of any known tokenizer.

    Raises:
        TokenizerError: one exceeds a limit; the message names both.
    """
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        length = len(getattr(model, name, None) or "")
        if length > MAX_CONTENT:
            raise _exceeded(f"{name} of the model has {length:,} characters", MAX_CONTENT)
    longest = getattr(model, "max_input_chars_per_word", 0)
    if longest > MAX_WORD:
        raise _exceeded(f"max_input_chars_per_word of the model is {longest:,}", MAX_WORD)


def _exceeded(problem: str, most: int) -> TokenizerError:
    return TokenizerError(
        f"tokenizer.json is refused: {problem}, and the limit is {most:,}; correct the file, or "
        "download it again from the model's page",
        details={"limit": most},
    )


def _steps(part: Mapping[str, Any] | None) -> Iterable[Mapping[str, Any]]:
    if part is None:
        return
    nested = next((part[key] for key in _NESTED if key in part), None)
    if nested is None:
        yield part
    else:
        for each in nested:
            yield from _steps(each)


def _check_contents(name: str, step: Mapping[str, Any]) -> None:
    for key in ("content", "prepend", "prefix", "suffix", "replacement", "word_delimiter_token"):
        length = len(step.get(key) or "")
        if length > MAX_CONTENT:
            kind = step.get("type", "")
            problem = f"{key} of {kind} in the {name} has {length:,} characters"
            raise _exceeded(problem, MAX_CONTENT)


def _growth(steps: Iterable[Mapping[str, Any]]) -> int:
    """An estimate of the factor by which the steps together can lengthen a text.

    A series of Unicode normalizers counts once, together with a ``Precompiled`` table after it,
    because real tables contain the same decompositions.
    """
    growth = unicode = 1
    for step in steps:
        kind = step.get("type")
        if kind in _UNICODE:
            unicode = max(unicode, _UNICODE[kind])
        elif kind == "Precompiled":
            growth *= max(unicode, _longest_entry(step["precompiled_charsmap"]))
            unicode = 1
        else:
            growth *= unicode * _factor(step)
            unicode = 1
    return growth * unicode


def _factor(step: Mapping[str, Any]) -> int:
    match step:
        case {"type": "Replace", "content": content, "pattern": {"String": pattern}} if pattern:
            return max(1, -(-len(content) // len(pattern)))
        case {"type": "Replace", "content": content, "pattern": {"Regex": pattern}} if (
            _TAKES_A_CHARACTER.fullmatch(pattern)
        ):
            return max(1, len(content))
        case {"type": "Replace", "content": content}:
            return 1 + len(content)  # it may match the empty text between two characters
        case {"type": "Prepend", "prepend": prefix}:
            return 1 + len(prefix)  # of each section between special tokens
        case {"type": "ByteLevel"}:
            return 8 if step.get("add_prefix_space") else 4
        case {"type": "Metaspace" | "WordPiece"}:
            return 2
        case {"type": "BPEDecoder", "suffix": ""} | {"type": "CTC", "word_delimiter_token": ""}:
            return 2
        case {"type": "TemplateProcessing"}:
            return max(1, sum("Sequence" in piece for piece in step["single"]))
    return 1


def _longest_entry(table: str) -> int:
    """The characters of the longest text in a table of ``Precompiled``."""
    data = base64.b64decode(table)
    texts = data[4 + int.from_bytes(data[:4], "little") :].split(b"\0")
    return max(1, *(len(text.decode(errors="replace")) for text in (*texts, b"")))


def _ends(step: Mapping[str, Any]) -> int:
    """The number of ids that a template puts around a text."""
    tokens = step.get("special_tokens", {})
    pieces = [piece["SpecialToken"] for piece in step.get("single", []) if "SpecialToken" in piece]
    return sum(len(tokens.get(piece["id"], {}).get("ids", ())) for piece in pieces)
