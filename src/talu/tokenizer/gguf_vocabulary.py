"""Reads the vocabulary of a GGUF file: tokens, their types and scores, and those with a role."""

from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from talu._native import Texts
from talu.error_text import shown
from talu.exceptions import TokenizerError

__all__ = [
    "BYTE", "CONTROL", "NORMAL", "UNKNOWN", "UNUSED", "USER_DEFINED", "GgufVocabulary",
    "end_token_ids", "read_vocabulary", "texts_of", "wrong",
]  # fmt: skip

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # types of tokens
MAX_TOKENS = 2**22
MAX_CHARACTERS = 2**24  # of all tokens together; the largest known vocabularies have 2 million
KEY = "tokenizer.ggml."
INTEGERS = "bBhHiIlLqQ"  # formats of arrays
ROLES = {  # in files, with their known misspelling: names that templates use
    "bos": "bos_token",
    "eos": "eos_token",
    "unknown": "unk_token",
    "seperator": "sep_token",
    "padding": "pad_token",
    "cls": "cls_token",
    "mask": "mask_token",
}
ENDS = ("eos", "eot", "eom")  # roles of tokens that end a generation
END_TEXTS = (  # tokens that end a generation in every model that has them
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
    "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
    "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "[e~[",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
)  # fmt: skip
VISIBLE = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")  # part of the answer
PLAIN_IF = {  # an end text that is not one if a model has all tokens of a set
    "<|end|>": (("<|return|>", "<|call|>"), ("<|flush|>", "<|calls|>")),
    "</s>": (("<|tool_response>",),),
}


class GgufVocabulary(NamedTuple):
    """The tokens of a file.

    Attributes:
        tokens: their texts, by id; all different.
        types: by id, a byte for each.
        scores: by id; 0 if the file has none.
        roles: ids by the names in ``ROLES``, as far as the file has them.
        notes: what the file says and is not followed.
    """

    tokens: Texts
    types: bytes
    scores: Sequence[float]
    roles: Mapping[str, int]
    notes: tuple[str, ...]

    def ids(self, *types: int, among: Sequence[int] | None = None) -> list[int]:
        """The ids of the tokens of these types, of all or among some."""
        if among is not None:
            return [number for number in among if self.types[number] in types]
        chosen = self.chosen(*types)
        found: list[int] = []
        start = chosen.find(1)
        while start >= 0:  # most are neighbours
            end = chosen.find(0, start)
            end = len(chosen) if end < 0 else end
            found.extend(range(start, end))
            start = chosen.find(1, end)
        return found

    def chosen(self, *types: int) -> bytes:
        """A byte for each token: 1 if it is of these types, else 0."""
        return self.types.translate(bytes(kind in types for kind in range(256)))


def read_vocabulary(metadata: Mapping[str, Any], place: str) -> GgufVocabulary:
    """The vocabulary.

    Args:
        metadata: the file's.
        place: the file, for messages.

    Raises:
        TokenizerError: it is missing, damaged, or far larger than any known one.
    """
    tokens = _tokens(metadata, place)
    types = _numbers(metadata, "token_type", INTEGERS, len(tokens), place)
    scores = _numbers(metadata, "scores", INTEGERS + "fd", len(tokens), place)
    notes = []
    roles = {}
    for role in ROLES:
        number = metadata.get(f"{KEY}{role}_token_id")
        if type(number) is int and 0 <= number < len(tokens):
            roles[role] = number
        elif number is not None:
            notes.append(f"{KEY}{role}_token_id is {shown(number)}, which is not a token")
    kinds = bytearray([NORMAL]) * len(tokens) if types is None else _types_in(types)
    for text in END_TEXTS:
        if (place_of := tokens.find(text)) is not None and _ends(text, tokens):
            kinds[place_of] = CONTROL
    for text in VISIBLE:
        if (place_of := tokens.find(text)) is not None:
            kinds[place_of] = USER_DEFINED
    return GgufVocabulary(
        tokens=tokens,
        types=bytes(kinds),
        scores=array("d", bytes(8 * len(tokens))) if scores is None else scores,
        roles=roles,
        notes=tuple(notes),
    )


def end_token_ids(metadata: Mapping[str, Any], place: str) -> list[int]:
    """The tokens that end a generation, sorted.

    Besides those that the file names, they are the tokens that do so in every model; files often
    name one of several.

    Raises:
        TokenizerError: the vocabulary is missing or damaged.
    """
    tokens = _tokens(metadata, place)
    named = [metadata.get(f"{KEY}{role}_token_id") for role in ENDS]
    ids = {number for number in named if type(number) is int and number < len(tokens)}
    ending = (tokens.find(text) for text in END_TEXTS if _ends(text, tokens))
    return sorted(ids | {number for number in ending if number is not None})


def wrong(place: str, what: str) -> TokenizerError:
    """The error for a tokenizer that cannot be used."""
    return TokenizerError(f"the tokenizer in {place} cannot be used: {what}")


def texts_of(value: object) -> Texts | None:
    """An array of texts; None if it is something else, or empty."""
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        value = Texts(value)
    return value if isinstance(value, Texts) and len(value) else None


def _ends(text: str, known: Texts) -> bool:
    sets = PLAIN_IF.get(text, ())
    return not any(all(known.find(other) is not None for other in others) for others in sets)


def _tokens(metadata: Mapping[str, Any], place: str) -> Texts:
    tokens = texts_of(metadata.get(f"{KEY}tokens"))
    if tokens is None:
        raise wrong(place, f"it has no {KEY + 'tokens'!r}; use another file of the model")
    if len(tokens) > MAX_TOKENS or tokens.characters > MAX_CHARACTERS:
        limits = f"{MAX_TOKENS} tokens, or {MAX_CHARACTERS} characters in all of them"
        raise wrong(place, f"it has more than {limits}")
    if tokens.find("") is not None:
        tokens = Texts([text or f"[EMPTY_{number}]" for number, text in enumerate(tokens)])
    if tokens.repeated is not None:
        raise wrong(place, f"the token {shown(tokens[tokens.repeated])} occurs twice")
    return tokens


def _types_in(numbers: memoryview) -> bytearray:
    """The types of tokens; 0, which is none, for numbers that are too large."""
    size, raw = numbers.itemsize, numbers.tobytes()
    if all(raw[place::size].count(0) == len(numbers) for place in range(1, size)):
        return bytearray(raw[::size])
    return bytearray(kind if 0 <= kind < 256 else 0 for kind in numbers)


def _numbers(
    metadata: Mapping[str, Any], name: str, kinds: str, count: int, place: str
) -> memoryview | None:
    """An array with a number for each token; None if there is none."""
    values = metadata.get(KEY + name)
    if values is None:
        return None
    with suppress(TypeError):  # a text or a list
        values = memoryview(values)
    if not isinstance(values, memoryview) or values.format not in kinds:
        raise wrong(place, f"{KEY + name!r} is not an array of numbers")
    if len(values) < count:
        raise wrong(place, f"{KEY + name!r} has {len(values)} values for {count} tokens")
    return values[:count]
