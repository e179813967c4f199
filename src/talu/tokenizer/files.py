"""Reads the files of a checkpoint folder that describe its tokens and chat templates.

The precedence of the files is that of transformers 5.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken

from talu.error_text import reason
from talu.exceptions import TokenizerError

__all__ = ["TokenSettings", "damaged", "read_settings", "read_templates"]

MAX_TOKENIZER = 256 * 2**20  # bytes of tokenizer.json; the largest known is 40 MB
MAX_FILE = 32 * 2**20  # bytes of each other file
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_STANDARD = tuple(f"{role}_token" for role in _ROLES)
_EXTRA = {"extra_special_tokens", "additional_special_tokens"}


class TokenSettings(NamedTuple):
    """Settings for tokens from the files beside ``tokenizer.json``.

    Attributes:
        config: content of ``tokenizer_config.json``.
        named: special tokens by the names that templates use, such as ``eos_token``; None if a
            file says that there is none.
        model_type: from ``config.json``.
        tokenizer_class: from ``tokenizer_config.json`` or ``config.json``, without "Fast".
        added: tokens that belong to the vocabulary, in the order of their ids.
        extra: further special tokens without a name.
    """

    config: Mapping[str, Any]
    named: Mapping[str, AddedToken | None]
    model_type: str = ""
    tokenizer_class: str = ""
    added: tuple[AddedToken, ...] = ()
    extra: tuple[AddedToken, ...] = ()

    def flag(self, name: str, default: bool | None = None) -> bool | None:
        """A flag of ``tokenizer_config.json``; null counts as absent.

        Raises:
            TokenizerError: it is neither true nor false.
        """
        value = self.config.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise TokenizerError(f"tokenizer_config.json: {name} is {value!r:.60}, not a boolean")
        return value


def read_settings(folder: Path) -> TokenSettings:
    """Read ``tokenizer_config.json`` and the older files that it replaces.

    ``special_tokens_map.json`` takes precedence over ``tokenizer_config.json``, and
    ``added_tokens.json`` is read; if ``tokenizer_config.json`` has ``added_tokens_decoder``, both
    are ignored.

    Raises:
        TokenizerError: a file is damaged; the message names it.
    """
    path = folder / "tokenizer_config.json"
    config = _read_json(path)
    model = _read_json(folder / "config.json")
    declared = config.get("tokenizer_class") or model.get("tokenizer_class")
    with _Reading(path):
        named, extra = _special(config)
        added = _tokens(config.get("added_tokens_decoder") or {})
    if "added_tokens_decoder" not in config:
        path = folder / "special_tokens_map.json"
        mapped = _read_json(path)
        with _Reading(path):
            more, more_extra = _special(mapped)
            named |= more
            if "extra_special_tokens" in mapped or not _EXTRA & config.keys():
                extra += more_extra
        path = folder / "added_tokens.json"
        with _Reading(path):
            special = {token.content for token in (*named.values(), *extra) if token is not None}
            added = _plain_tokens(_read_json(path), special)
    return TokenSettings(
        config=config,
        model_type=str(model.get("model_type") or ""),
        tokenizer_class=str(declared or "").removesuffix("Fast"),
        named=named,
        added=tuple(token for _, token in sorted(added.items())),
        extra=tuple(extra),
    )


def read_templates(folder: Path) -> dict[str, str]:
    """The chat templates of a checkpoint folder by name.

    In ``tokenizer_config.json``, ``chat_template`` is a text, an object of texts by name, or a list
    of objects with ``name`` and ``template``. ``chat_template.jinja`` replaces all of these.

    Raises:
        TokenizerError: a file is damaged; the message names it.
    """
    path = folder / "chat_template.jinja"
    if path.is_file():
        templates = {"default": read_text(path)}
    else:
        path = folder / "tokenizer_config.json"
        templates = _configured(path, _read_json(path).get("chat_template"))
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        templates[path.stem] = read_text(path)
    return templates


def check_size(path: Path, most: int = MAX_FILE) -> None:
    """Refuse a file that is far too large, before it is read.

    Raises:
        TokenizerError: it has more than ``most`` bytes, or its size cannot be read.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise damaged(path, reason(error)) from error
    if size > most:
        raise TokenizerError(
            f"{path} has {size:,} bytes, and at most {most:,} are read; it is not a file of a "
            "tokenizer",
            details={"path": str(path), "bytes": size},
        )


def read_text(path: Path) -> str:
    """Content of a UTF-8 file.

    Raises:
        TokenizerError: it is too large, unreadable, or not UTF-8.
    """
    check_size(path)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise damaged(path, reason(error)) from error
    except UnicodeDecodeError as error:
        raise damaged(path, error) from error


def damaged(path: Path, problem: object) -> TokenizerError:
    """An error for a file that cannot be used."""
    return TokenizerError(
        f"{path} cannot be read: {str(problem)[:200]}; download it again from the model's page",
        details={"path": str(path)},
    )


class _Reading:
    """Adds the file's name to errors about its content."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TypeError | ValueError):
            raise damaged(self._path, error) from error


def _special(source: Mapping[str, Any]) -> tuple[dict[str, AddedToken | None], list[AddedToken]]:
    """Named special tokens, and those without a name."""
    named: dict[str, AddedToken | None] = {}
    for name, value in source.items():
        if name in _STANDARD and value is None:
            named[name] = None
        elif name in _STANDARD or (name.endswith("_token") and isinstance(value, str | dict)):
            named[name] = _token(value, special=True)
    extra = source.get("extra_special_tokens") or source.get("additional_special_tokens") or []
    if isinstance(extra, dict):
        named |= {str(name): _token(value, special=True) for name, value in extra.items()}
        extra = []
    if not isinstance(extra, list):
        raise TypeError("the additional special tokens are not a list")
    return named, [_token(value, special=True) for value in extra]


def _tokens(source: object) -> dict[int, AddedToken]:
    """``added_tokens_decoder``: token objects by id."""
    if not isinstance(source, dict):
        raise TypeError("added_tokens_decoder is not an object")
    return {_id(number): _token(value) for number, value in source.items()}


def _plain_tokens(source: Mapping[str, Any], special: set[str]) -> dict[int, AddedToken]:
    """``added_tokens.json``: ids by text."""
    return {
        _id(number): AddedToken(
            _checked(text), normalized=text not in special, special=text in special
        )
        for text, number in source.items()
    }


def _id(value: object) -> int:
    number = int(value) if isinstance(value, str) and len(value) < 12 else value
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**32:
        raise ValueError(f"{value!r:.60} is not a token id")
    return number


_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def _token(value: object, **defaults: bool) -> AddedToken:
    """A token given as a text, or as an object with ``content`` and flags."""
    if isinstance(value, str):
        return AddedToken(_checked(value), normalized=False, special=True)
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise TypeError(f"{value!r:.60} is neither a token nor an object with its content")
    flags = {name: value[name] for name in _FLAGS if value.get(name) is not None} | defaults
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise TypeError(f"the flags of the token {value['content']!r:.60} are not booleans")
    return AddedToken(_checked(value["content"]), **flags)


def _checked(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the token {text!r:.60} is not valid Unicode") from None
    return text


def _configured(path: Path, configured: object) -> dict[str, str]:
    pairs: list[tuple[object, object]]
    match configured:
        case None:
            pairs = []
        case str():
            pairs = [("default", configured)]
        case dict():
            pairs = [*configured.items()]
        case list() if all(isinstance(entry, dict) for entry in configured):
            pairs = [(entry.get("name"), entry.get("template")) for entry in configured]
        case _:
            pairs = [(None, None)]
    templates: dict[str, str] = {}
    for name, template in pairs:
        if not isinstance(name, str) or not isinstance(template, str):
            raise damaged(path, "chat_template is neither a text nor texts by name")
        templates[name] = template
    return templates


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if not isinstance(content, dict):
        raise damaged(path, "it does not contain a JSON object")
    return content
