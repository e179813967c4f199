"""Knows which files of a hub repository make a GGUF model."""

from collections.abc import Collection, Sequence
from pathlib import Path

from talu.exceptions import ModelError
from talu.gguf.reader import PART
from talu.weights.checkpoint import listed

__all__ = ["GgufOnHub"]


class GgufOnHub:
    """See ``HubFiles``."""

    small: Sequence[str] = ()
    optional: Sequence[str] = ()

    def refusal(self, place: str, names: Collection[str]) -> ModelError | None:
        """A repository needs the files of one model."""
        models = _models(names)
        if len(models) == 1:
            return None
        if not models:
            return ModelError(f"{place} has no GGUF file")
        return ModelError(
            f"{place} has {len(models)} GGUF models: {listed(sorted(models))}; download one, and "
            "give its path"
        )

    def weights(
        self, place: str, names: Collection[str], folder: Path
    ) -> tuple[set[str], Sequence[str]]:
        """The file, or the parts, of the model."""
        (files,) = _models(names).values()
        return set(files), ()

    def find(self, folder: Path) -> Path:
        """The file, or the first part."""
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.gguf")]
        models = _models(names)
        if len(models) != 1:
            raise ModelError(f"{folder} has {len(models)} GGUF models, expected one")
        (files,) = models.values()
        return folder / min(files)


def _models(names: Collection[str]) -> dict[str, list[str]]:
    """The files of each model, by its name or that of its first part."""
    models: dict[str, list[str]] = {}
    for name in sorted(names):
        if name.endswith(".gguf"):
            match = PART.fullmatch(name)
            first = f"{match[1]}-00001-of-{match[3]}.gguf" if match else name
            models.setdefault(first, []).append(name)
    return models
