"""Converts text to the token ids of a checkpoint and back.

Only this package uses ``tokenizers``.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from tokenizers import pre_tokenizers

from talu.error_text import shown
from talu.exceptions import TokenizerError
from talu.tokenizer.decoding import TAG_MARK, IncrementalDecoder
from talu.tokenizer.encoding import TextEncoder, Watch, check_text
from talu.tokenizer.guarded import guarded
from talu.tokenizer.literal import LiteralEncoder, Part
from talu.tokenizer.loading import Loaded
from talu.tokenizer.replaced import state_of
from talu.tokenizer.token_bytes import token_bytes
from talu.unicode import is_unicode

__all__ = ["TAGS", "Tokenizer"]

TAGS = ("<think>", "</think>", "<|/think|>", "<tool_call>", "</tool_call>")


class Tokenizer(TextEncoder):
    """The tokenizer of a checkpoint. Safe for use by several threads.

    Attributes:
        vocabulary_size: number of tokens, added tokens included. A model's embedding table may have
            more rows than that, or fewer, because padding tokens need none.
        special_ids: tokens that are marked as special.
        hidden_ids: tokens that ``decode`` leaves out: the special ones, except the tags of
            reasoning and tool calls.
        special_tokens: texts of the special tokens.
        plain_added_tokens: texts of the other tokens that are recognised wherever they are spelled.
        names: special tokens by the names that templates use, such as ``bos_token``.
        notes: settings of the files that are not followed.
    """

    def __init__(self, loaded: Loaded) -> None:
        """Wrap a loaded tokenizer."""
        super().__init__(loaded.vocabulary)
        backend = self._backend
        self.names, self.notes = loaded.names, loaded.notes
        self._texts: dict[int, str] = {}  # results of ``token_text``
        self._rules = state_of(backend.decoder)
        self.vocabulary_size = loaded.vocabulary.size
        self._splits_special = backend.encode_special_tokens
        added, self._added = loaded.vocabulary.added, loaded.vocabulary.added_ids
        self.special_ids = frozenset(n for n, (_, special) in added.items() if special)
        self.hidden_ids = self.special_ids - {self._added.get(tag) for tag in TAGS}
        spelled = [token for token in added.values() if not token[0].isspace()]
        self.special_tokens = frozenset(text for text, special in spelled if special)
        self.plain_added_tokens = frozenset(text for text, special in spelled if not special)
        self._verbatim = _verbatim(self._rules, self._added)
        self._tags = {tag: number for tag in TAGS if (number := self.token_id(tag)) is not None}

    @property
    def bos_token(self) -> str | None:
        """The token that begins a text; None if the checkpoint names none."""
        return self.names.get("bos_token")

    @property
    def eos_token(self) -> str | None:
        """The token that ends a text; None if the checkpoint names none."""
        return self.names.get("eos_token")

    @property
    def eos_token_id(self) -> int | None:
        """Id of ``eos_token``."""
        return None if self.eos_token is None else self.token_id(self.eos_token)

    def encode_parts(self, parts: Sequence[Part], *, watch: Watch | None = None) -> list[int]:
        """Token ids of the joined parts; special tokens in a literal part are plain text.

        Special tokens are recognised within the other parts, not across parts. ``watch`` is that
        of ``encode``.

        Raises:
            TokenizerError: as in ``encode``; or the vocabulary can write the spelling only as the
                special token.
        """
        whole = "".join(text for text, _ in parts)
        alone = len(parts) < 2 and not any(literal for _, literal in parts)
        if self._splits_special or alone:
            return self.encode(whole, special_tokens=False, watch=watch)
        check_text(whole)
        text = self._literal.text_of(parts)
        ids = self._encoded_by(self._literal.encode, text, watch)
        spelled = {text for text, literal in parts if literal and text in self._added}
        unknown = {self.names.get("unk_token"), getattr(self._backend.model, "unk_token", None)}
        for spelling in spelled - unknown:  # unknown words correctly become the unknown token
            if ids.count(self._added[spelling]) > self._literal.count(text, spelling):
                raise TokenizerError(
                    f"this tokenizer cannot write {spelling!r:.60} as plain text, and a message "
                    "contains it: take it out of the message, or ask for "
                    "allow_special_tokens=True",
                    details={"token": spelling},
                )
        return ids

    def encode_literally(self, text: str) -> list[int]:
        """Token ids of a text in which nothing is a special token.

        Raises:
            TokenizerError: as in ``encode_parts``.
        """
        found = self._spellings
        if found is None:
            return self.encode(text, special_tokens=False)
        pieces = found.split(text)
        return self.encode_parts([(piece, place % 2 == 1) for place, piece in enumerate(pieces)])

    @cached_property
    def _spellings(self) -> re.Pattern[str] | None:
        """Finds the added tokens that a text spells; None if there is none."""
        spelled = sorted(filter(None, self._added), key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, spelled))})") if spelled else None

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of all ids together; bytes that form no character become U+FFFD.

        Spaces around punctuation are never "cleaned up", whatever the checkpoint says, so the text
        is exactly that of the tokens.

        Raises:
            TokenizerError: an id is negative or too large.
        """
        if skip_special_tokens:
            ids = [number for number in ids if number not in self.hidden_ids]
        if not self._verbatim.keys().isdisjoint(ids):
            decoder = self.decoder(skip_special_tokens=False)
            return "".join([*map(decoder.push, ids), decoder.flush()])
        if not all(0 <= number < 2**32 for number in ids):
            raise TokenizerError(f"token ids must be from 0 to 2³² - 1, not {shown(list(ids))}")
        tokens = [text for n in ids if (text := self._vocabulary.token(n)) is not None]
        decoder = self._backend.decoder
        return " ".join(tokens) if decoder is None else decoder.decode(tokens)

    def token_text(self, token_id: int) -> str:
        """The text of one token inside a longer text, leading space and special tokens included."""
        text = self._texts.get(token_id)
        if text is None:
            decoder = self.decoder(skip_special_tokens=False, continues=True)
            text = self._texts[token_id] = decoder.push(token_id) + decoder.flush()
        return text

    def token_bytes(self) -> list[bytes]:
        """The bytes of every token inside a longer text, by id; slow, and not kept."""
        vocabulary, verbatim = self._vocabulary, self._verbatim
        return token_bytes(self._rules, vocabulary.token, self.vocabulary_size, verbatim)

    @property
    def unwritten_ids(self) -> frozenset[int]:
        """Tokens that are no part of a text: the special ones, and the tags of regions."""
        return self.special_ids | set(self._tags.values())

    def tag_id(self, tag: str) -> int | None:
        """The id of a tag that is one token; None if the vocabulary has none."""
        return self._tags.get(tag)

    def token_id(self, text: str) -> int | None:
        """Id of the vocabulary entry with exactly this spelling; None if there is none."""
        if not is_unicode(text):
            return None
        return self._vocabulary.token_id(text)

    def stop_token_id(self, sequence: str) -> int | None:
        """Id of the token that a stop sequence spells, if it is a single token.

        White space after a token without text is ignored, because the text ends there anyway.
        """
        number = self._added.get(sequence.rstrip())
        return number if number in self.hidden_ids else self._added.get(sequence)

    def tags_in(self, texts: Iterable[str]) -> dict[str, int]:
        """The tags, and the other added tokens that these texts contain, with their ids."""
        whole = "\0".join(texts)
        found = {text: n for text, n in self._added.items() if text in whole and not text.isspace()}
        return {**self._tags, **found}

    def mark_tags(self, text: str, tags: Mapping[str, int] | None = None) -> str:
        """A text with tags as it stands in the output of a decoder that marks these tags."""
        tags = self._tags if tags is None else tags
        if not any(tag in text for tag in tags):
            return text
        longest_first = sorted(tags, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, longest_first)), TAG_MARK + r"\g<0>", text)

    def decoder(
        self,
        *,
        skip_special_tokens: bool = True,
        continues: bool = False,
        marks_tags: bool = False,
        tags: Mapping[str, int] | None = None,
    ) -> IncrementalDecoder:
        """A decoder for one reply, token by token; its pieces join to ``decode`` of all tokens.

        Args:
            skip_special_tokens: as in ``decode``.
            continues: the reply follows other text (a raw prompt), so that its leading space is
                kept; ``decode`` of SentencePiece models drops it.
            marks_tags: put ``TAG_MARK`` before each tag that is one token, to distinguish it from a
                tag that is spelled out in several tokens.
            tags: the ids of these tags, which are never left out; None for those of reasoning.
        """
        texts = dict(self._verbatim)
        tags = self._tags if tags is None else tags
        if marks_tags:
            texts |= {number: TAG_MARK + tag for tag, number in tags.items()}
        return IncrementalDecoder(
            self._rules,
            self._vocabulary.token,
            hidden=self.hidden_ids - {*tags.values()} if skip_special_tokens else frozenset(),
            verbatim=texts,
            continues=continues,
        )

    @cached_property
    def _literal(self) -> LiteralEncoder:
        return guarded(LiteralEncoder, self._vocabulary)


def _verbatim(rules: Mapping[str, object] | None, added: Mapping[str, int]) -> dict[int, str]:
    """Added tokens, by id, that a byte-level decoder would mistake for bytes."""
    if not rules or '"ByteLevel"' not in str(rules).replace("'", '"'):
        return {}
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    return {n: text for text, n in added.items() if not text.isascii() and alphabet >= set(text)}
