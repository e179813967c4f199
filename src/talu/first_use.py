"""Loads parts of talu on first use."""

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from talu.exceptions import StateError
from talu.forks import import_whole

__all__ = ["loaded", "on_first_use"]


def loaded(module: str, name: str) -> Any:
    """A class or function of a module, which is imported if it has not been.

    Raises:
        StateError: the caller is a signal handler, and interrupted the import (code
            ``STATE_BUSY``).
    """
    found = getattr(import_whole(module), name, None)
    if found is None:
        raise StateError(
            "the engine is being imported by the code that this signal handler interrupted: open a "
            "model before handlers use one",
            "STATE_BUSY",
        )
    return found


def on_first_use(package: str, homes: Mapping[str, Iterable[str]]) -> Callable[[str], object]:
    """A ``__getattr__`` for a package whose names are in modules that are loaded on first use.

    Args:
        package: its full name.
        homes: modules, by their full names, and what the package offers of each.
    """
    places = {name: module for module, names in homes.items() for name in names}

    def load(name: str) -> object:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(import_whole(places[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return load
