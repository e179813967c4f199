"""Converts a model to another format: checks first, then writes, completely or not at all."""

import os
from dataclasses import dataclass
from pathlib import Path

from talu.conversion.destination import Destination
from talu.conversion.original import opened
from talu.conversion.targets import target_named
from talu.error_text import kind_of, shown
from talu.exceptions import ValidationError
from talu.router.reference import split_reference
from talu.router.spec import path_reference
from talu.weights.progress import Progress

__all__ = ["Conversion", "convert"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A converted model.

    Attributes:
        path: its file or folder.
        format: the name of its format.
        bytes: size of all its files together.
        bits_per_weight: of all tensors together.
        notes: what differs from what was asked for, or from the original.
    """

    path: Path
    format: str
    bytes: int
    bits_per_weight: float
    notes: tuple[str, ...]


def convert(
    model: str | os.PathLike[str],
    *,
    to: str,
    output: str | os.PathLike[str],
    force: bool = False,
    offline: bool = False,
) -> Conversion:
    """Convert a model to another format.

    The result appears complete, or not at all: until the end it is written in a hidden folder
    beside it. A progress bar is shown as when a model is quantised at load.

    Args:
        model: a folder, a GGUF file, ``"talu/pocket"``, or a hub id, with F32, F16 or BF16 weights.
        to: the format, such as ``"q8_0"``; upper case is the same.
        output: the file or, for formats that are one, the folder to write. The folder that it is in
            must exist.
        force: replace an existing result.
        offline: do not use the network; a hub id must be in the hub's cache.

    Raises:
        ConvertError: the format is unknown or cannot hold the model, the weights are quantised
            already, the output exists, or it cannot be written.
        ValidationError: an argument is of the wrong type, or the model runs behind an endpoint.
        ModelNotFoundError: there is no such model.
        ModelError: its files are damaged, or the architecture is not supported.
        TokenizerError: its tokenizer is missing or damaged.
    """
    ref = _reference(model)
    target = target_named(to)
    destination = Destination(_path(output), is_folder=target.is_folder, force=force)
    with opened(ref, offline=offline) as original:
        source = original.source
        destination.check_apart(Path(source.location), source.files)
        plan = target.plan(original)
        destination.check_space(plan.size)
        with (
            destination.writing() as path,
            Progress(f"converting to {target.name}", plan.size) as progress,
        ):
            plan.write(path, progress.add)
            original.tensors.check_unchanged()
    return Conversion(
        path=destination.path,
        format=target.name,
        bytes=plan.size,
        bits_per_weight=8 * plan.tensor_bytes / max(1, plan.parameters),
        notes=(*original.notes, *plan.notes),
    )


def _reference(model: object) -> str:
    if not isinstance(model, str | os.PathLike):
        raise ValidationError(
            f"a model must be a text or a path, got {kind_of(model)}", details={"param": "model"}
        )
    provider, ref = split_reference(
        path_reference(model) if isinstance(model, os.PathLike) else model
    )
    if provider is not None:
        raise ValidationError(
            f"{shown(model)} runs behind an endpoint; only models on this machine are converted",
            details={"param": "model"},
        )
    return ref


def _path(output: object) -> Path:
    if isinstance(output, str | os.PathLike):
        text = os.fspath(output)
        if isinstance(text, str) and text and "\0" not in text:
            return Path(text).expanduser()
    raise ValidationError(
        f"output must be the path of a file or folder, got {shown(output)}",
        details={"param": "output"},
    )
