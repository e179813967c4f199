"""Reads a JSON file of settings and distrusts every value of it.

A value is checked for type and range when it is read, and a key that nobody read can be found
afterwards, so that no setting is passed over in silence. This file knows no setting by name.
"""

import json
import math
import reprlib
from collections.abc import Sequence
from pathlib import Path

from talu.error_text import nearest
from talu.exceptions import ModelError

__all__ = ["Settings"]

MAX_BYTES = 4 * 1024 * 1024


class Settings:
    """One JSON object of a file, and which of its keys were read.

    A key whose value is null counts as absent. Every ``ModelError`` raised here names the file
    and the key.
    """

    def __init__(self, path: Path, values: dict[str, object], within: str = "") -> None:
        self.path = path
        self._values = {key: value for key, value in values.items() if value is not None}
        self._within = within
        self._read: set[str] = set()
        self._sections: dict[str, Settings] = {}

    @classmethod
    def from_file(cls, path: Path) -> "Settings":
        """The object in a JSON file of at most 4 MiB, its keys unique and its numbers finite.

        Raises:
            ModelError: the file is missing, unreadable, too large, or holds no such object.
        """
        if not path.is_file():  # opening a pipe would wait for ever
            what = "is not a file" if path.exists() else "is missing; a model folder needs it"
            raise ModelError(f"{path} {what}", details={"path": str(path)})
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            message = f"{path} cannot be read: {error.strerror}"
            raise ModelError(message, details={"path": str(path)}) from error
        if len(data) > MAX_BYTES:
            raise _damaged(path, f"it is larger than {MAX_BYTES} bytes")
        try:
            values = json.loads(
                data.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant
            )
        except (ValueError, RecursionError) as error:
            raise _damaged(path, f"it is not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise _damaged(path, f"it holds {_short(values)} where an object belongs")
        return cls(path, values)

    def has(self, key: str) -> bool:
        """Whether the key is there, with a value other than null."""
        return key in self._values

    def value(self, key: str) -> object:
        """The value as it stands, for another check than those below."""
        return self._get(key, None)

    def integer(self, key: str, low: int, high: int, *, default: int | None = None) -> int:
        """A whole number from ``low`` to ``high``; without a default it has to be there."""
        return self._whole(key, self._get(key, default), low, high)

    def integers(self, key: str, low: int, high: int) -> list[int]:
        """A list of whole numbers, or a single one."""
        value = self._get(key, None)
        items = value if isinstance(value, list) else [value]
        return [self._whole(key, item, low, high) for item in items]

    def number(
        self, key: str, *, above: float, up_to: float, default: float | None = None
    ) -> float:
        """A finite number greater than ``above`` and at most ``up_to``."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, f"must be a number, got {_short(value)}")
        if not (math.isfinite(value) and above < value <= up_to):
            raise self.error(key, f"must be above {above} and at most {up_to}, got {_short(value)}")
        return float(value)

    def flag(self, key: str, *, default: bool | None = None) -> bool:
        """True or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, got {_short(value)}")
        return value

    def word(self, key: str, known: Sequence[str], *, default: str | None = None) -> str:
        """One of the known words."""
        return self._word(key, self._get(key, default), known)

    def words(self, key: str, known: Sequence[str]) -> list[str]:
        """A list of known words."""
        value = self._get(key, None)
        if not isinstance(value, list):
            raise self.error(key, f"must be a list, got {_short(value)}")
        return [self._word(key, item, known) for item in value]

    def section(self, key: str) -> "Settings":
        """The object under a key, empty when the key is absent."""
        if key not in self._sections:
            value = self._get(key, {})
            if not isinstance(value, dict):
                raise self.error(key, f"must be an object, got {_short(value)}")
            self._sections[key] = Settings(self.path, value, f"{self._within}{key}.")
        return self._sections[key]

    def ignore(self, *keys: str) -> None:
        """Say that these keys change nothing, whatever their values."""
        self._read.update(keys)

    def unread(self) -> dict[str, object]:
        """The keys that were neither read nor ignored, with their values."""
        return {key: value for key, value in self._values.items() if key not in self._read}

    def refuse_unread(self) -> None:
        """Raise for the first unread key, here or in a section, that switches something on.

        False and empty values switch nothing on.
        """
        for key, value in self.unread().items():
            if value is not False and value not in ("", [], {}):
                raise self.error(
                    key,
                    f"is {_short(value)}, and talu does not know what that changes in the "
                    "network; only if it changes nothing, remove it from the file",
                )
        for section in self._sections.values():
            section.refuse_unread()

    def error(self, key: str, message: str) -> ModelError:
        """An error about the value of a key, to be raised."""
        name = f"{self._within}{key}"
        details = {"path": str(self.path), "key": name}
        return ModelError(f"{self.path}: {name!r} {message}", details=details)

    def _get(self, key: str, default: object) -> object:
        self._read.add(key)
        value = self._values.get(key, default)
        if value is None:
            raise self.error(key, "is missing")
        return value

    def _whole(self, key: str, value: object, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, f"must be a whole number, got {_short(value)}")
        if not low <= value <= high:
            raise self.error(key, f"must be from {low} to {high}, got {_short(value)}")
        return value

    def _word(self, key: str, value: object, known: Sequence[str]) -> str:
        if not isinstance(value, str):
            raise self.error(key, f"must be a text, got {_short(value)}")
        if value not in known:
            hint = f"{nearest(value, known)} (supported: {', '.join(map(repr, known))})"
            raise self.error(key, f"is {_short(value)}{hint}")
        return value


def _short(value: object) -> str:
    return reprlib.repr(value)


def _damaged(path: Path, what: str) -> ModelError:
    message = f"{path} is damaged: {what}; download the model again"
    return ModelError(message, details={"path": str(path)})


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key {_short(key)} stands twice")
        values[key] = value
    return values


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no number in JSON")
