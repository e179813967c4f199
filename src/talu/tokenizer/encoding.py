"""Encodes a text, a long one piece by piece, so that time and number of tokens can be checked."""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from typing import NamedTuple

import tokenizers
from tokenizers import pre_tokenizers
from tokenizers.models import BPE

from talu.exceptions import TokenizerError
from talu.tokenizer.bounds import longest_piece
from talu.tokenizer.guarded import guarded
from talu.tokenizer.replaced import state_of
from talu.tokenizer.splitting import PIECE, break_pattern, pieces
from talu.tokenizer.vocabulary import Vocabulary, has_affixes
from talu.unicode import check_unicode

__all__ = ["MAX_TEXT", "PairTemplate", "TextEncoder", "Watch", "check_text"]

MAX_TEXT = 16 * 2**20  # characters of a text; tokenizing that many takes about 2 GB of memory
_LONG = 2000  # characters from which releasing the GIL pays off
_USUAL = 6  # characters of a token, rather more than on average

Watch = Callable[[int], None]  # is told how many tokens there are so far, and may raise


class PairTemplate(NamedTuple):
    """The special tokens around two texts that a network reads together.

    Attributes:
        before, between, after: their ids.
        first: how many of those between the texts belong to the segment of the first text.
    """

    before: list[int]
    between: list[int]
    after: list[int]
    first: int

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.before) + len(self.between) + len(self.after)

    def joined(self, first: list[int], second: list[int]) -> tuple[list[int], int]:
        """The ids of both texts with the special tokens, and where the second segment begins."""
        ids = [*self.before, *first, *self.between, *second, *self.after]
        return ids, len(self.before) + len(first) + self.first


def check_text(text: str, name: str = "the text") -> None:
    """Refuse a text that cannot be tokenized.

    Raises:
        TokenizerError: it has more than ``MAX_TEXT`` characters, or lone surrogates.
    """
    if len(text) > MAX_TEXT:
        raise TokenizerError(
            f"{name} has {len(text):,} characters, and at most {MAX_TEXT:,} are tokenized at "
            "once; split it",
            details={"characters": len(text), "limit": MAX_TEXT},
        )
    check_unicode(name, text)


class TextEncoder:
    """Encodes texts with a loaded tokenizer. Safe for use by several threads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Encode with a tokenizer, which must not change afterwards."""
        self._vocabulary = vocabulary
        self._backend = vocabulary.tokenizer  # for all but its model

    def encode(
        self, text: str, *, special_tokens: bool = True, watch: Watch | None = None
    ) -> list[int]:
        """Token ids of a text. Special tokens that are spelled in it are recognised.

        Args:
            text: any text without lone surrogates, of at most ``MAX_TEXT`` characters.
            special_tokens: add those that ``tokenizer.json`` puts at the ends, often BOS. A
                rendered chat template already has them: encode it with False.
            watch: called between the pieces of a long text with the number of tokens so far; what
                it raises ends the work.

        Raises:
            TokenizerError: the text is too long or not valid Unicode, or the ``tokenizers`` package
                fails.
        """
        check_text(text)
        ends = self._ends_of(text)
        if ends is None:
            return list(self._encoding(text, special_tokens).ids)
        before, after = ends if special_tokens else ([], [])
        return [*before, *_watched(self._by_piece(text, PIECE), watch), *after]

    def encode_at_most(
        self,
        text: str,
        most: int,
        *,
        special_tokens: bool = True,
        at_start: bool = False,
        watch: Watch | None = None,
    ) -> tuple[list[int], bool]:
        """Like ``encode``, but truncated to ``most`` ids; the special tokens at the ends are kept.

        Args:
            text: as in ``encode``.
            most: maximum number of ids.
            special_tokens: as in ``encode``.
            at_start: leave out the start of the text instead of its end.
            watch: as in ``encode``.

        Returns:
            The ids, and whether the text has more. The rest of a long text is not tokenized, unless
            it is the start that is left out.

        Raises:
            TokenizerError: as in ``encode``, or ``most`` is too small for those tokens.
        """
        added = self._backend.num_special_tokens_to_add(False) if special_tokens else 0
        room = most - added
        ends = self._ends_of(text)
        if ends is None:
            ids = self.encode(text, special_tokens=special_tokens)
            if len(ids) > most:
                encoding = self._encoding(text, False)
                side = "left" if at_start else "right"
                encoding.truncate(_checked_room(room, most), direction=side)
                if special_tokens:
                    encoding = guarded(self._backend.post_process, encoding)
                return list(encoding.ids), True
            return ids, False
        check_text(text)
        size = min(PIECE, max(_LONG, _USUAL * most))
        enough = None if at_start else room + 1
        ids = _watched(self._by_piece(text, size), watch, enough=enough)
        before, after = ends if special_tokens else ([], [])
        if len(ids) > room:
            first = len(ids) - room if at_start else 0
            return [*before, *ids[first : first + _checked_room(room, most)], *after], True
        return [*before, *ids, *after], False

    def fewest_tokens(self, text: str) -> int:
        """The fewest tokens that a long text of this length can have; 0 if there is no bound."""
        longest = self._longest if len(text) >= _LONG else None
        return 0 if longest is None else -(-len(text) // longest)

    @cached_property
    def pair_template(self) -> PairTemplate:
        """The special tokens that ``tokenizer.json`` puts around two texts.

        Raises:
            TokenizerError: they do not divide the texts into two segments.
        """
        encoding = self._vocabulary.run("aa", partial(self._backend.encode, "a", "a"))
        texts, ids = encoding.sequence_ids, encoding.ids
        if not {0, 1} <= set(texts):
            raise TokenizerError("the tokenizer does not read two texts together")
        start, end = texts.index(0), len(texts) - texts[::-1].index(0)
        second, stop = texts.index(1), len(texts) - texts[::-1].index(1)
        if second == end:
            raise TokenizerError("the tokenizer puts no token between two texts")
        types = encoding.type_ids
        segment = types.index(1) if 1 in types else second
        if not end <= segment <= second or any(types[segment:]) != all(types[segment:]):
            raise TokenizerError("the tokenizer gives the tokens of two texts unknown types")
        return PairTemplate(ids[:start], ids[end:second], ids[stop:], segment - end)

    def _encoded_by(
        self, encode: Callable[[str], list[int]], text: str, watch: Watch | None
    ) -> list[int]:
        """The ids of a text that this function encodes, a long text piece by piece."""
        places = None if len(text) <= PIECE else self._places
        run = self._vocabulary.run
        found = (run(piece, partial(encode, piece)) for piece in pieces(text, places))
        return _watched(found, watch)

    @cached_property
    def _longest(self) -> int | None:
        backend = self._vocabulary.whole()
        tokens = backend.get_added_tokens_decoder().values()
        if not isinstance(backend.model, BPE) or any(t.lstrip or t.rstrip for t in tokens):
            return None
        return longest_piece(
            {
                "normalizer": state_of(backend.normalizer),
                "pre_tokenizer": state_of(backend.pre_tokenizer),
            },
            backend.get_vocab(with_added_tokens=False),
            [token.content for token in tokens],
            byte_fallback=backend.model.byte_fallback,
            alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )

    @cached_property
    def _places(self) -> re.Pattern[str] | None:
        """Where a text may be cut into pieces; None if it is tokenized as a whole."""
        backend = self._vocabulary.whole()
        model = backend.model
        tokens = backend.get_added_tokens_decoder().values()
        vocabulary: Iterable[str] = ()
        if isinstance(model, BPE) and not has_affixes(model):
            vocabulary = backend.get_vocab(False)
        return break_pattern(backend.normalizer, backend.pre_tokenizer, tokens, vocabulary)

    @cached_property
    def _ends(self) -> tuple[list[int], list[int]] | None:
        """The special tokens that are put before and after a text; None if that is not known."""
        encoding = self._encoding("a", True)
        own = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
        return (encoding.ids[: own[0]], encoding.ids[own[-1] + 1 :]) if own else None

    def _ends_of(self, text: str) -> tuple[list[int], list[int]] | None:
        """``_ends`` if the text is long and may be tokenized in pieces, else None."""
        return None if len(text) <= PIECE or self._places is None else self._ends

    def _by_piece(self, text: str, size: int) -> Iterator[list[int]]:
        return (self._encoding(piece, False).ids for piece in pieces(text, self._places, size))

    def _encoding(self, text: str, special_tokens: bool) -> tokenizers.Encoding:
        if len(text) < _LONG:
            encode = partial(self._backend.encode, text, add_special_tokens=special_tokens)
            return self._vocabulary.run(text, encode)
        # the same ids without offsets; this call releases the GIL
        batch = partial(self._backend.encode_batch_fast, [text], add_special_tokens=special_tokens)
        return self._vocabulary.run(text, batch)[0]


def _watched(
    parts: Iterable[list[int]], watch: Watch | None, *, enough: int | None = None
) -> list[int]:
    """The ids of all parts joined, or of the first ones that make ``enough``."""
    ids: list[int] = []
    for part in parts:
        ids += part
        if watch is not None:
            watch(len(ids))
        if enough is not None and len(ids) >= enough:
            break
    return ids


def _checked_room(room: int, most: int) -> int:
    if room < 0:
        raise TokenizerError(f"{most} tokens are too few for the special tokens at the ends")
    return room
