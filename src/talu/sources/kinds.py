"""Lists the kinds of model files, and declares what the module of a kind has."""

import importlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol, cast

from talu.exceptions import ModelError
from talu.sources.source import ModelSource

__all__ = ["KINDS", "HubFiles", "Kind", "all_kinds"]

KINDS = ["folder", "gguf"]  # modules of this folder; the first that matches is used


class HubFiles(Protocol):
    """Which files of a hub repository make a model of one kind.

    Attributes:
        small: patterns of the files that are downloaded first, so that a model that cannot be used
            is refused before its weights are downloaded; empty if there are none.
        optional: names of small files that a model need not have. A cached model is complete when
            each of them is cached or known not to exist.
    """

    small: Sequence[str]
    optional: Sequence[str]

    def refusal(self, place: str, names: Collection[str]) -> ModelError | None:
        """Why a repository holds no model of this kind; None if it holds one.

        Args:
            place: the repository, for messages.
            names: its files.
        """

    def weights(
        self, place: str, names: Collection[str], folder: Path
    ) -> tuple[set[str], Sequence[str]]:
        """The names of the files with the weights, and patterns of other files that they need.

        Args:
            place: the repository, for messages.
            names: its files.
            folder: holds the small files.

        Raises:
            ModelError: the repository lacks a file.
        """

    def find(self, folder: Path) -> Path:
        """The path to open in a folder that holds all of these files; none is opened.

        Raises:
            ModelError: the folder does not hold them.
        """


class Kind(Protocol):
    """The module of a kind."""

    HUB: HubFiles

    def matches(self, path: Path) -> bool:
        """Whether a path is of this kind; reads as little as possible."""

    def open_source(self, path: Path) -> ModelSource:
        """The source at a path of this kind."""


def all_kinds() -> list[Kind]:
    """The modules of all kinds."""
    return [cast(Kind, importlib.import_module(f"talu.sources.{name}")) for name in KINDS]
