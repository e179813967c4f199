"""Matches texts with regular expressions and grammars in linear time, as answers are generated.

Python's ``re`` backtracks: a pattern such as ``^(a+)+$`` can take years for a text of the model. It
is used only for what linear matching lacks: look-around and back-references.
"""

import json
import re
import warnings
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, NamedTuple

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

__all__ = [
    "Match",
    "contains",
    "has_format",
    "is_followed",
    "match_of_grammar",
    "match_of_regex",
    "match_of_schema",
    "matches",
    "regex_problem",
    "spells",
]

END = 256
OF_TOKENS = ("<[", "max_tokens")  # in Lark: the ids of tokens, and their number


class _Bytes:
    """A vocabulary of single bytes."""

    bos_token_id = None
    eos_token_id = END
    special_token_ids = (END,)
    tokens = (*(bytes((byte,)) for byte in range(256)), b"<end>")

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


class Match(NamedTuple):
    """How a text fits a grammar.

    Attributes:
        whole: whether it fits as it is.
        may_go_on: whether a longer text that begins with it fits.
    """

    whole: bool
    may_go_on: bool


def matches(pattern: str, text: str) -> bool:
    """Whether a text as a whole matches a pattern in the syntax of Rust's ``regex``."""
    return match_of_regex(pattern, text).whole


def regex_problem(pattern: str) -> str | None:
    """Why a text is no regular expression, for Rust's ``regex`` and for Python; None if it is."""
    if _compiled(LLMatcher.grammar_from_regex(pattern)) is not None:
        return None
    try:
        _backtracking(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return str(error)
    return None


def match_of_regex(pattern: str, text: str) -> Match:
    """How a text matches a pattern in the syntax of Rust's ``regex``."""
    matcher = _compiled(LLMatcher.grammar_from_regex(pattern))
    if matcher is None:
        return Match(_backtracking(pattern).fullmatch(text) is not None, may_go_on=True)
    return _match(matcher, text)


def match_of_grammar(syntax: str, grammar: str, text: str) -> Match | None:
    """How a text matches a grammar; None if llguidance or its tokens of bytes cannot tell.

    Args:
        syntax: ``"lark"`` or ``"gbnf"``.
        grammar: the grammar. One in Lark may name tokens of a model, or count them.
        text: the text.
    """
    if syntax == "lark" and any(each in grammar for each in OF_TOKENS):
        return None
    try:
        matcher = _compiled(_of_lark(grammar) if syntax == "lark" else _of_gbnf(grammar))
    except GbnfToLarkError:
        return None
    return None if matcher is None else _match(matcher, text)


def match_of_schema(schema: Mapping[str, Any], text: str) -> Match | None:
    """How a text matches a JSON Schema; None if no grammar holds the schema."""
    matcher = _of_schema(schema)
    return None if matcher is None else _match(matcher, text)


def contains(pattern: str, text: str) -> bool:
    """Whether a pattern of a JSON Schema matches anywhere in a text."""
    matcher = _of_schema({"type": "string", "pattern": pattern})
    if matcher is None:
        return _backtracking(pattern).search(text) is not None
    return _accepts(matcher, json.dumps(text, ensure_ascii=False))


def has_format(name: str, text: str) -> bool:
    """Whether a text has a format of JSON Schema, as llguidance defines it."""
    schema = {"type": "string", "format": name}
    return spells(schema, json.dumps(text, ensure_ascii=False))


def spells(schema: Mapping[str, Any], text: str) -> bool:
    """Whether the grammar of a schema spells a JSON text; False if there is no such grammar."""
    matcher = _of_schema(schema)
    return matcher is not None and _accepts(matcher, text)


def is_followed(schema: Mapping[str, Any]) -> bool:
    """Whether there is a grammar of a schema."""
    return _of_schema(schema) is not None


def _of_schema(schema: Mapping[str, Any]) -> LLMatcher | None:
    return _compiled(LLMatcher.grammar_from_json_schema(json.dumps(schema)))


def _accepts(matcher: LLMatcher, text: str) -> bool:
    return _match(matcher, text).whole


def _match(matcher: LLMatcher, text: str) -> Match:
    own = matcher.deep_copy()
    data = list(text.encode("utf-8", "surrogatepass"))
    if own.try_consume_tokens(data) < len(data):
        return Match(whole=False, may_go_on=False)
    return Match(own.is_accepting(), not own.is_stopped())


@lru_cache(maxsize=256)
def _backtracking(pattern: str) -> re.Pattern[str]:
    """A pattern as Python reads it, which warns of what a later version may read otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return re.compile(pattern)


def _of_lark(grammar: str) -> str:
    return str(LLMatcher.grammar_from_lark(grammar))


@lru_cache(maxsize=16)
def _of_gbnf(grammar: str) -> str:
    return _of_lark(gbnf_to_lark(grammar))


@cache
def _vocabulary() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Bytes()), n_vocab=END + 1, eos_token=END, slices=[])


@lru_cache(maxsize=256)
def _compiled(grammar: str) -> LLMatcher | None:
    """A matcher at the start of a text; None if there is none for this grammar."""
    limits = LLParserLimits(verbose_errors=False)
    matcher = LLMatcher(_vocabulary(), grammar, log_level=0, limits=limits)
    return None if matcher.is_error() else matcher
