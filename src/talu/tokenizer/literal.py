"""Encodes prompts in which some spellings of special tokens are plain text.

The ``tokenizers`` package recognises a special token wherever it is spelled. This encoder shares
the vocabulary of a tokenizer but gives the special tokens random names. The names replace the
special tokens that the template wrote; everything else is plain text.
"""

import os
import re
from collections.abc import Sequence

import tokenizers
from tokenizers import AddedToken
from tokenizers.models import BPE

from talu.tokenizer.vocabulary import Vocabulary

__all__ = ["LiteralEncoder", "Part"]

Part = tuple[str, bool]  # a piece of a prompt, and whether its special tokens are plain text


class LiteralEncoder:
    """An encoder that is told which spellings are plain text. Safe for use by several threads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Share the vocabulary, normalizer and pre-tokenizer of a tokenizer."""
        backend = vocabulary.tokenizer
        added = sorted(backend.get_added_tokens_decoder().items())
        secret = os.urandom(16).hex()  # so that no text can spell a name
        names = {number: f"<{secret}:{number}>" for number, _ in added}
        self._names = {token.content: names[number] for number, token in added}
        # added to a model that has them already, the tokens get its ids
        ids = {name: number for number, name in names.items()}
        self._twin = tokenizers.Tokenizer(BPE(ids, []))
        if backend.normalizer is not None:
            self._twin.normalizer = backend.normalizer
        if backend.pre_tokenizer is not None:
            self._twin.pre_tokenizer = backend.pre_tokenizer
        self._twin.add_tokens([_renamed(token, names[number]) for number, token in added])
        vocabulary.share_model(self._twin)

    def text_of(self, parts: Sequence[Part]) -> str:
        """The text to encode: special tokens replaced by their names, plain text unchanged."""
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
        """Ids of a text that ``text_of`` returned."""
        return list(self._twin.encode_batch_fast([text], add_special_tokens=False)[0].ids)

    def count(self, text: str, token: str) -> int:
        """How often a special token occurs in a text that ``text_of`` returned."""
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
