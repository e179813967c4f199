"""Converts a model on this machine by its reference."""

import importlib
import os
from pathlib import Path

from talu.descriptions import Conversion
from talu.error_text import kind_of, shown
from talu.exceptions import ValidationError
from talu.router.description import local_reference

__all__ = ["convert"]


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
        to: the format, in lower or upper case. GGUF files: ``"f32"``, ``"f16"``, ``"bf16"``,
            ``"q8_0"``, ``"q6_k"``, ``"q5_k_m"``, ``"q5_k_s"``, ``"q4_k_m"``, ``"q4_k_s"``,
            ``"q5_1"``, ``"q5_0"``, ``"q4_1"``, ``"q4_0"``. Folders for mlx-lm: ``"mlx-bf16"``,
            ``"mlx-f16"``, ``"mlx-8bit"``, and the same with 6, 5, 4, 3 and 2 bits.
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
    ref, path = _reference(model), _path(output)
    for name, flag in (("force", force), ("offline", offline)):
        if not isinstance(flag, bool):
            raise ValidationError(
                f"{name} must be True or False, got {shown(flag)}", details={"param": name}
            )
    module = importlib.import_module("talu.conversion.convert")
    done: Conversion = module.convert_model(ref, to, path, force=force, offline=offline)
    return done


def _reference(model: object) -> str:
    if not isinstance(model, str | os.PathLike):
        raise ValidationError(
            f"a model must be a text or a path, got {kind_of(model)}", details={"param": "model"}
        )
    return local_reference(model, "converted")


def _path(output: object) -> Path:
    if isinstance(output, str | os.PathLike):
        text = os.fspath(output)
        if isinstance(text, str) and text and "\0" not in text:
            return Path(text).expanduser()
    raise ValidationError(
        f"output must be the path of a file or folder, got {shown(output)}",
        details={"param": "output"},
    )
