"""Describes a tokenizer in the metadata of a GGUF file; the reverse of ``talu.tokenizer.gguf``.

The description is read back, and both tokenizers are compared on texts that would tell them apart.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken

from talu._native import Texts
from talu.error_text import shown
from talu.tokenizer.gguf import TEMPLATE, build_from_metadata
from talu.tokenizer.gguf_export_models import GgufTokenizerError, describe_model, refused
from talu.tokenizer.gguf_samples import sample_texts
from talu.tokenizer.gguf_vocabulary import (
    CONTROL,
    KEY,
    NORMAL,
    ROLES,
    UNUSED,
    USER_DEFINED,
    GgufVocabulary,
    end_token_ids,
)
from talu.tokenizer.loading import Loaded

__all__ = ["GgufTokenizerError", "tokenizer_metadata"]

LISTED = 4  # tokens in a note


def tokenizer_metadata(
    loaded: Loaded,
    size: int,
    *,
    ends: Collection[int] | None,
    templates: Mapping[str, str],
    texts: Iterable[str],
) -> tuple[dict[str, Any], list[str]]:
    """Describe a tokenizer.

    Args:
        loaded: the tokenizer.
        size: number of tokens that have an embedding.
        ends: the tokens that end a generation; None if the model does not generate.
        templates: chat templates by name.
        texts: on which the description is checked, besides those of ``sample_texts``.

    Returns:
        values by key, and notes on what they cannot hold.

    Raises:
        GgufTokenizerError: GGUF cannot describe the tokenizer; the message says why.
    """
    backend = loaded.backend
    vocabulary, notes = _vocabulary(loaded, size)
    described = describe_model(backend, vocabulary)
    values: dict[str, Any] = {
        **{f"{role}_token_id": number for role, number in vocabulary.roles.items()},
        **described.metadata,
        "tokens": described.tokens or [*vocabulary.tokens],
        "token_type": np.array(described.types, np.int32),
    }
    metadata = {f"{KEY}{key}": value for key, value in values.items()}
    if "default" in templates:
        metadata[TEMPLATE] = templates["default"]
    if others := [name for name in templates if name != "default"]:
        metadata["tokenizer.chat_templates"] = others
        metadata |= {f"{TEMPLATE}.{name}": templates[name] for name in others}
    notes += [*described.notes, *_add_ends(metadata, vocabulary, ends), *_flags(backend)]
    checked = [*texts, *sample_texts()]
    if described.composes:
        checked = [backend.normalizer.normalize_str(text) for text in checked]
    _check(backend, metadata, checked)
    return metadata, notes


def _vocabulary(loaded: Loaded, size: int) -> tuple[GgufVocabulary, list[str]]:
    """The tokens in the order of their ids, with their types and roles."""
    backend = loaded.backend
    ids = backend.get_vocab(with_added_tokens=True)
    added = backend.get_added_tokens_decoder()
    texts: list[str | None] = [None] * size
    types = [UNUSED] * size
    for text, number in ids.items():
        if number < size:
            texts[number] = text
            types[number] = _type(added.get(number))
    tokens = [text or _unused(number, ids) for number, text in enumerate(texts)]
    roles = {
        role: ids[loaded.names[name]]
        for role, name in ROLES.items()
        if ids.get(loaded.names.get(name, ""), size) < size
    }
    beyond = sorted(number for number in ids.values() if number >= size)
    notes = []
    if beyond:
        names = {number: text for text, number in ids.items()}
        notes.append(
            f"tokens without an embedding are left out: {_listed(names[n] for n in beyond)}"
        )
    vocabulary = GgufVocabulary(
        tokens=Texts(tokens), types=bytes(types), scores=[0.0] * size, roles=roles, notes=()
    )
    return vocabulary, notes


def _type(added: AddedToken | None) -> int:
    if added is None:
        return NORMAL
    return CONTROL if added.special else USER_DEFINED


def _unused(number: int, known: Collection[str]) -> str:
    """A text for a row of the embedding table that no token uses."""
    text = f"[PAD{number}]"
    while text in known:
        text = f"[{text}]"
    return text


def _add_ends(
    metadata: dict[str, Any], vocabulary: GgufVocabulary, ends: Collection[int] | None
) -> list[str]:
    """Name the tokens that end a generation; return notes on differences."""
    if ends is None:
        return []
    tokens = vocabulary.tokens
    if ends and f"{KEY}eos_token_id" not in metadata:
        metadata[f"{KEY}eos_token_id"] = min(ends)
    for role in ("eot", "eom"):
        missing = set(ends).difference(end_token_ids(metadata, ""))
        if missing:
            metadata[f"{KEY}{role}_token_id"] = min(missing)
    found = set(end_token_ids(metadata, ""))
    notes = []
    if missing := set(ends) - found:
        names = _listed(tokens[number] for number in sorted(missing))
        notes.append(f"the file has no place for further tokens that end an answer: {names}")
    if more := found - set(ends):
        names = _listed(tokens[number] for number in sorted(more))
        notes.append(f"programs that read the file also end answers at {names}")
    return notes


def _flags(backend: tokenizers.Tokenizer) -> list[str]:
    """A note on added tokens that are found in other ways than files can say."""
    added = backend.get_added_tokens_decoder().values()
    special = [
        token.content for token in added if token.lstrip or token.rstrip or token.single_word
    ]
    if not special:
        return []
    return [
        "the file cannot say that these tokens take the white space beside them, or are whole "
        f"words: {_listed(special)}"
    ]


def _check(
    backend: tokenizers.Tokenizer, metadata: Mapping[str, Any], texts: Iterable[str]
) -> None:
    """Compare the tokenizer that the metadata describes with the original.

    Raises:
        GgufTokenizerError: they differ.
    """
    found = build_from_metadata(metadata, "the converted model").backend
    for text in texts:
        if found.encode(text).ids != backend.encode(text).ids:
            raise refused(f"with the nearest that it can, {shown(text)} would become other tokens")


def _listed(texts: Iterable[str]) -> str:
    found = [*texts]
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return ", ".join(map(shown, found[:LISTED])) + more
