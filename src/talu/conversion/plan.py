"""Declares what a file format has to offer: a plan of its files, and writing them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from talu.conversion.original import Original

__all__ = ["Plan", "Target"]


class Plan(Protocol):
    """The files that a conversion will write; nothing has been written yet."""

    @property
    def size(self) -> int:
        """Bytes of all files together, exactly."""

    @property
    def tensor_bytes(self) -> int:
        """Bytes of the tensors in them."""

    @property
    def parameters(self) -> int:
        """Numbers in these tensors."""

    @property
    def notes(self) -> Sequence[str]:
        """What differs from what was asked for or from the original, in sentences.

        After ``write``, also what was found while writing.
        """

    def write(self, path: Path, add: Callable[[int], None]) -> None:
        """Write the files, a few rows of a tensor at a time.

        Args:
            path: a file that does not exist yet, or an empty folder.
            add: to be called with the number of bytes that were written.

        Raises:
            OSError: a file cannot be written.
            TaluError: a tensor cannot be read, or has numbers that the format cannot hold.
        """


class Target(Protocol):
    """A file format."""

    @property
    def name(self) -> str:
        """Its name, in lower case."""

    @property
    def summary(self) -> str:
        """What it is, in a few words for a list."""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of files, not one file."""

    def plan(self, original: Original) -> Plan:
        """The files for a model.

        Raises:
            ConvertError: the format cannot hold the model.
        """
