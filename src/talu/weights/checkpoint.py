"""Opens the weights of a model folder: one safetensors file, or shards with an index.

Knows which files make a checkpoint, and which tensor lies in which. Files of pickled objects are
never opened: reading one can run any code.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from talu.exceptions import ModelError
from talu.weights.safetensors import (
    MAX_JSON_BYTES,
    SafetensorsFile,
    TensorInfo,
    parse_json,
)

__all__ = ["INDEX", "SINGLE", "Checkpoint", "read_index", "refusal", "weight_files"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
SHOWN = 5  # names of a list that a message shows


class Checkpoint:
    """The tensors of one folder, opened together."""

    def __init__(self, folder: Path, tensors: Mapping[str, SafetensorsFile]) -> None:
        """Use ``open``."""
        self.folder = folder
        self._tensors = tensors

    @classmethod
    def open(cls, folder: Path, *, use_mmap: bool = True) -> Self:
        """Open the safetensors file or files of ``folder``.

        Args:
            folder: holds ``model.safetensors``, or shards and their index.
            use_mmap: map the files; otherwise tensors are read into memory of their own.

        Raises:
            ModelError: no safetensors weights, or a damaged or missing file.
        """
        placed = _placement(folder)
        files: dict[str, SafetensorsFile] = {}
        try:
            for path in _paths(folder, placed):
                files[path.name] = SafetensorsFile(path, use_mmap=use_mmap)
            if placed is None:
                return cls(folder, dict.fromkeys(files[SINGLE].tensors, files[SINGLE]))
            for name, shard in placed.items():
                if name not in files[shard].tensors:
                    raise ModelError(f"{folder / INDEX} lists tensor {name!r}, absent from {shard}")
            return cls(folder, {name: files[shard] for name, shard in placed.items()})
        except BaseException:
            for file in files.values():
                file.close()
            raise

    @property
    def names(self) -> list[str]:
        """Names of all tensors, sorted."""
        return sorted(self._tensors)

    def info(self, name: str) -> TensorInfo:
        """Type and shape of a tensor.

        Raises:
            ModelError: there is no tensor of that name.
        """
        self._require([name])
        return self._tensors[name].tensors[name]

    def raw(self, name: str) -> NDArray[Any]:
        """The tensor as float32, or as uint16 raw bits when it is F16 or BF16.

        Raises:
            ModelError: there is no tensor of that name, or it is of another type.
        """
        self._require([name])
        return self._tensors[name].raw(name)

    def unreadable(self, name: str) -> ModelError:
        """The error for a tensor of a type that cannot be read."""
        return self._tensors[name].unreadable(name)

    def check(self, wanted: Mapping[str, tuple[int, ...]]) -> None:
        """Compare names and shapes with those that a model reads.

        Raises:
            ModelError: a tensor is missing or has another shape.
        """
        self._require(wanted)
        for name, shape in wanted.items():
            found = self.info(name).shape
            if found != shape:
                path = self._tensors[name].path
                raise ModelError(f"{path}: tensor {name!r} has shape {found}, expected {shape}")

    def close(self) -> None:
        """Close the files; idempotent. Arrays that were handed out stay valid."""
        for file in self._tensors.values():
            file.close()

    def _require(self, names: Iterable[str]) -> None:
        missing = [name for name in names if name not in self._tensors]
        if missing:
            raise ModelError(
                f"the weights in {self.folder} lack {listed(missing)}; config.json may belong "
                "to another model, or the checkpoint is incomplete"
            )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make the checkpoint in ``folder``; none of them is opened.

    Raises:
        ModelError: there are none, one that the index names is missing, or the index is damaged.
    """
    return _paths(folder, _placement(folder))


def read_index(path: Path) -> dict[str, str]:
    """The shard's file name of every tensor, from a ``model.safetensors.index.json``.

    Raises:
        ModelError: the index cannot be read, or names anything but files of its own folder.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    if len(text) > MAX_JSON_BYTES:
        raise ModelError(f"{path} is larger than {MAX_JSON_BYTES} bytes")
    placed = parse_json(text, path).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise ModelError(f"{path}: weight_map is missing or empty")
    for shard in placed.values():
        if not isinstance(shard, str) or not is_plain_name(shard):
            raise ModelError(
                f"{path}: weight_map names {str(shard)[:100]!r}; "
                "only a .safetensors file of the same folder can be a shard"
            )
    return placed


def is_plain_name(name: str) -> bool:
    """Whether ``name`` is a .safetensors file name and no path."""
    return name.endswith(".safetensors") and name.isprintable() and not set(name) & set("/\\")


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name) for name in names[:SHOWN]) + more


def _placement(folder: Path) -> dict[str, str] | None:
    """The index of ``folder``; None when one file holds everything."""
    if (folder / SINGLE).is_file():
        return None
    if not (folder / INDEX).is_file():
        raise _no_weights(folder)
    return read_index(folder / INDEX)


def _paths(folder: Path, placed: Mapping[str, str] | None) -> list[Path]:
    if placed is None:
        return [folder / SINGLE]
    paths = [folder / shard for shard in sorted(set(placed.values()))]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ModelError(
            f"{folder / INDEX} names {listed(missing)}, absent from the folder; "
            "the download may be incomplete"
        )
    return paths


def _no_weights(folder: Path) -> ModelError:
    try:
        found = os.listdir(folder)
    except OSError as error:
        return ModelError(f"cannot read the model folder {folder}: {error.strerror}")
    return refusal(str(folder), found)


def refusal(place: str, found: Iterable[str]) -> ModelError:
    """Why the files ``found`` in ``place``, a folder or a repository, make no checkpoint."""
    names = sorted(found)
    pickles = [name for name in names if name.endswith(PICKLES)]
    ggufs = [name for name in names if name.endswith(".gguf")]
    looked_for = f"looked for {SINGLE} and {INDEX}"
    if pickles:
        return ModelError(
            f"{place} holds its weights as pickled objects ({listed(pickles)}), which are "
            "refused because opening one can run any code. Convert them once with transformers, "
            "AutoModelForCausalLM.from_pretrained(model).save_pretrained(new_folder), "
            "or choose a repository that has safetensors files"
        )
    if ggufs:
        return ModelError(
            f"{place} holds GGUF weights ({listed(ggufs)}), which are not supported yet; "
            f"{looked_for}"
        )
    return ModelError(f"no weights in {place}: {looked_for}, found {listed(names) or 'nothing'}")
