"""Turns a model reference into a folder: the bundled model, a local folder, or a hub id.

Decides by the form of the reference alone, and by what exists on this machine; the hub is asked
for what has the form of a hub id and is no folder here.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from talu.exceptions import ModelError, ModelNotFoundError, ValidationError
from talu.weights import hub

__all__ = ["BUNDLED", "resolve"]

BUNDLED = "talu/pocket"
BUNDLED_FOLDER = Path(__file__).parents[1] / "models" / "pocket"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
PATH_STARTS = ("/", "./", "../", "~")
FORMS = f"a folder (./path/to/model), a hub id (Qwen/Qwen3-0.6B) or {BUNDLED}"


def resolve(
    ref: str, *, offline: bool = False, check: Callable[[Path], object] | None = None
) -> Path:
    """The folder of the model that ``ref`` names.

    Args:
        ref: ``"talu/pocket"``, a folder, or a hub id ``"organisation/name"``. A folder of the name
            goes before a hub id; ``./`` in front says that only a folder is meant.
        offline: open no socket; a hub id must be in the hub's cache.
        check: called with a folder that has the small files of a hub model before its weights are
            downloaded; what it raises ends the download.

    Returns:
        an existing folder; what is in it has not been looked at.

    Raises:
        ModelNotFoundError: nothing is found.
        ModelError: a file is named where a folder is needed.
        ValidationError: ``ref`` is empty or no string.
        IOError: the hub cannot be reached, or its cache cannot be written.
    """
    if not isinstance(ref, str) or not ref.strip() or "\0" in ref:
        raise ValidationError(
            f"a model reference must name {FORMS}; got {ref!r}", details={"param": "model"}
        )
    if ref == BUNDLED:
        return bundled()
    if ref.startswith(PATH_STARTS) or ref in (".", "..") or os.path.exists(ref):
        return local(ref)
    if HUB_ID.fullmatch(ref):
        return hub.fetch(ref, offline=offline, check=check)
    raise ModelNotFoundError(
        f"no model {ref!r}: there is no folder of that path, and it is no hub id; give {FORMS}"
    )


def bundled() -> Path:
    """The folder of the model in the package."""
    if not BUNDLED_FOLDER.is_dir():
        raise ModelNotFoundError(f"{BUNDLED} is missing from this installation: {BUNDLED_FOLDER}")
    return BUNDLED_FOLDER


def local(ref: str) -> Path:
    """The folder at the path ``ref``."""
    try:
        path = Path(ref).expanduser()
    except RuntimeError as error:
        raise ModelNotFoundError(f"no model {ref!r}: {error}") from error
    if os.path.isdir(path):
        return path
    if not os.path.exists(path):
        raise ModelNotFoundError(f"no model {ref!r}: {path.absolute()} does not exist")
    if path.suffix == ".gguf":
        raise ModelError(
            f"{path} is a GGUF file, which is not supported yet; give a folder with config.json "
            "and safetensors weights"
        )
    raise ModelError(f"{path} is a file; give the folder that holds it: {path.parent}")
