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
from talu.first_use import loaded
from talu.sources.kinds import Found

__all__ = ["BUNDLED", "resolve", "split_tag"]

BUNDLED = "talu/pocket"
BUNDLED_FOLDER = Path(__file__).parents[1] / "models" / "pocket"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
FILE_ON_HUB = re.compile(r"([\w.-]+/[\w.-]+)/([^:]+\.gguf)", re.ASCII)
LONGEST_TAG = 1000  # characters of a quantisation or a file name
LONGEST_HUB_ID = 193  # 96 characters for either part
PATH_STARTS = ("/", "./", "../", "~")
FORMS = (
    "a folder (./path/to/model), a GGUF file (./model.gguf), a hub id (Qwen/Qwen3-0.6B), a hub id "
    f"with a quantisation (org/name-GGUF:Q4_K_M) or {BUNDLED}"
)


def resolve(
    ref: str, *, offline: bool = False, check: Callable[[Path], object] | None = None
) -> Found:
    """The folder or file of the model that ``ref`` names.

    Args:
        ref: ``"talu/pocket"``, a folder or file, or a hub id ``"organisation/name"``, after which
            a colon and a quantisation or file name may follow. A path that exists takes precedence
            over a hub id; a reference that starts with ``./`` is always a path.
        offline: open no socket; a hub id must be in the hub's cache.
        check: called with a folder that has the small files of a hub model before its weights are
            downloaded; an exception from it ends the download.

    Returns:
        an existing path, whose content has not been checked, and what was chosen.

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
        return Found(bundled())
    if ref.startswith(PATH_STARTS) or ref in (".", "..") or exists(ref):
        return Found(local(ref))
    if (named := split_tag(ref)) is not None:
        fetch = loaded("talu.sources.hub", "fetch")
        found: Found = fetch(*named, offline=offline, check=check)
        return found
    hint = ""
    if (file := FILE_ON_HUB.fullmatch(ref[:LONGEST_TAG])) is not None:
        hint = f" (a file in a hub repository is named {shown(f'{file[1]}:{file[2]}')[1:-1]})"
    raise ModelNotFoundError(
        f"no model {shown(ref)}: there is no folder or file of that path, and it is not a hub "
        f"id{hint}; give {FORMS}"
    )


def split_tag(ref: str) -> tuple[str, str | None] | None:
    """The hub id and the tag of a reference; None if it cannot be a model on the hub.

    A missing file with the ending ``.gguf`` is not looked for on the hub.
    """
    model_id, colon, tag = ref.partition(":")
    if len(model_id) > LONGEST_HUB_ID or not HUB_ID.fullmatch(model_id):
        return None
    if (colon and not tag) or len(tag) > LONGEST_TAG or model_id.endswith(".gguf"):
        return None
    return model_id, tag or None


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
