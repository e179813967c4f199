"""Encodes prompts in which some texts of special tokens are only text.

The ``tokenizers`` package recognises a special token wherever it is spelled. This encoder shares
the vocabulary of a tokenizer, but knows its special tokens by secret names: they are put where the
template wrote a special token, and everything else is plain text.
"""

import re
import secrets
from collections.abc import Sequence

import tokenizers
from tokenizers import AddedToken

__all__ = ["LiteralEncoder", "Part"]

Part = tuple[str, bool]  # a piece of a prompt, and whether it is text even if it spells a token


class LiteralEncoder:
    """An encoder that is told which spellings are text. Any number of threads may use it."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        """Share the vocabulary, normalizer and pre-tokenizer of a tokenizer."""
        self._twin = tokenizers.Tokenizer(backend.model)
        if backend.normalizer is not None:
            self._twin.normalizer = backend.normalizer
        if backend.pre_tokenizer is not None:
            self._twin.pre_tokenizer = backend.pre_tokenizer
        secret = secrets.token_hex(16)  # nobody can spell a name that is not known
        self._names: dict[str, str] = {}
        ids: dict[str, int] = {}
        for number, token in sorted(backend.get_added_tokens_decoder().items()):
            name = f"<{secret}:{number}>"
            self._names[token.content] = name
            ids[name] = number
            self._twin.add_tokens([_renamed(token, name)])
        self._ids = {self._twin.token_to_id(name): number for name, number in ids.items()}

    def text_of(self, parts: Sequence[Part]) -> str:
        """What the twin encodes: special tokens by their names, and text as it is."""
        whole = "".join(text for text, literal in parts if not literal)
        present = sorted((name for name in self._names if name in whole), key=len, reverse=True)
        if not present:
            return "".join(text for text, _ in parts)
        find = re.compile("|".join(map(re.escape, present)))
        return "".join(
            text if literal else find.sub(lambda match: self._names[match[0]], text)
            for text, literal in parts
        )

    def encode(self, text: str) -> list[int]:
        """Ids of a text of ``text_of``."""
        ids = self._twin.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return [self._ids.get(number, number) for number in ids]

    def count(self, text: str, token: str) -> int:
        """How often ``text_of`` wrote a special token."""
        return text.count(self._names[token])


def _renamed(token: AddedToken, name: str) -> AddedToken:
    return AddedToken(
        name,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=token.special,
    )
