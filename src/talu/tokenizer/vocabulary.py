"""Gives the ``tokenizers`` package as much of a BPE vocabulary as a text needs.

Building a model of that package takes a second for half a million merges. The ids of a short text
depend only on the tokens that are a part of the text, and on the merges that make them. So a model
of these is built first, and grows with the texts; a long text, or many, get the whole vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import tokenizers
from tokenizers import normalizers
from tokenizers.models import BPE

from talu._native import Merges, Texts
from talu.forks import ForkSafeLock
from talu.tokenizer.decoding import LEVEL_BYTES
from talu.tokenizer.guarded import guarded
from talu.tokenizer.replaced import steps_of

__all__ = ["Entries", "Vocabulary", "has_affixes", "listed_merges"]

MAX_TEXT = 4000  # characters of a text that needs less than the whole vocabulary
MAX_SEEN = 16_000  # characters of all such texts
MAX_KNOWN = 20_000  # tokens of the model; a real vocabulary has a few thousand for MAX_SEEN
SPACE, MARK = " ", "▁"
REPLACES_SPACES = {"type": "Replace", "pattern": {"String": SPACE}, "content": MARK}
SPLITS = ("Digits", "Punctuation", "Split", "Whitespace", "WhitespaceSplit")  # cut, change nothing
OPTIONS = ("unk_token", "fuse_unk", "byte_fallback", "ignore_merges")
BYTE_TEXTS = {byte: character for character, byte in LEVEL_BYTES.items()}

R = TypeVar("R")
Pairs = list[tuple[str, str]]


class Entries(NamedTuple):
    """The vocabulary of a BPE model, before the ``tokenizers`` package has it.

    Attributes:
        texts: the tokens by id.
        merges: the merges that make these tokens, in order; None stands for all tokens.
    """

    texts: Texts
    merges: Callable[[Sequence[int] | None], Pairs]


class Forms(NamedTuple):
    """In which form the pieces of a text are looked up.

    Attributes:
        composed: the text is composed first (NFC).
        marked: spaces become ``MARK``.
        in_bytes: characters become those that stand for their bytes.
        prefix: what may be put before a piece.
    """

    composed: bool
    marked: bool
    in_bytes: bool
    prefix: str

    def fits(self, text: str) -> bool:
        """Whether the pieces of the text are parts of its form."""
        return not self.composed or normalizers.NFC().normalize_str(text) == text

    def tokens_of(self, text: str, texts: Texts) -> list[int]:
        """All tokens that are a part of the text."""
        form, prefix = self._form(text), self._form(self.prefix)
        return [*texts.within(form), *(texts.within(form, prefix) if prefix else ())]

    def _form(self, text: str) -> str:
        if self.marked:
            return text.replace(SPACE, MARK)
        return text.encode().decode("latin-1").translate(BYTE_TEXTS) if self.in_bytes else text


class Vocabulary:
    """A tokenizer, whose model may still lack tokens. Safe for use by several threads.

    Attributes:
        tokenizer: the tokenizer; its model is replaced, everything else stays as it is.
        added: texts of the added tokens by id, and whether they are special.
        added_ids: ids of the added tokens by text.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, entries: Entries | None = None) -> None:
        """Wrap a tokenizer.

        Args:
            tokenizer: all but its model is complete; it must not change afterwards.
            entries: the vocabulary of its model; None if the model has it all.
        """
        self.tokenizer = tokenizer
        self._gate = ForkSafeLock(reentrant=True)
        self._followers = [tokenizer]
        self.added = {
            number: (token.content, token.special)
            for number, token in tokenizer.get_added_tokens_decoder().items()
        }
        self.added_ids = {text: number for number, (text, _) in self.added.items()}
        self._known: set[int] = set()
        self._seen = 0
        self._entries = entries
        self._forms = None if entries is None else forms_of(tokenizer)
        if entries is None:
            return
        self._options = {name: getattr(tokenizer.model, name) for name in OPTIONS}
        if self._forms is None:
            self.whole()
        else:
            self._known.update(self._always(entries.texts))
            self._replace_model(sorted(self._known))

    @property
    def size(self) -> int:
        """Number of tokens, added ones included."""
        entries = self._entries
        if entries is None:
            return self.tokenizer.get_vocab_size(with_added_tokens=True)
        known = len(entries.texts)
        return known + sum(map(known.__le__, self.added))  # and those with ids after them

    def token_id(self, text: str) -> int | None:
        """Id of the token with this text; None if there is none."""
        entries = self._entries
        if entries is None:
            return self.tokenizer.token_to_id(text)
        number = self.added_ids.get(text)
        return entries.texts.find(text) if number is None else number

    def token(self, number: int) -> str | None:
        """Text of a token; None if there is none with this id."""
        entries = self._entries
        if entries is None:
            return self.tokenizer.id_to_token(number)
        if number in self.added:
            return self.added[number][0]
        return entries.texts[number] if 0 <= number < len(entries.texts) else None

    def whole(self) -> tokenizers.Tokenizer:
        """The tokenizer with its whole vocabulary."""
        if self._entries is not None:
            with self._gate.lock:
                if self._entries is not None:
                    self._replace_model(None)
                    self._entries = None
        return self.tokenizer

    def share_model(self, other: tokenizers.Tokenizer) -> None:
        """Give another tokenizer the model of this one, from now on."""
        with self._gate.lock:
            other.model = self.tokenizer.model
            self._followers.append(other)

    def run(self, text: str, work: Callable[[], R]) -> R:
        """Run ``work``, which encodes a text, when the model has all tokens that it needs."""
        if self._entries is None:
            return guarded(work)
        with self._gate.lock:
            self._prepare(text)
            return guarded(work)

    def _prepare(self, text: str) -> None:
        entries, forms = self._entries, self._forms
        if entries is None or forms is None:
            return
        self._seen += len(text)
        if len(text) > MAX_TEXT or self._seen > MAX_SEEN or not forms.fits(text):
            self.whole()
            return
        self._grow(forms.tokens_of(text, entries.texts))

    def _grow(self, numbers: Sequence[int]) -> None:
        if self._known.issuperset(numbers):
            return
        self._known.update(numbers)
        if len(self._known) > MAX_KNOWN:
            self.whole()
        else:
            self._replace_model(sorted(self._known))

    def _replace_model(self, numbers: Sequence[int] | None) -> None:
        """Build a model of these tokens, or of all."""
        entries = self._entries
        assert entries is not None
        texts = entries.texts
        ids = {texts[n]: n for n in (range(len(texts)) if numbers is None else numbers)}
        model = guarded(BPE, ids, entries.merges(numbers), **self._options)
        model._resize_cache(0)  # each thread would keep the words until it ends
        for tokenizer in self._followers:
            tokenizer.model = model

    def _always(self, texts: Texts) -> list[int]:
        """Tokens that stand for any text: for unknown characters, and for bytes."""
        names = [f"<0x{byte:02X}>" for byte in range(256)] if self._options["byte_fallback"] else []
        unknown = self._options["unk_token"]
        found = map(texts.find, [*names, *([] if unknown is None else [unknown])])
        return [number for number in found if number is not None]


def listed_merges(texts: Texts, merges: Merges, numbers: Sequence[int] | None) -> Pairs:
    """The merges of a list that make these tokens, or all."""
    chosen = range(len(merges)) if numbers is None else merges.among(texts, numbers)
    return [(texts[left], texts[right]) for left, right in map(merges.__getitem__, chosen)]


def has_affixes(model: object) -> bool:
    """Whether a BPE model marks the tokens inside or at the end of words."""
    return any(
        getattr(model, name, None) for name in ("continuing_subword_prefix", "end_of_word_suffix")
    )


def forms_of(tokenizer: tokenizers.Tokenizer) -> Forms | None:
    """The form in which a tokenizer looks up pieces; None if that cannot be told beforehand."""
    composed = marked = in_bytes = False
    prefix = ""
    for step in steps_of(tokenizer.normalizer):
        match step:
            case {"type": "NFC"}:
                composed = True
            case {"type": "Prepend", "prepend": " " | "▁" as prefix}:
                pass
            case _ if step == REPLACES_SPACES:
                marked = True
            case _:
                return None
    for step in steps_of(tokenizer.pre_tokenizer):
        match step:
            case _ if in_bytes:  # what follows would split the characters of the bytes
                return None
            case {"type": "ByteLevel", "add_prefix_space": bool(adds)}:
                in_bytes, prefix = True, SPACE if adds else prefix
            case {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme}:
                marked, prefix = True, prefix if scheme == "never" else MARK
            case {"type": kind} if kind in SPLITS:
                pass
            case _:
                return None
    return None if in_bytes and marked else Forms(composed, marked, in_bytes, prefix)
