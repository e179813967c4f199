"""Lists the kinds of model files, and declares what the module of a kind has."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from talu.exceptions import ModelError
from talu.forks import import_whole
from talu.sources.source import ModelSource

__all__ = ["KINDS", "Found", "HubFiles", "Kind", "all_kinds", "kinds_for"]

KINDS = ["folder", "gguf"]  # modules of this folder; the first that matches is used


class Found(NamedTuple):
    """Where a model is.

    Attributes:
        path: its folder or file.
        note: what was chosen because the reference does not say it; None if nothing was.
    """

    path: Path
    note: str | None = None


class HubFiles(Protocol):
    """Which files of a hub repository make the model of one kind that a reference means.

    Attributes:
        small: patterns of the files that are downloaded first, so that a model that cannot be used
            is refused before its weights are downloaded; empty if there are none.
        optional: names of small files that a model need not have. A cached model is complete when
            each of them is cached or known not to exist.
    """

    small: Sequence[str]
    optional: Sequence[str]

    def holds(self, names: Collection[str]) -> bool:
        """Whether there are files with weights of this kind."""

    def refusal(self, place: str, names: Collection[str]) -> ModelError | None:
        """Why a repository does not hold the model; None if it does.

        Args:
            place: the repository, for messages.
            names: its files.
        """

    def unsupported(self, place: str, described: Mapping[str, object]) -> ModelError | None:
        """Why the model cannot run, as far as the hub knows it; None if it is not known.

        Args:
            place: the repository, for messages.
            described: what the hub says about its GGUF models; empty if nothing.
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

    def find(self, folder: Path, names: Collection[str] | None = None) -> Path:
        """The path to open in a folder that holds all of these files; none is opened.

        Args:
            folder: holds files of the repository, possibly of other models too.
            names: all files of the repository; None if only those in the folder are known.

        Raises:
            ModelError: the folder does not hold them.
        """

    def note(self, place: str, names: Collection[str]) -> str | None:
        """What was chosen because the reference does not say it; None if nothing was.

        Args:
            place: the repository, for messages.
            names: its files.
        """


class Kind(Protocol):
    """The module of a kind."""

    def on_hub(self, tag: str | None) -> HubFiles | None:
        """The files of the model in a hub repository.

        Args:
            tag: what a reference names after a colon, such as a quantisation; None if there is no
                colon.

        Returns:
            None if there is a tag, and models of this kind have none.
        """

    def matches(self, path: Path) -> bool:
        """Whether a path is of this kind; reads as little as possible."""

    def open_source(self, path: Path) -> ModelSource:
        """The source at a path of this kind."""


def all_kinds() -> list[Kind]:
    """The modules of all kinds."""
    return [*map(_kind, KINDS)]


def kinds_for(path: Path) -> Iterator[Kind]:
    """The modules of all kinds, those that a folder or a file may be of first.

    A module is imported when it is reached.
    """
    is_folder = path.is_dir()
    return map(_kind, sorted(KINDS, key=lambda name: (name == "folder") != is_folder))


def _kind(name: str) -> Kind:
    return cast(Kind, import_whole(f"talu.sources.{name}"))
