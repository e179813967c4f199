"""Opens the weights of a model folder: one safetensors file, or shards with an index.

The index lists the files of the checkpoint; the files list their tensors. Pickled weights are never
opened, because reading them can run any code.
"""

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from talu.exceptions import ModelError
from talu.weights.checkpoint import Checkpoint, listed
from talu.weights.files import FileVersion, versions_of
from talu.weights.safetensors import MAX_JSON_BYTES, SafetensorsFile, parse_json

__all__ = ["INDEX", "SINGLE", "open_folder", "read_index", "refusal", "weight_files"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def open_folder(folder: Path, *, use_mmap: bool = True) -> Checkpoint:
    """Open the safetensors file or files of ``folder``.

    If several files hold a tensor, that of the last one is used.

    Args:
        folder: holds ``model.safetensors``, or shards and their index.
        use_mmap: map the files; otherwise each tensor is read into its own memory.

    Raises:
        ModelError: no safetensors weights, or a damaged or missing file.
    """
    versions = _versions(folder)
    files: list[SafetensorsFile] = []

    def close() -> None:
        for file in files:
            file.close()

    try:
        for path in weight_files(folder):
            files.append(SafetensorsFile(path, use_mmap=use_mmap))
        tensors = {name: file.tensor(name) for file in files for name in file.tensors}
        now = partial(_versions, folder)
        return Checkpoint(str(folder), tensors, files=versions, now=now, close=close)
    except BaseException:
        close()
        raise


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
            f"{place} holds GGUF weights ({listed(ggufs)}), not {SINGLE}; give the path of one of "
            "these files, downloaded first if it is on the hub"
        )
    return ModelError(f"no weights in {place}: {looked_for}, found {listed(names) or 'nothing'}")


def _versions(folder: Path) -> tuple[FileVersion, ...]:
    """Identify the files of the checkpoint, the index included."""
    paths = weight_files(folder)
    if (folder / INDEX).is_file():
        paths.append(folder / INDEX)
    return versions_of(paths)
