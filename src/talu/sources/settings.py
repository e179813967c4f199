"""Reads a JSON object of settings and validates each value that is read.

It tracks which keys were read, so that the others can be reported.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from talu.error_text import nearest, shown
from talu.exceptions import ModelError

__all__ = ["Settings"]

MAX_BYTES = 4 * 1024 * 1024


class Settings:
    """A JSON object of a file.

    Unless a method says otherwise, null counts as absent. Every ``ModelError`` raised here names
    the file and the key.

    Attributes:
        repeated: keys that occur more than once; the last value counts.
    """

    def __init__(self, path: Path, values: Mapping[str, object], within: str = "") -> None:
        self.path = path
        self.repeated: tuple[str, ...] = ()
        self._values = dict(values)
        self._within = within
        self._read: set[str] = set()

    @classmethod
    def from_file(cls, path: Path) -> "Settings":
        """The object in a JSON file of at most 4 MiB.

        Raises:
            ModelError: the file is missing, unreadable, too large, or holds no such object.
        """
        data = _read_file(path)
        repeated: list[str] = []

        def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
            counts = Counter(key for key, _ in pairs)
            repeated.extend(key for key, count in counts.items() if count > 1)
            return dict(pairs)

        try:
            values = json.loads(data.decode(), object_pairs_hook=unique)
        except (ValueError, RecursionError) as error:
            raise _damaged(path, f"it is not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise _damaged(path, f"it holds {shown(values)} instead of an object")
        settings = cls(path, values)
        settings.repeated = tuple(repeated)
        return settings

    @classmethod
    def from_optional_file(cls, path: Path) -> "Settings | None":
        """Like ``from_file``, but None if the file does not exist.

        Raises:
            ModelError: the file, or a link in its place, exists but cannot be read.
        """
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unreadable(path, error) from error
        return cls.from_file(path)

    def as_dict(self) -> dict[str, object]:
        """All keys with their values, unchecked."""
        return dict(self._values)

    def has(self, key: str) -> bool:
        """Whether the key is present and not null."""
        return self._values.get(key) is not None

    def names(self, key: str) -> bool:
        """Whether the key is present, possibly null."""
        return key in self._values

    def raw(self, key: str, default: object) -> object:
        """The unchecked value, possibly None; ``default`` if the key is missing."""
        self._read.add(key)
        return self._values.get(key, default)

    def value(self, key: str) -> object:
        """The unchecked value, which must not be null."""
        return self._get(key, None)

    def integer(self, key: str, low: int, high: int, *, default: int | None = None) -> int:
        """A whole number from ``low`` to ``high``; required if there is no default."""
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
            raise self.error(key, f"must be a number, got {shown(value)}")
        if not above < value <= up_to or not math.isfinite(value):  # false for NaN
            limits = f"must be above {above} and at most {up_to}"
            raise self.error(key, f"{limits}, got {shown(value)}")
        return float(value)

    def flag(self, key: str, *, default: bool | None = None) -> bool:
        """True or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, got {shown(value)}")
        return value

    def word(self, key: str, known: Sequence[str], *, default: str | None = None) -> str:
        """One of the known words."""
        return self._word(key, self._get(key, default), known)

    def words(self, key: str, known: Sequence[str]) -> list[str]:
        """A list of known words."""
        value = self._get(key, None)
        if not isinstance(value, list):
            raise self.error(key, f"must be a list, got {shown(value)}")
        return [self._word(key, item, known) for item in value]

    def section(self, key: str) -> "Settings":
        """The object under a key, empty when the key is absent."""
        value = self._get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, f"must be an object, got {shown(value)}")
        return Settings(self.path, value, f"{self._within}{key}.")

    def ignore(self, *keys: str) -> None:
        """Mark keys that have no effect as read."""
        self._read.update(keys)

    def unread(self) -> dict[str, object]:
        """The keys, with values other than null, that were neither read nor ignored."""
        return {
            key: value
            for key, value in self._values.items()
            if key not in self._read and value is not None
        }

    def unread_names(self) -> list[str]:
        """Those keys, named as in error messages."""
        return [f"{self._within}{key}" for key in self.unread()]

    def error(self, key: str, message: str) -> ModelError:
        """An error about the value of a key, to be raised."""
        name = f"{self._within}{key}"
        details = {"path": str(self.path), "key": name}
        return ModelError(f"{self.path}: {shown(name)} {message}", details=details)

    def _get(self, key: str, default: object) -> object:
        self._read.add(key)
        value = self._values.get(key)
        value = default if value is None else value
        if value is None:
            raise self.error(key, "is missing")
        return value

    def _whole(self, key: str, value: object, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, f"must be a whole number, got {shown(value)}")
        if not low <= value <= high:
            raise self.error(key, f"must be from {low} to {high}, got {shown(value)}")
        return value

    def _word(self, key: str, value: object, known: Sequence[str]) -> str:
        if not isinstance(value, str):
            raise self.error(key, f"must be a text, got {shown(value)}")
        if value not in known:
            hint = f"{nearest(value, known)} (supported: {', '.join(map(repr, known))})"
            raise self.error(key, f"is {shown(value)}{hint}")
        return value


def _read_file(path: Path) -> bytes:
    try:
        if not path.is_file():  # opening a pipe would block for ever
            what = "is missing; a model folder needs it"
            if path.is_symlink() or path.exists():
                what = "is not a file, or is a broken link"
            raise ModelError(f"{path} {what}", details={"path": str(path)})
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > MAX_BYTES:
        raise _damaged(path, f"it is larger than {MAX_BYTES} bytes")
    return data


def _unreadable(path: Path, error: OSError) -> ModelError:
    message = f"{path} cannot be read: {error.strerror}"
    return ModelError(message, details={"path": str(path)})


def _damaged(path: Path, what: str) -> ModelError:
    message = f"{path} is damaged: {what}; download the model again"
    return ModelError(message, details={"path": str(path)})
