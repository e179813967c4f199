"""Opens the weights of a model folder: one safetensors file, or shards with an index.

The index lists the files of the checkpoint; the files list their tensors. Pickled weights are never
opened, because reading them can run any code.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
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
SHOWN = 5  # names in an error message
CHUNK = 1 << 22  # elements compared at once


class Checkpoint:
    """The tensors of a model folder."""

    def __init__(self, folder: Path, files: Iterable[SafetensorsFile]) -> None:
        """Use ``open``. If several files hold a tensor, the last one is used."""
        self.folder = folder
        self._files = list(files)
        self._tensors = {name: (file, name) for file in self._files for name in file.tensors}

    @classmethod
    def open(cls, folder: Path, *, use_mmap: bool = True) -> Self:
        """Open the safetensors file or files of ``folder``.

        Args:
            folder: holds ``model.safetensors``, or shards and their index.
            use_mmap: map the files; otherwise each tensor is read into its own memory.

        Raises:
            ModelError: no safetensors weights, or a damaged or missing file.
        """
        files: list[SafetensorsFile] = []
        try:
            for path in weight_files(folder):
                files.append(SafetensorsFile(path, use_mmap=use_mmap))
            return cls(folder, files)
        except BaseException:
            for file in files:
                file.close()
            raise

    @property
    def names(self) -> list[str]:
        """Names of all tensors, sorted."""
        return sorted(self._tensors)

    def rename(self, names: Mapping[str, str]) -> None:
        """Rename the tensors; ``names`` maps new names to stored ones. Others are dropped."""
        kept = self._tensors
        self._tensors = {new: kept[stored] for new, stored in names.items() if stored in kept}

    def equal(self, first: str, second: str) -> bool:
        """Whether two tensors have the same type, shape and bits.

        Raises:
            ModelError: one is missing or has an unsupported type.
        """
        if self.info(first).dtype != self.info(second).dtype:
            return False
        if self.info(first).shape != self.info(second).shape:
            return False
        one, other = (self.raw(name).reshape(-1) for name in (first, second))
        unsigned = np.uint32 if one.dtype.itemsize == 4 else np.uint16
        one, other = one.view(unsigned), other.view(unsigned)
        return all(
            np.array_equal(one[start : start + CHUNK], other[start : start + CHUNK])
            for start in range(0, len(one), CHUNK)
        )

    def info(self, name: str) -> TensorInfo:
        """Type and shape of a tensor.

        Raises:
            ModelError: there is no tensor of that name.
        """
        self._require([name])
        file, stored = self._tensors[name]
        return file.tensors[stored]

    def raw(self, name: str) -> NDArray[Any]:
        """The tensor as float32, or as uint16 raw bits if it is F16 or BF16.

        Raises:
            ModelError: there is no tensor of that name, or it has another type.
        """
        self._require([name])
        file, stored = self._tensors[name]
        return file.raw(stored)

    def unreadable(self, name: str) -> ModelError:
        """The error for a tensor of an unsupported type."""
        file, stored = self._tensors[name]
        return file.unreadable(stored)

    def check(self, wanted: Mapping[str, tuple[int, ...]]) -> None:
        """Check that the tensors of a network exist and have the right shapes.

        Raises:
            ModelError: a tensor is missing or has another shape.
        """
        self._require(wanted)
        for name, shape in wanted.items():
            found = self.info(name).shape
            if found != shape:
                file, stored = self._tensors[name]
                raise ModelError(
                    f"{file.path}: tensor {stored!r} has shape {found}, expected {shape}"
                )

    def close(self) -> None:
        """Close the files; idempotent. Returned arrays stay valid."""
        for file in self._files:
            file.close()

    def _require(self, names: Iterable[str]) -> None:
        missing = [name for name in names if name not in self._tensors]
        if missing:
            raise ModelError(
                f"the weights in {self.folder} lack {listed(missing)}; config.json may belong "
                "to another model, or the checkpoint is incomplete"
            )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the checkpoint in ``folder``; none of them is opened.

    Raises:
        ModelError: there are none, a file in the index is missing, or the index is damaged.
    """
    if is_file(folder / SINGLE):
        return [folder / SINGLE]
    if not is_file(folder / INDEX):
        raise _no_weights(folder)
    paths = [folder / shard for shard in sorted(set(read_index(folder / INDEX).values()))]
    missing = [path.name for path in paths if not is_file(path)]
    if missing:
        raise ModelError(
            f"{folder / INDEX} names {listed(missing)}, but the folder lacks them; "
            "the download may be incomplete"
        )
    return paths


def is_file(path: Path) -> bool:
    """Whether there is a file at ``path``.

    Raises:
        ModelError: the path cannot be accessed.
    """
    try:
        return path.is_file()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error


def read_index(path: Path) -> dict[str, str]:
    """The file name for each tensor, from a ``model.safetensors.index.json``.

    Raises:
        ModelError: the index cannot be read, or names a file outside its folder.
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
    """Whether ``name`` is the name of a .safetensors file, not a path."""
    return name.endswith(".safetensors") and name.isprintable() and not set(name) & set("/\\")


def listed(names: list[str]) -> str:
    """The first few names, and the number of those left out."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name[:100]) for name in names[:SHOWN]) + more


def _no_weights(folder: Path) -> ModelError:
    try:
        found = os.listdir(folder)
    except OSError as error:
        return ModelError(f"cannot read the model folder {folder}: {error.strerror}")
    return refusal(str(folder), found)


def refusal(place: str, found: Iterable[str]) -> ModelError:
    """The error for a folder or repository ``place`` without a usable checkpoint."""
    names = sorted(found)
    pickles = [name for name in names if name.endswith(PICKLES)]
    ggufs = [name for name in names if name.endswith(".gguf")]
    looked_for = f"looked for {SINGLE} and {INDEX}"
    if pickles:
        return ModelError(
            f"{place} holds its weights as pickled objects ({listed(pickles)}), which are "
            "refused, because opening one can run any code. Convert them once with transformers, "
            "AutoModelForCausalLM.from_pretrained(model).save_pretrained(new_folder), "
            "or choose a repository that has safetensors files"
        )
    if ggufs:
        return ModelError(
            f"{place} holds GGUF weights ({listed(ggufs)}), which are not supported yet; "
            f"{looked_for}"
        )
    return ModelError(f"no weights in {place}: {looked_for}, found {listed(names) or 'nothing'}")
