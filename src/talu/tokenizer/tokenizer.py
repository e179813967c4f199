"""Loads a checkpoint's tokenizer and converts text to token ids and back.

Only this package uses ``tokenizers``.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ParamSpec, TypeVar

import tokenizers
from tokenizers import AddedToken, pre_tokenizers
from tokenizers.models import BPE

from talu.exceptions import TokenizerError
from talu.tokenizer.bounds import longest_piece
from talu.tokenizer.classes import (
    adapt_parts,
    adapt_post_processor,
    default_tokens,
    effective_class,
    lower_first,
)
from talu.tokenizer.decoding import TAG_MARK, IncrementalDecoder
from talu.tokenizer.files import (
    MAX_TOKENIZER,
    TokenSettings,
    check_size,
    damaged,
    read_settings,
    read_templates,
)
from talu.tokenizer.growth import check_growth, check_model, normalizer_in
from talu.tokenizer.literal import LiteralEncoder, Part
from talu.tokenizer.replaced import note_on_replaced_parts, state_of
from talu.tokenizer.splitting import PIECE, break_pattern, pieces
from talu.unicode import check_unicode, is_unicode

__all__ = ["MAX_TEXT", "TAGS", "Tokenizer", "Watch", "check_text"]

MAX_TEXT = 16 * 2**20  # characters of a text; tokenizing that many takes about 2 GB of memory
TAGS = ("<think>", "</think>", "<|/think|>", "<tool_call>", "</tool_call>")
_LONG = 2000  # characters from which releasing the GIL pays off
_USUAL = 6  # characters of a token, rather more than on average
_CONVERT = (
    'save it in the fast format first: python -c "from transformers import AutoTokenizer as T; '
    "T.from_pretrained('{folder}').save_pretrained('{folder}')\""
)
_NO_MODEL: dict[str, object] = {"type": "BPE", "vocab": {}, "merges": []}
_OTHER_FORMATS = ("tokenizer.model", "tekken.json", "vocab.json", "vocab.txt", "spiece.model")

Watch = Callable[[int], None]  # is told how many tokens there are so far, and may raise

P = ParamSpec("P")
R = TypeVar("R")


class Tokenizer:
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
        chat_templates: Jinja sources by name, usually one, ``"default"``.
        notes: settings of the files that are not followed.
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, settings: TokenSettings, templates: Mapping[str, str]
    ) -> None:
        """Wrap a loaded tokenizer and apply the settings of the folder's other files."""
        self.chat_templates = dict(templates)
        self.names, self.notes = _configure(backend, settings)
        self._backend = backend
        self._texts: dict[int, str] = {}  # results of ``token_text``
        self._rules = state_of(backend.decoder)
        self.vocabulary_size = backend.get_vocab_size(with_added_tokens=True)
        self._splits_special = backend.encode_special_tokens
        added = backend.get_added_tokens_decoder()
        self._added = {token.content: number for number, token in added.items()}
        self.special_ids = frozenset(number for number, token in added.items() if token.special)
        self.hidden_ids = frozenset(n for n in self.special_ids if added[n].content not in TAGS)
        spelled = [token for token in added.values() if not token.content.isspace()]
        self.special_tokens = frozenset(token.content for token in spelled if token.special)
        self.plain_added_tokens = frozenset(t.content for t in spelled if not t.special)
        self._verbatim = _verbatim(self._rules, self._added)
        self._tags = {tag: number for tag in TAGS if (number := self.token_id(tag)) is not None}

    @classmethod
    def from_folder(cls, folder: Path, *, lower_case: bool = False) -> "Tokenizer":
        """Load the tokenizer of a checkpoint folder.

        Args:
            folder: the checkpoint's.
            lower_case: lower-case every text before all else, except for special tokens in it.

        Raises:
            TokenizerError: a file is missing or damaged; the message names it and says what to do.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise _missing(folder)
        check_size(path, MAX_TOKENIZER)
        settings = read_settings(folder)
        templates = read_templates(folder, settings.config.get("chat_template"))
        try:
            backend = _load(path)
            tokenizer = cls(backend, settings, templates)
            if lower_case:
                _guarded(lower_first, backend)
            return tokenizer
        except _BackendError as error:
            raise damaged(path, error) from error

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

    @property
    def chat_template(self) -> str | None:
        """The chat template; None if the checkpoint has none."""
        return self.chat_templates.get("default")

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

    def encode_parts(self, parts: Sequence[Part], *, watch: Watch | None = None) -> list[int]:
        """Token ids of the joined parts; special tokens in a literal part are plain text.

        Special tokens are recognised within the other parts, not across parts. ``watch`` is that
        of ``encode``.

        Raises:
            TokenizerError: as in ``encode``; or the vocabulary can write the spelling only as the
                special token.
        """
        whole = "".join(text for text, _ in parts)
        if self._splits_special or len(parts) < 2:
            return self.encode(whole, special_tokens=False, watch=watch)
        check_text(whole)
        text = self._literal.text_of(parts)
        places = None if len(text) <= PIECE else self._places
        encode = self._literal.encode
        ids = _watched((_guarded(encode, piece) for piece in pieces(text, places)), watch)
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

    def encode_at_most(
        self, text: str, most: int, *, at_start: bool = False, watch: Watch | None = None
    ) -> tuple[list[int], bool]:
        """Like ``encode``, but truncated to ``most`` ids; the special tokens at the ends are kept.

        Args:
            text: as in ``encode``.
            most: maximum number of ids.
            at_start: leave out the start of the text instead of its end.
            watch: as in ``encode``.

        Returns:
            The ids, and whether the text has more. The rest of a long text is not tokenized, unless
            it is the start that is left out.

        Raises:
            TokenizerError: as in ``encode``, or ``most`` is too small for those tokens.
        """
        room = most - self._backend.num_special_tokens_to_add(False)
        ends = self._ends_of(text)
        if ends is None:
            ids = self.encode(text)
            if len(ids) > most:
                encoding = self._encoding(text, False)
                side = "left" if at_start else "right"
                encoding.truncate(_checked_room(room, most), direction=side)
                return list(_guarded(self._backend.post_process, encoding).ids), True
            return ids, False
        check_text(text)
        size = min(PIECE, max(_LONG, _USUAL * most))
        enough = None if at_start else room + 1
        ids = _watched(self._by_piece(text, size), watch, enough=enough)
        before, after = ends
        if len(ids) > room:
            first = len(ids) - room if at_start else 0
            return [*before, *ids[first : first + _checked_room(room, most)], *after], True
        return [*before, *ids, *after], False

    def fewest_tokens(self, text: str) -> int:
        """The fewest tokens that a text of this length can have; 0 if there is no bound."""
        longest = self._longest
        return 0 if longest is None else -(-len(text) // longest)

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
        try:
            return self._backend.decode(ids, skip_special_tokens=False)
        except OverflowError as error:
            raise TokenizerError(f"token ids must be from 0 to 2³² - 1: {error}") from error

    def token_text(self, token_id: int) -> str:
        """The text of one token inside a longer text, leading space and special tokens included."""
        text = self._texts.get(token_id)
        if text is None:
            decoder = self.decoder(skip_special_tokens=False, continues=True)
            text = self._texts[token_id] = decoder.push(token_id) + decoder.flush()
        return text

    def token_id(self, text: str) -> int | None:
        """Id of the vocabulary entry with exactly this spelling; None if there is none."""
        if not is_unicode(text):
            return None
        return self._backend.token_to_id(text)

    def stop_token_id(self, sequence: str) -> int | None:
        """Id of the token that a stop sequence spells, if it is a single token.

        White space after a token without text is ignored, because the text ends there anyway.
        """
        number = self._added.get(sequence.rstrip())
        return number if number in self.hidden_ids else self._added.get(sequence)

    def tag_text(self, tag: str) -> str:
        """The text of a tag in the output of a decoder that marks tags."""
        return TAG_MARK + tag if tag in self._tags else tag

    def decoder(
        self,
        *,
        skip_special_tokens: bool = True,
        continues: bool = False,
        marks_tags: bool = False,
    ) -> IncrementalDecoder:
        """A decoder for one reply, token by token; its pieces join to ``decode`` of all tokens.

        Args:
            skip_special_tokens: as in ``decode``.
            continues: the reply follows other text (a raw prompt), so that its leading space is
                kept; ``decode`` of SentencePiece models drops it.
            marks_tags: put ``TAG_MARK`` before each tag that is one token, to distinguish it from a
                tag that is spelled out in several tokens.
        """
        texts = dict(self._verbatim)
        if marks_tags:
            texts |= {number: TAG_MARK + tag for tag, number in self._tags.items()}
        return IncrementalDecoder(
            self._rules,
            self._backend.id_to_token,
            hidden=self.hidden_ids if skip_special_tokens else frozenset(),
            verbatim=texts,
            continues=continues,
        )

    @cached_property
    def _literal(self) -> LiteralEncoder:
        return _guarded(LiteralEncoder, self._backend)

    @cached_property
    def _longest(self) -> int | None:
        backend = self._backend
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
        backend, model = self._backend, self._backend.model
        tokens = backend.get_added_tokens_decoder().values()
        vocabulary: Iterable[str] = ()
        if isinstance(model, BPE) and not model.continuing_subword_prefix:
            vocabulary = () if model.end_of_word_suffix else backend.get_vocab(False)
        return break_pattern(backend.normalizer, backend.pre_tokenizer, tokens, vocabulary)

    @cached_property
    def _ends(self) -> tuple[list[int], list[int]] | None:
        """The special tokens that are put before and after a text; None if that is not known."""
        encoding = _guarded(self._backend.encode, "a", add_special_tokens=True)
        own = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
        return (encoding.ids[: own[0]], encoding.ids[own[-1] + 1 :]) if own else None

    def _ends_of(self, text: str) -> tuple[list[int], list[int]] | None:
        """``_ends`` if the text is long and may be tokenized in pieces, else None."""
        return None if len(text) <= PIECE or self._places is None else self._ends

    def _by_piece(self, text: str, size: int) -> Iterator[list[int]]:
        return (self._encoding(piece, False).ids for piece in pieces(text, self._places, size))

    def _encoding(self, text: str, special_tokens: bool) -> tokenizers.Encoding:
        if len(text) < _LONG:
            return _guarded(self._backend.encode, text, add_special_tokens=special_tokens)
        # the same ids without offsets; this call releases the GIL
        batch = self._backend.encode_batch_fast
        return _guarded(batch, [text], add_special_tokens=special_tokens)[0]


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


class _BackendError(TokenizerError):
    """An error of the ``tokenizers`` package."""


def _guarded(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call the ``tokenizers`` package and convert its errors and Rust panics."""
    try:
        return call(*args, **kwargs)
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"  # its class cannot be imported
        if isinstance(error, TokenizerError) or not (panic or isinstance(error, Exception)):
            raise
        problem = f"{'panicked' if panic else type(error).__name__}: {str(error)[:200]}"
        raise _BackendError(f"the tokenizers package failed: {problem}") from error


def _load(path: Path) -> tokenizers.Tokenizer:
    """Load ``tokenizer.json`` after checking how much its parts can lengthen a text.

    The normalizer is checked first, because loading applies it to the added tokens.
    """
    content = _guarded(path.read_bytes)
    normalizer = _guarded(lambda: normalizer_in(content.decode()))
    alone = {"version": "1.0", "added_tokens": [], "normalizer": normalizer, "model": _NO_MODEL}
    backend = _guarded(tokenizers.Tokenizer.from_str, json.dumps(alone))
    check_growth({"normalizer": state_of(backend.normalizer)})
    backend = _guarded(tokenizers.Tokenizer.from_buffer, content)
    check_growth(
        {
            "normalizer": state_of(backend.normalizer),
            "pre-tokenizer": state_of(backend.pre_tokenizer),
            "post-processor": state_of(backend.post_processor),
            "decoder": state_of(backend.decoder),
        }
    )
    check_model(backend.model)
    return backend


def _configure(
    backend: tokenizers.Tokenizer, settings: TokenSettings
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Apply the other files' settings to a tokenizer; return its named tokens and notes."""
    padding = _guarded(lambda: backend.padding)
    backend.no_truncation()  # a stored limit would truncate texts silently
    backend.no_padding()
    if isinstance(backend.model, BPE):
        backend.model.dropout = None  # used in training, where tokens are chosen at random
    if hasattr(backend.model, "_resize_cache"):
        backend.model._resize_cache(0)  # each thread would keep the words until it ends
    name = effective_class(settings, backend)
    # transformers adds default tokens that the vocabulary lacks, with ids beyond the model's rows
    named = {
        role: token
        for role, token in default_tokens(name).items()
        if token and _guarded(backend.token_to_id, token.content) is not None
    } | dict(settings.named)
    if padding is not None:
        named.setdefault("pad_token", AddedToken(padding["pad_token"], special=True))
    _guarded(adapt_parts, name, settings, backend)
    _guarded(_add_tokens, backend, settings, [token for token in named.values() if token])
    _guarded(adapt_post_processor, name, named, backend)
    backend.encode_special_tokens = bool(settings.flag("split_special_tokens", False))
    names = {role: token.content for role, token in named.items() if token is not None}
    notes = [*_notes(backend, settings, names), *note_on_replaced_parts(name, settings, backend)]
    return names, tuple(notes)


def _add_tokens(
    backend: tokenizers.Tokenizer, settings: TokenSettings, named: Sequence[AddedToken]
) -> None:
    """Add tokens that the vocabulary lacks, and mark named tokens as special."""
    if settings.added:
        backend.add_tokens(list(settings.added))
    known = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    for token in (*named, *settings.extra):
        if token.content not in known:
            known[token.content] = token
            backend.add_special_tokens([token])
    for token in named:
        present = known[token.content]
        if not present.special:
            present.special = True
            backend.add_special_tokens([present])


def _notes(
    backend: tokenizers.Tokenizer, settings: TokenSettings, names: Mapping[str, str]
) -> list[str]:
    """Notes where ``tokenizer.json`` adds other tokens to a text than the configuration says."""
    _guarded(backend.encode, "Does it work?")  # incompatible parts fail here
    ends = _guarded(backend.encode, "", add_special_tokens=True).ids
    notes = []
    for flag, name in (("add_bos_token", "bos_token"), ("add_eos_token", "eos_token")):
        asked = settings.flag(flag)
        if asked is None or name not in names:
            continue
        if asked != (backend.token_to_id(names[name]) in ends):
            notes.append(
                f"tokenizer_config.json says {flag}: {str(asked).lower()}, but tokenizer.json says "
                "otherwise; tokenizer.json is used, as in transformers 5"
            )
    return notes


def _verbatim(rules: Mapping[str, object] | None, added: Mapping[str, int]) -> dict[int, str]:
    """Added tokens, by id, that a byte-level decoder would mistake for bytes."""
    if not rules or '"ByteLevel"' not in str(rules).replace("'", '"'):
        return {}
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    return {n: text for text, n in added.items() if not text.isascii() and alphabet >= set(text)}


def _missing(folder: Path) -> TokenizerError:
    other = next((name for name in _OTHER_FORMATS if (folder / name).is_file()), None)
    if other is None:
        advice = "download the file from the model's page"
    else:
        advice = f"it has {other}, which talu does not read; {_CONVERT.format(folder=folder)}"
    return TokenizerError(
        f"there is no tokenizer.json in {folder}; {advice}",
        details={"path": str(folder / "tokenizer.json")},
    )
