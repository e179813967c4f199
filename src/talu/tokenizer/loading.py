"""Builds a tokenizer from the content of tokenizer.json and the settings of other files."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import tokenizers
from tokenizers import AddedToken
from tokenizers.models import BPE

from talu._native import Texts, read_tokenizer_json
from talu.exceptions import TokenizerError
from talu.tokenizer.classes import (
    adapt_parts,
    adapt_post_processor,
    default_texts,
    default_tokens,
    effective_class,
    lower_first,
)
from talu.tokenizer.files import (
    MAX_TOKENIZER,
    TokenSettings,
    check_size,
    damaged,
    read_settings,
)
from talu.tokenizer.growth import check_growth, check_model, normalizer_in
from talu.tokenizer.guarded import BackendError, guarded
from talu.tokenizer.replaced import note_on_replaced_parts, state_of
from talu.tokenizer.vocabulary import Entries, Vocabulary, has_affixes, listed_merges
from talu.unicode import is_unicode

__all__ = ["Loaded", "build", "load"]

_CONVERT = (
    'save it in the fast format first: python -c "from transformers import AutoTokenizer as T; '
    "T.from_pretrained('{folder}').save_pretrained('{folder}')\""
)
_NO_MODEL: dict[str, object] = {"type": "BPE", "vocab": {}, "merges": []}
_OTHER_FORMATS = ("tokenizer.model", "tekken.json", "vocab.json", "vocab.txt", "spiece.model")


class Loaded(NamedTuple):
    """A tokenizer of a model.

    Attributes:
        vocabulary: the tokenizer, with the settings of all files applied.
        names: special tokens by the names that templates use, such as ``bos_token``.
        notes: settings of the files that are not followed.
    """

    vocabulary: Vocabulary
    names: dict[str, str]
    notes: tuple[str, ...]

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """The tokenizer with its whole vocabulary."""
        return self.vocabulary.whole()


def load(folder: Path, *, lower_case: bool = False) -> Loaded:
    """The tokenizer of a checkpoint folder.

    Args:
        folder: the checkpoint's.
        lower_case: see ``build``.

    Raises:
        TokenizerError: a file is missing or damaged; the message names it and says what to do.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise _missing(folder)
    check_size(path, MAX_TOKENIZER)
    settings = read_settings(folder)
    try:
        content = guarded(path.read_bytes)
    except BackendError as error:
        raise damaged(path, error) from error
    return build(content, settings, path, lower_case=lower_case)


def build(
    content: bytes, settings: TokenSettings, path: Path, *, lower_case: bool = False
) -> Loaded:
    """Build a tokenizer.

    Args:
        content: that of a ``tokenizer.json``.
        settings: what other files, or other parts of the file, say.
        path: the file, for messages.
        lower_case: lower-case every text before all else, except for special tokens in it.

    Raises:
        TokenizerError: the content is damaged, or could make a short text very long.
    """
    try:
        backend, entries = _load_part(content, settings) or (_load(content), None)
        names, notes = _configure(backend, settings)
        if lower_case:
            guarded(lower_first, backend)
    except BackendError as error:
        raise damaged(path, error) from error
    return Loaded(Vocabulary(backend, entries), names, notes)


def _load(content: bytes) -> tokenizers.Tokenizer:
    """Load ``tokenizer.json`` after checking how much its parts can lengthen a text.

    The normalizer is checked first, because loading applies it to the added tokens.
    """
    normalizer = guarded(lambda: normalizer_in(content.decode()))
    alone = {"version": "1.0", "added_tokens": [], "normalizer": normalizer, "model": _NO_MODEL}
    backend = guarded(tokenizers.Tokenizer.from_str, json.dumps(alone))
    check_growth({"normalizer": state_of(backend.normalizer)})
    backend = guarded(tokenizers.Tokenizer.from_buffer, content)
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


def _load_part(
    content: bytes, settings: TokenSettings
) -> tuple[tokenizers.Tokenizer, Entries] | None:
    """Load ``tokenizer.json`` without the tokens that only texts need, if it is of the usual form.

    Returns:
        A tokenizer whose model has the tokens that the settings name, and its whole vocabulary;
        None for a file that has to be loaded as a whole.
    """
    read = read_tokenizer_json(content)
    if read is None:
        return None
    rest, texts, merges = read
    try:
        state = json.loads(rest)
    except (ValueError, RecursionError):
        return None
    model, added = state["model"], _added_ids(state.get("added_tokens"), texts)
    if model.get("type") != "BPE" or added is None:
        return None
    ids = dict(added)
    for text in {*_texts_of(settings), model.get("unk_token")} - {None}:
        number = texts.find(text) if isinstance(text, str) and is_unicode(text) else None
        if number is not None:
            ids.setdefault(text, number)
        elif text not in ids:
            return None  # a new token, whose id the whole vocabulary decides
    for tokens in default_texts():
        if (number := texts.find(tokens)) is not None:
            ids.setdefault(tokens, number)
    backend = _load(json.dumps(state | {"model": model | {"vocab": ids, "merges": []}}).encode())
    if has_affixes(backend.model):
        return None
    return backend, Entries(texts, partial(listed_merges, texts, merges))


def _added_ids(tokens: object, texts: Texts) -> dict[str, int] | None:
    """The ids of the added tokens; None if they are not those that the vocabulary implies."""
    ids: dict[str, int] = {}
    for token in tokens if isinstance(tokens, list) else []:
        match token:
            case {"id": int(number), "content": str(text)} if text and is_unicode(text):
                known = texts.find(text)
                following = max([len(texts) - 1, *ids.values()]) + 1 if known is None else known
                if text in ids or number != following:
                    return None
                ids[text] = number
            case _:
                return None
    return ids


def _texts_of(settings: TokenSettings) -> set[str]:
    """The tokens that the settings add, or mark as special."""
    tokens = [*settings.added, *settings.extra, *settings.named.values()]
    return {token.content for token in tokens if token is not None}


def _configure(
    backend: tokenizers.Tokenizer, settings: TokenSettings
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Apply the other files' settings to a tokenizer; return its named tokens and notes."""
    padding = guarded(lambda: backend.padding)
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
        if token and guarded(backend.token_to_id, token.content) is not None
    } | dict(settings.named)
    if padding is not None:
        named.setdefault("pad_token", AddedToken(padding["pad_token"], special=True))
    guarded(adapt_parts, name, settings, backend)
    guarded(_add_tokens, backend, settings, [token for token in named.values() if token])
    guarded(adapt_post_processor, name, named, backend)
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
    guarded(backend.encode, "Does it work?")  # incompatible parts fail here
    ends = guarded(backend.encode, "", add_special_tokens=True).ids
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
