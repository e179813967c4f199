"""Splits a long text into pieces whose tokens, joined, are the tokens of the text.

A call of the ``tokenizers`` package cannot be interrupted. Between two pieces a time limit and the
number of tokens so far can be checked. A text is only cut where the parts of the tokenizer are
known to treat both sides independently; decision 0014 has the argument.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from talu.tokenizer.replaced import steps_of

__all__ = ["PIECE", "break_pattern", "pieces"]

PIECE = 2**16  # characters; a piece takes about 50 ms
Step = Mapping[str, Any]  # a normalizer or pre-tokenizer as in ``tokenizer.json``

_CJK = "一-鿿ぁ-ゖァ-ヺ가-힣"  # without marks, so that no normalizer joins one to the next
_LATIN = "!-~À-ʯ"
_BEFORE = f"{_LATIN}\u0391-\u0482\u048a-\u052fא-תء-غف-يऄ-ह{_CJK}"
_AT_SPACE = rf"(?<=[{_BEFORE}])(?= \S)"
_AT_LINE = r"(?<=[A-Za-z0-9])(?=\n\S)"
_AT_CJK_PUNCTUATION = rf"(?<=[{_CJK}])(?=[\uff0c\u3002\u3001\uff01\uff1f])"
_BETWEEN_CJK = "(?<=[一-鿿])(?=[一-鿿])"

_MARKED = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
_CHARACTERWISE = {
    *("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer", "Precompiled")
}
_DROPS_SPACES = {"BertPreTokenizer", "WhitespaceSplit", "Whitespace"}
_WORDWISE = {*_DROPS_SPACES, "ByteLevel", "Digits", "Metaspace", "Punctuation"}
_PUNCTUATION = {
    *(r" ?[^\s\p{L}\p{N}]+", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}]+[\r\n/]*")
}
_ALTERNATIVES = {  # of the patterns of Split; none matches a visible character and then a space
    *("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "(?i:'s|'t|'re|'ve|'m|'ll|'d)"),
    "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
    r"[^\r\n\p{L}\p{N}]?\p{L}+",
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
    *(r" ?\p{L}+", r" ?\p{N}+", r"\p{N}", r"\p{N}+", r"\p{N}{1,3}", r"\p{N}{1,2}"),
    *_PUNCTUATION,
    *(r"\s*[\r\n]+", r"\s*[\r\n]", r"\s+(?!\S)", r"\s+", "[一-龥\u3040-ゟ\u30a0-ヿ]+"),
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
}


def break_pattern(
    normalizer: object, pre_tokenizer: object, tokens: Iterable[Any], vocabulary: Iterable[str]
) -> re.Pattern[str] | None:
    """Matches at the places where a text may be cut; None if no place is known to be safe.

    Args:
        normalizer: of the tokenizer.
        pre_tokenizer: of the tokenizer.
        tokens: the added tokens.
        vocabulary: the other tokens of a BPE model that marks neither the beginning nor the end of
            a word; else empty.
    """
    added = list(tokens)
    if any(token.rstrip or _has_space_inside(token.content) for token in added):
        return None
    steps, words = steps_of(normalizer), steps_of(pre_tokenizer)
    drops_spaces = words != [] and words[0].get("type") in _DROPS_SPACES
    if not all(_is_local(step, drops_spaces) for step in steps):
        return None
    if not all(_keeps_breaks(step) for step in words):
        return None
    places = [_AT_SPACE]
    if not _forces_breaks(words, _MARKED in steps):
        if not _never_crosses_spaces(steps, words, vocabulary):
            return None
    elif drops_spaces or not any(_adds_space(step) for step in words):
        places.append(_AT_LINE)
        if not any(token.single_word or re.search(f"[{_CJK}]", token.content) for token in added):
            places += _places_in_cjk(steps, drops_spaces)
    return re.compile("|".join(places))


def pieces(text: str, places: re.Pattern[str] | None, size: int = PIECE) -> Iterator[str]:
    """The pieces of a text: ``size`` characters, and up to the next place where it may be cut."""
    start = 0
    while places is not None and len(text) - start > size:
        match = places.search(text, start + size)
        if match is None:
            break
        yield text[start : match.start()]
        start = match.start()
    yield text[start:]


def _has_space_inside(content: str) -> bool:
    """Whether a place where a text may be cut could be inside an added token."""
    spaces = [character.isspace() or character == "▁" for character in content]
    return any(spaces) and (len(spaces) == 1 or not all(spaces))


def _is_local(step: Step, drops_spaces: bool) -> bool:
    """Whether a normalizer changes the text before and after a cut independently."""
    match step:
        case {"type": "Replace", "pattern": {"Regex": " {2,}"}}:
            return True
        case {"type": "Strip", "strip_left": left}:
            return drops_spaces or not left
    return step == _MARKED or step.get("type") in _CHARACTERWISE


def _keeps_breaks(step: Step) -> bool:
    """Whether no word of a pre-tokenizer continues over a cut, and none looks back over it."""
    if step.get("type") == "Split":
        return _alternatives(step) <= _ALTERNATIVES and step.get("behavior") == "Isolated"
    return step.get("type") in _WORDWISE


def _forces_breaks(words: Sequence[Step], marked: bool) -> bool:
    """Whether a pre-tokenizer ends a word at every cut.

    Args:
        words: the pre-tokenizers.
        marked: whether the spaces have been replaced before.
    """
    for step in words:
        kind = step.get("type")
        if kind == "Metaspace":
            return bool(step.get("split", True)) and step.get("replacement") == "▁"
        if marked:
            return False
        if kind in _DROPS_SPACES or (kind == "ByteLevel" and step.get("use_regex", True)):
            return True
        if kind == "Split" and r"\s+" in _alternatives(step) and _PUNCTUATION & _alternatives(step):
            return True
    return False


def _adds_space(step: Step) -> bool:
    return step.get("type") == "Metaspace" or bool(step.get("add_prefix_space"))


def _places_in_cjk(steps: Sequence[Step], drops_spaces: bool) -> list[str]:
    """Places in texts without spaces."""
    if any(step.get("handle_chinese_chars") for step in steps):
        return [_BETWEEN_CJK]
    local = all(step.get("type") == "NFC" for step in steps)
    return [_AT_CJK_PUNCTUATION] if local and not drops_spaces else []


def _never_crosses_spaces(
    steps: Sequence[Step], words: Sequence[Step], vocabulary: Iterable[str]
) -> bool:
    """Whether the tokens of a BPE model that sees the whole text end at each cut."""
    if _MARKED not in steps and not any(step.get("replacement") == "▁" for step in words):
        return False
    tokens = set(vocabulary)
    return "▁" in tokens and not any("▁" in token.lstrip("▁") for token in tokens)


def _alternatives(step: Step) -> set[str]:
    """The alternatives of a pattern, without looking into groups."""
    pattern = str(step.get("pattern", {}).get("Regex", ""))
    found, depth, start = set(), 0, 0
    for match in re.finditer(r"\\.|[()\[\]|]", pattern):
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(match[0], 0)
        if match[0] == "|" and depth == 0:
            found.add(pattern[start : match.start()])
            start = match.end()
    return found | {pattern[start:]}
