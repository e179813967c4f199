"""Builds the tokenizer that the metadata of a GGUF file describes.

The ids are those of llama.cpp, whose kinds of tokenizers become models of the ``tokenizers``
package: "gpt2" is byte-level BPE; "llama", SentencePiece's BPE, has scores instead of merges and
becomes a BPE model whose merges are ordered by the scores of their results; "t5" is a unigram
model, "bert" WordPiece.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram, WordPiece

from talu._native import Merges, Texts
from talu.error_text import nearest, shown
from talu.exceptions import TokenizerError
from talu.tokenizer.classes import lower_first
from talu.tokenizer.gguf_vocabulary import (
    CONTROL,
    KEY,
    NORMAL,
    ROLES,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    GgufVocabulary,
    read_vocabulary,
    texts_of,
    wrong,
)
from talu.tokenizer.gguf_words import DEFAULT, GPT_2, PRE_TOKENIZERS, Words
from talu.tokenizer.growth import check_growth
from talu.tokenizer.guarded import BackendError, guarded
from talu.tokenizer.loading import Loaded
from talu.tokenizer.replaced import state_of
from talu.tokenizer.vocabulary import Entries, Vocabulary, listed_merges

__all__ = [
    "SPACE",
    "TEMPLATE",
    "build_from_metadata",
    "chat_templates",
    "merges_of",
    "pre_tokenizer_of",
]

SPACE = "▁"
TEMPLATE = "tokenizer.chat_template"
MAX_PIECE = 1024  # characters of a token that merges make; the longest known has 32
MAX_MERGES = 2**22  # Gemma's vocabulary has half a million
MAX_ADDED = 2**16, 2**20  # added tokens and their characters; Gemma has 6,414
MAX_WORD = 100  # characters of a word that WordPiece looks up, as in BERT
NO_PRE_TOKENIZER = (
    "the file does not name its pre-tokenizer (tokenizer.ggml.pre), so a general one is used and "
    "some texts may get other tokens than in training; use a newer conversion of the model"
)


@dataclass(slots=True, kw_only=True)
class Parts:
    """What becomes a tokenizer.

    Attributes:
        entries: the vocabulary of a model that has only the added tokens so far.
        ends: roles of the tokens that are put before and after a text.
    """

    model: BPE | Unigram | WordPiece
    normalizer: Any = None
    pre_tokenizer: Any = None
    decoder: Any = None
    entries: Entries | None = None
    roles: dict[str, int]
    ends: tuple[str | None, str | None] = (None, None)
    notes: list[str] = field(default_factory=list)


Metadata = Mapping[str, Any]
Build = Callable[[Metadata, GgufVocabulary, str], Parts]


def build_from_metadata(metadata: Metadata, place: str, *, lower_case: bool = False) -> Loaded:
    """The tokenizer.

    Args:
        metadata: of a GGUF file.
        place: the file, for messages.
        lower_case: lower-case every text before all else, except for special tokens in it.

    Raises:
        TokenizerError: it is missing, damaged, or of a kind that is not supported.
    """
    kind = metadata.get(f"{KEY}model")
    if not isinstance(kind, str):
        raise wrong(place, f"it has no {KEY + 'model'!r}; use another file of the model")
    if kind not in KINDS:
        known = ", ".join(map(repr, KINDS))
        raise wrong(place, f"its kind is {shown(kind)}{nearest(kind, KINDS)} (supported: {known})")
    vocabulary = read_vocabulary(metadata, place)
    _check_added(vocabulary, place)
    try:
        parts = KINDS[kind](metadata, vocabulary, place)
        backend = guarded(_assembled, metadata, vocabulary, parts)
        if lower_case:
            guarded(lower_first, backend)
    except BackendError as error:
        raise wrong(place, str(error)[:200]) from error
    names = {ROLES[role]: vocabulary.tokens[number] for role, number in parts.roles.items()}
    whole = Vocabulary(backend, parts.entries)
    return Loaded(whole, names, (*vocabulary.notes, *parts.notes))


def chat_templates(metadata: Metadata, place: str) -> dict[str, str]:
    """Jinja sources by name; the usual one is ``"default"``.

    Raises:
        TokenizerError: one is not a text.
    """
    templates = {}
    for key, value in metadata.items():
        name = key.removeprefix(TEMPLATE)
        if key == TEMPLATE or (name != key and name.startswith(".") and len(name) > 1):
            if not isinstance(value, str):
                raise wrong(place, f"{shown(key)} is not a text")
            templates[name[1:] or "default"] = value
    return templates


def _check_added(vocabulary: GgufVocabulary, place: str) -> None:
    """Refuse far more added tokens than known files have: each takes memory in the search."""
    texts = [vocabulary.tokens[n] for n in vocabulary.ids(CONTROL, UNKNOWN, USER_DEFINED)]
    most, characters = MAX_ADDED
    if len(texts) > most or sum(map(len, texts)) > characters:
        raise wrong(place, f"it has more than {most} special tokens, or {characters} characters")


def _assembled(
    metadata: Metadata, vocabulary: GgufVocabulary, parts: Parts
) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(parts.model)
    if hasattr(parts.model, "_resize_cache"):
        parts.model._resize_cache(0)  # each thread would keep the words until it ends
    for name in ("normalizer", "pre_tokenizer", "decoder"):
        if (part := getattr(parts, name)) is not None:
            setattr(backend, name, part)
    tokens = vocabulary.tokens
    special, plain = vocabulary.ids(CONTROL, UNKNOWN), vocabulary.ids(USER_DEFINED)
    strips = _strips(metadata, [*special, *plain], tokens)
    texts = [tokens[number] for number in special]
    backend.add_special_tokens(
        [_added(text, True, strips[text]) if text in strips else text for text in texts]
    )
    texts = [tokens[number] for number in plain]
    backend.add_tokens([_added(text, False, strips.get(text)) for text in texts])
    before, after = (None if role is None else parts.roles.get(role) for role in parts.ends)
    if before is not None or after is not None:
        ends = [None if number is None else (tokens[number], number) for number in (before, after)]
        first, last = ([] if end is None else [end[0]] for end in ends)
        backend.post_processor = processors.TemplateProcessing(
            single=[*first, "$A", *last],
            special_tokens=sorted({end for end in ends if end is not None}),
        )
    guarded(backend.encode, "Does it work?")  # incompatible parts fail here
    return backend


def _added(text: str, special: bool, strip: str | None) -> AddedToken:
    return AddedToken(
        text, special=special, normalized=False, lstrip=strip == "left", rstrip=strip == "right"
    )


def _strips(metadata: Metadata, ids: list[int], tokens: Sequence[str]) -> dict[str, str]:
    """The sides on which added tokens absorb white space; files do not say it."""
    pre, name = (str(metadata.get(key, "")) for key in (f"{KEY}pre", "general.name"))
    if pre in ("jina-v2-de", "jina-v2-es", "jina-v2-code"):
        return {"<mask>": "left"}
    if metadata.get("general.architecture") in ("nomic-bert-moe", "jina-bert-v3"):
        return {"<mask>": "left"}
    if "phi-3" in name.lower() or "phi3" in name.lower():
        kept = ("<unk>", "<s>", "<|endoftext|>")
        return {tokens[number]: "right" for number in ids if tokens[number] not in kept}
    return {"[MASK]": "left"} if "modern-bert" in name.lower() else {}


def _flag(metadata: Metadata, name: str, default: bool, place: str) -> bool:
    value = metadata.get(KEY + name, default)
    if not isinstance(value, bool):
        raise wrong(place, f"{KEY + name!r} is {shown(value)}, neither true nor false")
    return value


def _ends(
    metadata: Metadata, place: str, roles: Mapping[str, int], *, bos: bool, eos: bool = False
) -> tuple[str | None, str | None]:
    """The roles of the tokens around a text; the flags are defaults.

    Raises:
        TokenizerError: there is no token of a role.
    """
    found: list[str | None] = []
    for role, default in (("bos", bos), ("eos", eos)):
        wanted = _flag(metadata, f"add_{role}_token", default, place)
        if wanted and role not in roles:
            raise wrong(place, f"it adds a {role} token, but {KEY}{role}_token_id names none")
        found.append(role if wanted else None)
    return found[0], found[1]


def _roles(vocabulary: GgufVocabulary, **defaults: int) -> dict[str, int]:
    known = {role: n for role, n in defaults.items() if n < len(vocabulary.tokens)}
    return {**known, **vocabulary.roles}


def _bpe(metadata: Metadata, vocabulary: GgufVocabulary, place: str) -> Parts:
    """Byte-level BPE, or the BPE of Gemma 4, which works on characters."""
    kind, notes = metadata.get(f"{KEY}pre"), []
    if metadata[f"{KEY}model"] == "gemma4":
        kind = "gemma4"
    words: Words | None = DEFAULT
    if kind is None:
        notes.append(NO_PRE_TOKENIZER)
    else:
        words = PRE_TOKENIZERS.get(kind) if isinstance(kind, str) else None
    if words is None:
        hint = nearest(str(kind), PRE_TOKENIZERS)
        raise wrong(place, f"its pre-tokenizer {shown(kind)} is unknown{hint}")
    roles = dict(vocabulary.roles)
    parts = Parts(
        model=_added_only(
            vocabulary, ignore_merges=words.whole_words, byte_fallback=not words.bytes
        ),
        entries=_listed(metadata, vocabulary, place),
        pre_tokenizer=pre_tokenizer_of(words),
        decoder=decoders.ByteLevel(),
        roles=roles,
        ends=_ends(metadata, place, roles, bos=words.bos),
        notes=notes,
    )
    if not words.bytes:
        parts.normalizer = normalizers.Replace(" ", SPACE)
        parts.decoder = _sentencepiece_decoder(prefix=False)
    return parts


def pre_tokenizer_of(words: Words) -> Any:
    """What splits a text into words like these."""
    splits = [
        pre_tokenizers.ByteLevel(add_prefix_space=False)
        if pattern == GPT_2 and words.bytes and pattern == words.patterns[-1]
        else pre_tokenizers.Split(Regex(pattern), "isolated")
        for pattern in words.patterns
    ]
    if words.bytes and words.patterns[-1] != GPT_2:
        splits.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    return splits[0] if len(splits) == 1 else pre_tokenizers.Sequence(splits)


def _added_only(vocabulary: GgufVocabulary, unknown: int | None = None, **options: bool) -> BPE:
    """A model that has no tokens yet but the added ones, and that for unknown characters."""
    tokens = vocabulary.tokens
    numbers = vocabulary.ids(CONTROL, UNKNOWN, USER_DEFINED)
    named: dict[str, Any] = {} if unknown is None else {"unk_token": tokens[unknown]}
    numbers += [] if unknown is None else [unknown]
    return guarded(BPE, {tokens[number]: number for number in numbers}, [], **named, **options)


def _listed(metadata: Metadata, vocabulary: GgufVocabulary, place: str) -> Entries:
    """The vocabulary with the merges that the file lists."""
    key = f"{KEY}merges"
    value = metadata.get(key)
    lines = Texts([]) if isinstance(value, list | Texts) and not len(value) else texts_of(value)
    if lines is None:
        raise wrong(place, f"it has no {key!r}; use another file of the model")
    try:
        merges = Merges(vocabulary.tokens, lines)
    except IndexError as error:
        line = lines[int(str(error))]
        raise wrong(place, f"the merge {shown(line)} is not of tokens") from error
    return Entries(vocabulary.tokens, partial(listed_merges, vocabulary.tokens, merges))


def _sentencepiece(metadata: Metadata, vocabulary: GgufVocabulary, place: str) -> Parts:
    """SentencePiece's BPE: the pair whose joined text has the highest score is merged first."""
    roles = _roles(vocabulary, bos=1, eos=2, unknown=0)
    tokens = vocabulary.tokens
    if tokens.longest > MAX_PIECE or tokens.characters > MAX_MERGES:
        merges_of(vocabulary, place)  # refuses most of such files
    prefix = _flag(metadata, "add_space_prefix", True, place)
    steps = [*[normalizers.Prepend(SPACE)] * prefix, normalizers.Replace(" ", SPACE)]
    return Parts(
        model=_added_only(vocabulary, roles.get("unknown"), fuse_unk=True, byte_fallback=True),
        entries=Entries(tokens, lambda numbers: merges_of(vocabulary, place, numbers)),
        normalizer=normalizers.Sequence(steps),
        decoder=_sentencepiece_decoder(prefix=prefix),
        roles=roles,
        ends=_ends(metadata, place, roles, bos=True),
        notes=_note_on_unused(vocabulary),
    )


def _note_on_unused(vocabulary: GgufVocabulary) -> list[str]:
    """A note if there are tokens that no merges can make."""
    tokens = vocabulary.tokens
    unused = tokens.incomplete(vocabulary.chosen(NORMAL, UNUSED))
    return [
        f"{len(unused)} tokens are never used, such as {shown(tokens[number])}, because their "
        "characters are not tokens themselves"
        for number in unused[:1]
    ]


def merges_of(
    vocabulary: GgufVocabulary, place: str, numbers: Sequence[int] | None = None
) -> list[tuple[str, str]]:
    """All pairs of tokens whose joined text is a token, the one with the highest score first.

    Args:
        vocabulary: the file's.
        place: the file, for messages.
        numbers: the tokens to look at, in ascending order; None stands for all.

    Raises:
        TokenizerError: a token is far longer, or there are far more pairs, than in any known file.
    """
    usual = vocabulary.ids(NORMAL, USER_DEFINED, UNUSED, among=numbers)
    texts = {text: text for text in map(vocabulary.tokens.__getitem__, usual)}
    longest = max(map(len, texts), default=0)
    if longest > MAX_PIECE:
        raise wrong(place, f"a token has {longest} characters; the maximum is {MAX_PIECE}")
    merges: list[tuple[str, str]] = []
    scores = dict(zip(texts, map(vocabulary.scores.__getitem__, usual), strict=True))
    for text in sorted(texts, key=lambda text: -scores[text]):
        for at in range(len(text) - 1, 0, -1):
            right = texts.get(text[at:])
            if right is not None and (left := texts.get(text[:at])) is not None:
                merges.append((left, right))
        if len(merges) > MAX_MERGES:
            raise wrong(place, f"more than {MAX_MERGES} pairs of its tokens form a token")
    return merges


def _sentencepiece_decoder(*, prefix: bool) -> Any:
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, *[decoders.Strip(" ", 1, 0)] * prefix])


def _unigram(metadata: Metadata, vocabulary: GgufVocabulary, place: str) -> Parts:
    roles = _roles(vocabulary, eos=1, unknown=2, padding=0)
    if "unknown" not in roles:
        raise wrong(place, "it has no unknown token")
    values = vocabulary.scores
    lowest = min((values[number] for number in vocabulary.ids(NORMAL)), default=0.0)
    scores = [max(score, lowest) for score in values]
    model = guarded(
        Unigram, list(zip(vocabulary.tokens, scores, strict=True)), roles["unknown"], False
    )
    merged = _flag(metadata, "remove_extra_whitespaces", False, place)
    prefix = _flag(metadata, "add_space_prefix", False, place) or merged
    steps = []
    table = metadata.get(f"{KEY}precompiled_charsmap")
    if table is not None:
        steps.append(_precompiled(table, place))
    if merged:
        steps += [
            normalizers.Replace(Regex(pattern), replacement)
            for pattern, replacement in ((r"\A +| +\z", ""), (" {2,}", " "))
        ]
    return Parts(
        model=model,
        normalizer=normalizers.Sequence(steps) if steps else None,
        pre_tokenizer=pre_tokenizers.Metaspace(
            replacement=SPACE, prepend_scheme="always" if prefix else "never", split=merged
        ),
        decoder=decoders.Metaspace(
            replacement=SPACE, prepend_scheme="always" if prefix else "never"
        ),
        roles=roles,
        ends=_ends(metadata, place, roles, bos=False, eos=True),
    )


def _precompiled(table: Any, place: str) -> Any:
    """SentencePiece's table of replacements."""
    try:
        part = guarded(normalizers.Precompiled, bytes(memoryview(table).cast("B")))
        check_growth({"normalizer": state_of(part)})
    except (TypeError, ValueError, LookupError, TokenizerError) as error:
        what = f"its table of replacements is damaged: {str(error)[:200]}"
        raise wrong(place, what) from error
    return part


def _wordpiece(metadata: Metadata, vocabulary: GgufVocabulary, place: str) -> Parts:
    """BERT's WordPiece; in the file, the beginnings of words are marked, not their rest."""
    roles = _roles(vocabulary, bos=101, unknown=100, seperator=102, padding=0, mask=103)
    roles["bos"] = roles["cls"] = vocabulary.roles.get("bos", vocabulary.roles.get("cls", 101))
    for role in ("bos", "unknown", "seperator"):
        if not 0 <= roles.get(role, -1) < len(vocabulary.tokens):
            raise wrong(place, f"it has no {role} token")
    whole = {*vocabulary.ids(CONTROL, UNKNOWN, USER_DEFINED), *roles.values()}
    ids = {
        text if number in whole else text[1:] if text.startswith(SPACE) else f"##{text}": number
        for number, text in enumerate(vocabulary.tokens)
    }
    lower_case = _flag(metadata, "normalizer.lowercase", True, place)
    model = guarded(
        WordPiece,
        ids,
        unk_token=vocabulary.tokens[roles["unknown"]],
        max_input_chars_per_word=MAX_WORD,
    )
    return Parts(
        model=model,
        normalizer=normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=True,
            strip_accents=_flag(metadata, "normalizer.strip_accents", lower_case, place),
            lowercase=lower_case,
        ),
        pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
        decoder=decoders.WordPiece(),
        roles={role: number for role, number in roles.items() if role != "bos"},
        ends=("cls", "seperator"),
    )


def _whitespace(metadata: Metadata, vocabulary: GgufVocabulary, place: str) -> Parts:
    """BPE of characters, in words between white space, which is dropped."""
    lower_case = _flag(metadata, "normalizer.lowercase", False, place)
    roles = dict(vocabulary.roles)
    return Parts(
        model=_added_only(vocabulary, byte_fallback=True),
        entries=_listed(metadata, vocabulary, place),
        normalizer=normalizers.Lowercase() if lower_case else None,
        pre_tokenizer=pre_tokenizers.WhitespaceSplit(),
        roles=roles,
        ends=_ends(metadata, place, roles, bos=False),
    )


KINDS: Mapping[str, Build] = {
    "gpt2": _bpe,
    "llama": _sentencepiece,
    "t5": _unigram,
    "bert": _wordpiece,
    "gemma4": _bpe,
    "whitespace": _whitespace,
}
