"""Finds the place of a model reference: the bundled model, a local path or a hub model.

A reference is looked up in the hub only if it has the form of a hub id and is not a local folder.
"""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

from talu.error_text import shown
from talu.exceptions import ModelError, ModelNotFoundError, ValidationError
from talu.sources import hub

__all__ = ["BUNDLED", "resolve"]

BUNDLED = "talu/pocket"
BUNDLED_FOLDER = Path(__file__).parents[1] / "models" / "pocket"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
LONGEST_HUB_ID = 193  # 96 characters for either part
PATH_STARTS = ("/", "./", "../", "~")
FORMS = f"a folder (./path/to/model), a hub id (Qwen/Qwen3-0.6B) or {BUNDLED}"


def resolve(
    ref: str, *, offline: bool = False, check: Callable[[Path], object] | None = None
) -> Path:
    """The folder or file of the model that ``ref`` names.

    Args:
        ref: ``"talu/pocket"``, a folder, or a hub id ``"organisation/name"``. A folder of that name
            takes precedence over a hub id; a reference that starts with ``./`` is always a folder.
        offline: open no socket; a hub id must be in the hub's cache.
        check: called with a folder that has the small files of a hub model before its weights are
            downloaded; an exception from it ends the download.

    Returns:
        an existing path, whose content has not been checked.

    Raises:
        ModelNotFoundError: there is no such model.
        ModelError: access to the path is denied.
        ValidationError: ``ref`` is empty or not a string.
        IOError: the hub cannot be reached, or its cache cannot be written.
    """
    if not isinstance(ref, str) or not ref.strip() or "\0" in ref:
        raise ValidationError(
            f"a model reference must name {FORMS}; got {shown(ref)}", details={"param": "model"}
        )
    if ref == BUNDLED:
        return bundled()
    if ref.startswith(PATH_STARTS) or ref in (".", "..") or exists(ref):
        return local(ref)
    if len(ref) <= LONGEST_HUB_ID and HUB_ID.fullmatch(ref):
        return hub.fetch(ref, offline=offline, check=check)
    raise ModelNotFoundError(
        f"no model {shown(ref)}: there is no folder of that path, and it is not a hub id; give "
        f"{FORMS}"
    )


def exists(ref: str) -> bool:
    """Whether the relative path ``ref`` exists, even if it is inaccessible."""
    try:
        os.stat(ref)
    except PermissionError:
        return True
    except (OSError, ValueError):  # ValueError: invalid characters in a path
        return False
    return True


def bundled() -> Path:
    """The folder of the bundled model."""
    if not BUNDLED_FOLDER.is_dir():
        raise ModelNotFoundError(f"{BUNDLED} is missing from this installation: {BUNDLED_FOLDER}")
    return BUNDLED_FOLDER


def local(ref: str) -> Path:
    """The file or folder at the path ``ref``."""
    name = shown(ref)
    try:
        path = Path(ref).expanduser()
        path.stat()
    except RuntimeError as error:
        raise ModelNotFoundError(f"no model {name}: {error}") from error
    except ValueError as error:
        wrong = f"no model {name}: it has characters that paths on this system cannot have"
        raise ModelNotFoundError(wrong) from error
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            whole = shown(str(path.absolute()))
            raise ModelNotFoundError(f"no model {name}: {whole} does not exist") from error
        raise ModelError(f"the model {name} cannot be opened: {error.strerror}") from error
    return path
