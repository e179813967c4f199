"""Holds the logical tensors of a model by name."""

from collections.abc import Callable, Iterable, Mapping
from typing import Self

from talu.exceptions import ModelError
from talu.weights.files import FileVersion
from talu.weights.tensors import Tensor

__all__ = ["Checkpoint", "listed"]

SHOWN = 5  # names in an error message


class Checkpoint:
    """The tensors of a model. Their files are open until ``close``, or the end of a ``with`` block.

    Attributes:
        place: folder or file, for messages.
        files: the files and their content when they were opened; empty if there are none.
        meaning: identifies settings of other files that decide which numbers the tensors stand for;
            empty if there are none.
    """

    def __init__(
        self,
        place: str,
        tensors: Mapping[str, Tensor],
        *,
        files: tuple[FileVersion, ...] = (),
        now: Callable[[], tuple[FileVersion, ...]] = tuple,
        close: Callable[[], None] = lambda: None,
        described_in: str = "config.json",
        meaning: str = "",
    ) -> None:
        """Hold tensors.

        Args:
            place: folder or file, for messages.
            tensors: by the names that they have there.
            files: see the attribute; found out before the files were opened.
            now: returns what ``files`` would be now.
            close: closes the files; may be called more than once.
            described_in: what describes the network, for messages.
            meaning: see the attribute.
        """
        self.place = place
        self.files = files
        self.meaning = meaning
        self._tensors = dict(tensors)
        self._now = now
        self._close = close
        self._described_in = described_in

    @property
    def names(self) -> list[str]:
        """Names of all tensors, sorted."""
        return sorted(self._tensors)

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of a name.

        Raises:
            ModelError: there is none.
        """
        self._require([name])
        return self._tensors[name]

    def renamed(self, names: Mapping[str, str]) -> "Checkpoint":
        """The tensors under other names; ``names`` maps new names to these, others are left out.

        It shares the open files.
        """
        kept = {new: self._tensors[name] for new, name in names.items() if name in self._tensors}
        return self.replaced(kept)

    def replaced(
        self, tensors: Mapping[str, Tensor], *, meaning: str | None = None
    ) -> "Checkpoint":
        """Other tensors, by name, that read the same open files.

        Args:
            tensors: by name.
            meaning: see the attribute; None if it stays.
        """
        return Checkpoint(
            self.place,
            tensors,
            files=self.files,
            now=self._now,
            close=self._close,
            described_in=self._described_in,
            meaning=self.meaning if meaning is None else meaning,
        )

    def check(self, wanted: Mapping[str, tuple[int, ...]]) -> None:
        """Check that the tensors of a network exist and have the right shapes.

        Raises:
            ModelError: a tensor is missing or has another shape.
        """
        self._require(wanted)
        for name, shape in wanted.items():
            tensor = self._tensors[name]
            if tensor.shape != shape:
                raise tensor.error(f"has shape {tensor.shape}, expected {shape}")

    def check_unchanged(self) -> None:
        """Check that the files are those that were opened.

        Raises:
            ModelError: one has changed.
        """
        if self._now() != self.files:
            raise ModelError(
                f"the weights in {self.place} changed while they were read; open them again"
            )

    def close(self) -> None:
        """Close the files; idempotent. Arrays that were read stay valid."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require(self, names: Iterable[str]) -> None:
        missing = [name for name in names if name not in self._tensors]
        if missing:
            raise ModelError(
                f"the weights in {self.place} lack {listed(missing)}; {self._described_in} may "
                "belong to another model, or the checkpoint is incomplete"
            )


def listed(names: list[str]) -> str:
    """The first few names, and the number of those left out."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name[:100]) for name in names[:SHOWN]) + more
