"""Decodes token ids to text one at a time, never splitting a character.

The text of a token depends on its neighbours: bytes form characters, a leading space is dropped.
Each rule of the decoder in ``tokenizer.json`` becomes a stage that keeps only the state it needs.
The cost of a token therefore does not depend on the length of the text, and the pieces together
equal the text of all tokens decoded at once.
"""

import codecs
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from talu.exceptions import TokenizerError

__all__ = ["FALLBACK_BYTES", "LEVEL_BYTES", "TAG_MARK", "IncrementalDecoder"]

TAG_MARK = "\ufdd0"  # put before a tag that is one token; Unicode reserves it for internal use


class IncrementalDecoder:
    """Decodes one reply. Cheap to create; not safe for use by several threads.

    Hidden tokens and ids beyond the vocabulary (models pad their tables) have no text, as in
    ``Tokenizer.decode``.
    """

    def __init__(
        self,
        rules: Mapping[str, Any] | None,
        token_of: Callable[[int], str | None],
        *,
        hidden: frozenset[int] = frozenset(),
        verbatim: Mapping[int, str] | None = None,
        continues: bool = False,
    ) -> None:
        """Begin a text.

        Args:
            rules: the ``decoder`` object of ``tokenizer.json``.
            token_of: the vocabulary's entry of an id, None if there is none.
            hidden: ids without text.
            verbatim: texts of ids that a byte-level decoder must not read as bytes.
            continues: the text follows other text, so its leading space is kept.

        Raises:
            TokenizerError: a rule is not supported.
        """
        self._stages = _stages(rules, continues)
        self._token_of = token_of
        self._hidden = hidden
        self._verbatim = {number: _Verbatim(text) for number, text in (verbatim or {}).items()}

    def push(self, token_id: int) -> str:
        """The text that is complete now; possibly empty, possibly including earlier tokens."""
        if token_id in self._hidden:
            return ""
        token = self._verbatim.get(token_id) or self._token_of(token_id)
        if token is None:
            return ""
        tokens = [token]
        for stage in self._stages:
            tokens = stage.push(tokens)
        return "".join(tokens)

    def flush(self) -> str:
        """The remaining text; bytes that form no character become U+FFFD."""
        tokens: list[str] = []
        for stage in self._stages:
            tokens = stage.push(tokens) + stage.end()
        return "".join(tokens)


class _Verbatim(str):
    """A token that is plain text instead of encoded bytes."""

    __slots__ = ()


class _Stage(Protocol):
    """One rule: takes tokens and returns tokens, possibly after a delay."""

    def push(self, tokens: list[str]) -> list[str]: ...

    def end(self) -> list[str]: ...


class _Each:
    """A rule that depends on one token and on whether it is the first."""

    def __init__(self, change: Callable[[str, bool], str], continues: bool) -> None:
        self._change = change
        self._first = not continues

    def push(self, tokens: list[str]) -> list[str]:
        changed = []
        for token in tokens:
            changed.append(self._change(token, self._first))
            self._first = False
        return changed

    def end(self) -> list[str]:
        return []


def _byte_characters() -> dict[str, int]:
    """The printable characters that represent the 256 bytes in a byte-level vocabulary.

    Printable Latin-1 represents itself; the other bytes map in order to U+0100 onwards. Radford et
    al., 2019 (GPT-2).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(0x100 + place): byte for place, byte in enumerate(others)}


LEVEL_BYTES = _byte_characters()
FALLBACK_BYTES = {f"<0x{b:{case}}>": b for b in range(256) for case in ("02X", "02x")}


class _ByteLevel:
    """Every token is a run of bytes, written as printable characters."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, tokens: list[str]) -> list[str]:
        return [self._utf8.decode(self._bytes(token)) for token in tokens]

    def end(self) -> list[str]:
        return [self._utf8.decode(b"", final=True)]

    def _bytes(self, token: str) -> bytes:
        if isinstance(token, _Verbatim):
            return token.encode()
        try:
            return bytes(LEVEL_BYTES[character] for character in token)
        except KeyError:  # an added token, written as it is
            return token.encode()


class _ByteFallback:
    """Tokens such as ``<0xE2>`` are bytes, the others are text.

    A run of bytes that is not valid UTF-8 becomes one U+FFFD for each byte, even if it begins with
    complete characters. A run is therefore held back until it ends; runs are short, because they
    spell characters that the vocabulary lacks.
    """

    def __init__(self) -> None:
        self._run = bytearray()

    def push(self, tokens: list[str]) -> list[str]:
        out: list[str] = []
        for token in tokens:
            byte = FALLBACK_BYTES.get(token)
            if byte is None:
                out += [*self.end(), token]
            else:
                self._run.append(byte)
        return out

    def end(self) -> list[str]:
        run, self._run = self._run, bytearray()
        try:
            return [run.decode()] if run else []
        except UnicodeDecodeError:
            return ["\ufffd"] * len(run)


class _StripStart:
    """Drops up to ``count`` of a character from the start of the whole text."""

    def __init__(self, character: str, count: int) -> None:
        self._character = character
        self._left = count

    def push(self, tokens: list[str]) -> list[str]:
        return [self._strip(token) if self._left else token for token in tokens]

    def end(self) -> list[str]:
        return []

    def _strip(self, token: str) -> str:
        while self._left and token.startswith(self._character):
            token = token[1:]
            self._left -= 1
        if token:
            self._left = 0
        return token


def _stages(rules: Mapping[str, Any] | None, continues: bool) -> list[_Stage]:
    if rules is None:  # tokens are words
        return [_Each(lambda token, first: token if first else " " + token, continues)]
    parts: Sequence[Mapping[str, Any]] = rules.get("decoders", [rules])
    stages: list[_Stage] = []
    joined = False  # whether an earlier rule joins all tokens into one
    for part in parts:
        match part:
            case {"type": "ByteLevel"} if not joined:
                stages.append(_ByteLevel())
                joined = True
            case {"type": "ByteFallback"} if not joined:
                stages.append(_ByteFallback())
            case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)} if (
                not joined
            ):
                stages.append(_Each(_replace(old, new), continues))
            case {"type": "Metaspace", "replacement": str(mark)} if not joined:
                keep = part.get("prepend_scheme") == "never"
                stages.append(_Each(_metaspace(mark, keep), continues))
            case {"type": "Fuse"}:
                joined = True
            case {"type": "Strip", "content": str(character), "start": int(count), "stop": 0} if (
                joined
            ):
                stages.append(_StripStart(character, 0 if continues else count))
            case _:
                raise TokenizerError(
                    f"the tokenizer's decoder {dict(part)!r:.200} cannot decode token by token; "
                    "models that generate text have ByteLevel, Metaspace or ByteFallback decoders",
                    details={"decoder": dict(part)},
                )
    return stages


def _replace(old: str, new: str) -> Callable[[str, bool], str]:
    return lambda token, first: token.replace(old, new)


def _metaspace(mark: str, keep: bool) -> Callable[[str, bool], str]:
    """``mark`` becomes a space, and nothing in the first token."""
    return lambda token, first: token.replace(mark, "" if first and not keep else " ")
