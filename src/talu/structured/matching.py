"""Matches texts with regular expressions in linear time, as the grammars of answers do.

Python's ``re`` backtracks: a pattern such as ``^(a+)+$`` can take years for a text of the model. It
is used only for what linear matching lacks: look-around and back-references.
"""

import json
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

__all__ = ["contains", "has_format", "is_followed", "matches", "spells"]

END = 256


class _Bytes:
    """A vocabulary of single bytes."""

    bos_token_id = None
    eos_token_id = END
    special_token_ids = (END,)
    tokens = (*(bytes((byte,)) for byte in range(256)), b"<end>")

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


def matches(pattern: str, text: str) -> bool:
    """Whether a text as a whole matches a pattern in the syntax of Rust's ``regex``."""
    matcher = _compiled(LLMatcher.grammar_from_regex(pattern))
    if matcher is None:
        return re.fullmatch(pattern, text) is not None
    return _accepts(matcher, text)


def contains(pattern: str, text: str) -> bool:
    """Whether a pattern of a JSON Schema matches anywhere in a text."""
    matcher = _of_schema({"type": "string", "pattern": pattern})
    if matcher is None:
        return re.search(pattern, text) is not None
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
    own = matcher.deep_copy()
    data = list(text.encode("utf-8", "surrogatepass"))
    return own.try_consume_tokens(data) == len(data) and own.is_accepting()


@cache
def _vocabulary() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Bytes()), n_vocab=END + 1, eos_token=END, slices=[])


@lru_cache(maxsize=256)
def _compiled(grammar: str) -> LLMatcher | None:
    """A matcher at the start of a text; None if there is none for this grammar."""
    limits = LLParserLimits(verbose_errors=False)
    matcher = LLMatcher(_vocabulary(), grammar, log_level=0, limits=limits)
    return None if matcher.is_error() else matcher
