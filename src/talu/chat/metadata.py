"""The metadata of a chat, whose changes are checked and stored at once."""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol, Self, TypeVar
from weakref import ref

from talu.error_text import shown
from talu.exceptions import StateError, ValidationError
from talu.forks import ForkSafeLock
from talu.json_values import json_copy

__all__ = ["Metadata"]

T = TypeVar("T")
MAX_LENGTH = 1_000_000  # characters of the JSON text
MISSING = object()


class Owner(Protocol):
    """A chat, as its metadata sees it."""

    def _check_open(self) -> None:
        """``StateError`` if the chat is closed."""

    def _save_attributes(self) -> None:
        """Store the chat's attributes, if it has a store."""


class Metadata(dict[str, Any]):
    """Additional data about a chat: a dictionary of values that JSON represents exactly.

    A change is checked first and stored at once, like that of any other attribute of the chat. The
    lists and dictionaries inside are read-only: assign a new value to their key. ``copy()`` returns
    a plain dictionary of plain values, as the module ``copy`` does; ``dict(metadata)`` keeps the
    read-only values inside.
    """

    def __init__(self, values: object, owner: Owner) -> None:
        """Copy the values.

        Raises:
            ValidationError: a value is not what JSON would read back, or there is too much.
        """
        super().__init__(_checked(values))
        self._owner = ref(owner)
        self._gate = ForkSafeLock(reentrant=True)  # a signal handler may change it

    def replace(self, values: object) -> None:
        """Replace all values."""
        checked = _checked(values)

        def change(changed: dict[str, Any]) -> None:
            changed.clear()
            changed.update(checked)

        self._change(change)

    def __setitem__(self, key: str, value: Any) -> None:
        self._change(lambda changed: changed.__setitem__(key, value))

    def __delitem__(self, key: str) -> None:
        self._change(lambda changed: changed.__delitem__(key))

    def update(self, *others: Any, **values: Any) -> None:
        """Like ``dict.update``."""
        self._change(lambda changed: changed.update(*others, **values))

    def __ior__(self, other: Any) -> Self:  # type: ignore[override,misc]
        self.update(other)
        return self

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Like ``dict.setdefault``."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, default: Any = MISSING) -> Any:
        """Like ``dict.pop``."""
        if default is not MISSING and key not in self:
            return default
        return self._change(lambda changed: changed.pop(key))

    def popitem(self) -> tuple[str, Any]:
        """Like ``dict.popitem``."""
        return self._change(lambda changed: changed.popitem())

    def clear(self) -> None:
        """Remove all values."""
        self._change(lambda changed: changed.clear())

    def copy(self) -> dict[str, Any]:
        """A plain dictionary, in which the lists and dictionaries can be changed too."""
        return {key: _plain(value) for key, value in dict(self).items()}

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (self.copy(),)

    def _change(self, change: Callable[[dict[str, Any]], T]) -> T:
        """Change a copy, check it, take it over, and store it."""
        owner = self._owner()
        if owner is None:
            raise StateError(
                "the chat of this metadata no longer exists, so a change would be lost: keep a "
                "reference to the chat, or change a copy, metadata.copy()",
                "STATE_NO_CHAT",
            )
        owner._check_open()
        with self._gate.lock:
            changed = dict(self)
            result = change(changed)
            checked = _checked(changed)
            super().update(checked)  # in place, so that no reader finds the other keys missing
            for key in self.keys() - checked.keys():
                super().__delitem__(key)
        owner._save_attributes()
        return result


def _checked(values: object) -> dict[str, Any]:
    """A read-only copy of the values, which JSON represents exactly."""
    if not isinstance(values, Mapping):
        wrong = f"metadata must be a dictionary, got {shown(values)}"
        raise ValidationError(wrong, details={"param": "metadata", "value": values})
    given = values if isinstance(values, dict) else dict(values)
    copied: dict[str, Any] = json_copy("metadata", given, max_length=MAX_LENGTH)
    _check_exact("metadata", given)  # after the copy, which bounds the depth
    return {key: _frozen(value) for key, value in copied.items()}


def _check_exact(where: str, value: object) -> None:
    """``ValidationError`` if JSON would turn the value into another one."""
    if isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str):
                wrong = f"{where} has the key {shown(key)}, but the keys of JSON are text"
                raise ValidationError(
                    f"{wrong}: give {shown(str(key))}", details={"param": "metadata"}
                )
            _check_exact(f"{where}[{shown(key)}]", entry)
    elif isinstance(value, list):
        for number, entry in enumerate(value):
            _check_exact(f"{where}[{number}]", entry)
    elif isinstance(value, tuple):
        wrong = f"{where} is a tuple, which JSON would turn into a list: give a list"
        raise ValidationError(wrong, details={"param": "metadata"})


def _refuse(*_: object, **__: object) -> NoReturn:
    raise TypeError(
        "a value inside chat.metadata is read-only, because a change of it would not be stored: "
        "assign a new value to its key, as in chat.metadata['tags'] = ['a', 'b'], or change a "
        "copy, chat.metadata.copy()"
    )


class _FrozenList(list[Any]):
    """A list inside metadata."""

    append = extend = insert = remove = pop = clear = sort = reverse = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse

    def copy(self) -> list[Any]:
        """A plain list of plain values."""
        return [_plain(entry) for entry in self]

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, (self.copy(),)


class _FrozenDict(dict[str, Any]):
    """A dictionary inside metadata."""

    update = setdefault = pop = popitem = clear = _refuse
    __setitem__ = __delitem__ = __ior__ = _refuse

    def copy(self) -> dict[str, Any]:
        """A plain dictionary of plain values."""
        return {key: _plain(entry) for key, entry in self.items()}

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (self.copy(),)


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return _FrozenDict({key: _frozen(entry) for key, entry in value.items()})
    return _FrozenList(map(_frozen, value)) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    return value.copy() if isinstance(value, _FrozenDict | _FrozenList) else value
