"""Text to token ids and back: the one adapter on the ``tokenizers`` package.

It reads a checkpoint folder as Hugging Face lays it out (``tokenizer.json``, special tokens and
chat templates beside it). It renders no template and runs no model.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from talu.exceptions import TokenizerError
from talu.tokenizer.decoding import IncrementalDecoder

__all__ = ["Tokenizer"]

_CONVERT = (
    'save it in the fast format first: python -c "from transformers import AutoTokenizer as T; '
    "T.from_pretrained('{folder}').save_pretrained('{folder}')\""
)
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_OTHER_FORMATS = ("tokenizer.model", "tekken.json", "vocab.json", "vocab.txt", "spiece.model")


class Tokenizer:
    """The tokenizer of one checkpoint. Any number of threads may use it at once.

    Attributes:
        vocabulary_size: number of ids, added tokens included; the model's own may be padded beyond.
        special_ids: tokens that structure a prompt and are no text: ``decode`` leaves them out.
            Added tokens that are not marked special, as ``<think>`` often is, are text.
        bos_token, eos_token: as the checkpoint names them, None where it names none.
        eos_token_id: id of ``eos_token``.
        chat_templates: Jinja sources by name, usually one, ``"default"``.
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, config: Mapping[str, Any], templates: Mapping[str, str]
    ) -> None:
        """Wrap a loaded tokenizer; ``config`` is the content of ``tokenizer_config.json``."""
        backend.no_truncation()  # a stored limit would cut texts without a word
        backend.no_padding()
        self._backend = backend
        named = {role: _token(config.get(f"{role}_token")) for role in _ROLES}
        self.bos_token = named["bos"]
        self.eos_token = named["eos"]
        self.chat_templates = dict(templates)
        _mark_special(backend, [token for token in named.values() if token])
        self.eos_token_id = self.token_id(self.eos_token) if self.eos_token else None
        self._rules = _rules(backend)
        self._texts: dict[int, str] = {}  # of single tokens that were asked for
        self.vocabulary_size = backend.get_vocab_size(with_added_tokens=True)
        self.special_ids = frozenset(
            number for number, token in backend.get_added_tokens_decoder().items() if token.special
        )

    @classmethod
    def from_folder(cls, folder: Path) -> "Tokenizer":
        """Load the tokenizer of a checkpoint folder.

        Raises:
            TokenizerError: a file is missing or damaged; the message names it and what to do.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise _missing(folder)
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:
            raise _damaged(path, error) from error
        config = _read_json(folder / "special_tokens_map.json")
        config |= _read_json(folder / "tokenizer_config.json")
        return cls(backend, config, _read_templates(folder, config.get("chat_template")))

    @property
    def chat_template(self) -> str | None:
        """The template for chats; a checkpoint may have none."""
        return self.chat_templates.get("default")

    def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """Ids of a text. Special tokens that are written out in it are recognised as such.

        Args:
            text: any text without lone surrogates.
            special_tokens: add those that ``tokenizer.json`` puts at the ends, BOS for many; like
                transformers it alone is asked (``add_bos_token`` beside it is a relic). A rendered
                chat template has them already: encode it with False.

        Raises:
            TokenizerError: the text is no valid Unicode.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"the text is no valid Unicode: a lone surrogate {text[error.start]!r} at "
                f"character {error.start}; decode its bytes with errors='replace'",
                details={"position": error.start},
            ) from error
        return list(self._backend.encode(text, add_special_tokens=special_tokens).ids)

    def encode_at_most(self, text: str, most: int) -> list[int]:
        """Like ``encode``, but cut to ``most`` ids; the special tokens at the ends stay.

        Raises:
            TokenizerError: the text is no valid Unicode, or ``most`` has no room for those tokens.
        """
        ids = self.encode(text)
        if len(ids) <= most:
            return ids
        room = most - self._backend.num_special_tokens_to_add(False)
        if room < 0:
            raise TokenizerError(f"{most} tokens have no room for the special ones at the ends")
        encoding = self._backend.encode(text, add_special_tokens=False)
        encoding.truncate(room)
        return list(self._backend.post_process(encoding).ids)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of these ids together; bytes that form no character come as U+FFFD.

        No spaces are "cleaned up" around punctuation afterwards, whatever the checkpoint says: the
        text is what the tokens say.
        """
        try:
            return self._backend.decode(ids, skip_special_tokens=skip_special_tokens)
        except OverflowError as error:
            raise TokenizerError(f"token ids are not negative and below 2³²: {error}") from error

    def token_text(self, token_id: int) -> str:
        """What one token adds to a text that goes on, special ones and leading spaces included."""
        text = self._texts.get(token_id)
        if text is None:
            decoder = self.decoder(skip_special_tokens=False, continues=True)
            text = self._texts[token_id] = decoder.push(token_id) + decoder.flush()
        return text

    def token_id(self, text: str) -> int | None:
        """Id of the vocabulary's entry that is written exactly like this."""
        return self._backend.token_to_id(text)

    def decoder(
        self, *, skip_special_tokens: bool = True, continues: bool = False
    ) -> IncrementalDecoder:
        """A decoder for one reply, token by token; its pieces together are ``decode`` of them all.

        Args:
            skip_special_tokens: as in ``decode``.
            continues: the reply goes on after other text (a raw prompt), so that its leading space
                counts; ``decode`` of SentencePiece models drops it.
        """
        hidden = self.special_ids if skip_special_tokens else frozenset[int]()
        return IncrementalDecoder(
            self._rules, self._backend.id_to_token, hidden=hidden, continues=continues
        )


def _rules(backend: tokenizers.Tokenizer) -> dict[str, Any] | None:
    """The decoder object of ``tokenizer.json``, with its defaults filled in."""
    if backend.decoder is None:
        return None
    state = backend.decoder.__getstate__()
    return dict(json.loads(state)) if isinstance(state, bytes) else {}


def _mark_special(backend: tokenizers.Tokenizer, named: Sequence[str]) -> None:
    """Tokens that the configuration gives a role are special, even where the vocabulary forgot."""
    marked = {t.content for t in backend.get_added_tokens_decoder().values() if t.special}
    known = [token for token in named if backend.token_to_id(token) is not None]
    backend.add_special_tokens([token for token in known if token not in marked])


def _token(value: object) -> str | None:
    """A special token of the configuration: its text, or an object that describes it."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def _read_templates(folder: Path, configured: object) -> dict[str, str]:
    """Files win over ``tokenizer_config.json``, as in transformers."""
    templates: dict[str, str] = {}
    entries = [{"name": "default", "template": configured}] if configured else []
    for entry in configured if isinstance(configured, list) else entries:
        match entry:
            case {"name": str(name), "template": str(template)}:
                templates[name] = template
            case _:
                problem = "chat_template is neither a text nor a list of named templates"
                raise _damaged(folder / "tokenizer_config.json", ValueError(problem))
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        templates[path.stem] = _read_text(path)
    if (folder / "chat_template.jinja").is_file():
        templates["default"] = _read_text(folder / "chat_template.jinja")
    return templates


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if not isinstance(content, dict):
        raise _damaged(path, TypeError("it holds no JSON object"))
    return content


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> TokenizerError:
    return TokenizerError(
        f"{path} cannot be read: {error}; take the file from the model's page again",
        details={"path": str(path)},
    )


def _missing(folder: Path) -> TokenizerError:
    other = next((name for name in _OTHER_FORMATS if (folder / name).is_file()), None)
    if other is None:
        advice = "a checkpoint needs one: take the file from the model's page"
    else:
        advice = f"it has {other}, which talu does not read; {_CONVERT.format(folder=folder)}"
    return TokenizerError(
        f"there is no tokenizer.json in {folder}; {advice}",
        details={"path": str(folder / "tokenizer.json")},
    )
