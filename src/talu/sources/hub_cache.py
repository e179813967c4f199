"""Finds models in the local cache of the Hugging Face hub; opens no socket.

Of the hub's client, only the module of constants is imported.
"""

import contextlib
import importlib
import json
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from talu.exceptions import ModelError
from talu.sources.gguf_on_hub import models_in, tag_of
from talu.sources.kinds import Found, HubFiles, all_kinds

__all__ = [
    "COMMIT",
    "PARTIAL",
    "REVISION",
    "Cached",
    "Files",
    "cache_folder",
    "cached_models",
    "files_by_model",
    "find_cached",
    "find_in",
    "home_of",
    "homes",
    "hub_files",
    "incomplete_files",
    "references",
    "snapshot_of",
]

REVISION = "main"
COMMIT = re.compile("[0-9a-f]{40}")
HOME = "models--"
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
PARTIAL = ".talu.incomplete"  # ends what talu has of a file; the client's own end with .incomplete


@dataclass(frozen=True, slots=True)
class Cached:
    """A model in the cache that is complete enough to be opened.

    Attributes:
        complete: every optional file is cached or known not to exist.
    """

    found: Found
    complete: bool


def cache_folder() -> Path:
    """The folder of the hub's cache; it need not exist."""
    return Path(constants().HF_HUB_CACHE)


def constants() -> Any:
    """The settings of the hub's client."""
    return importlib.import_module("huggingface_hub.constants")


def homes() -> dict[str, Path]:
    """The folders of all models in the cache, by their ids."""
    folders = sorted(cache_folder().glob(HOME + "*--*"))
    return {each.name.removeprefix(HOME).replace("--", "/"): each for each in folders}


def home_of(cache: Path, model_id: str) -> Path:
    """The folder of a model in the cache."""
    return cache / (HOME + model_id.replace("/", "--"))


def snapshot_of(home: Path) -> Path | None:
    """The folder with the files of the current version; None if there is none."""
    try:
        commit = (home / "refs" / REVISION).read_text("ascii", "replace")
    except OSError:
        return None
    return home / "snapshots" / commit if COMMIT.fullmatch(commit) else None


def find_cached(cache: Path, model_id: str, tag: str | None = None) -> Cached | None:
    """A model in the cache; None if it is not complete enough to be opened."""
    home = home_of(cache, model_id)
    folder = snapshot_of(home)
    if folder is None:
        return None
    names = listing(home, folder.name)
    found = find_in(folder, tag, names)
    if found is None:
        return None
    path, files = found
    absent = home / ".no_exist" / folder.name
    known = os.path.exists  # False for an inaccessible path
    unknown = [n for n in files.optional if not known(folder / n) and not known(absent / n)]
    if unknown and names is not None:
        unknown = [name for name in unknown if name in names]
    note = files.note(model_id, names) if names else None
    return Cached(Found(path, note), complete=not unknown)


def cached_models() -> list[str]:
    """The references of all models that can be opened from the cache."""
    cache = cache_folder()
    names = []
    for model_id, home in homes().items():
        names += [
            ref
            for ref in references(model_id, snapshot_of(home))
            if find_cached(cache, *ref) is not None
        ]
    return [model_id if tag is None else f"{model_id}:{tag}" for model_id, tag in names]


def references(model_id: str, folder: Path | None) -> list[tuple[str, str | None]]:
    """The id and the tag of each model that may be in a folder of the cache."""
    if folder is None:
        return []
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*.gguf")]
    models = models_in(files)
    found: list[tuple[str, str | None]] = [(model_id, None)] if not models else []
    if (folder / "config.json").exists() and models:
        found.append((model_id, None))
    return [*found, *((model_id, tag_of(name, files)) for name in models)]


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a model in all versions of its repository.

    Attributes:
        links: names in the folders of the versions.
        contents: what they are links to.
    """

    links: list[Path]
    contents: set[Path]


def files_by_model(home: Path) -> dict[str | None, Files]:
    """The files in the folder of a repository, by model.

    Those of a GGUF model are under the name of its first part, and all others under None.
    """
    models: dict[str | None, Files] = {}
    for snapshot in sorted(home.glob("snapshots/*")):
        paths = [path for path in snapshot.rglob("*") if not path.is_dir()]
        names = {path.relative_to(snapshot).as_posix(): path for path in paths}
        first = {part: name for name, parts in models_in(names).items() for part in parts}
        for name, path in names.items():
            files = models.setdefault(first.get(name), Files([], set()))
            files.links.append(path)
            with contextlib.suppress(OSError):
                files.contents.add(path.resolve(strict=True))
    return models


def incomplete_files(home: Path) -> dict[Path, str]:
    """What there is of files whose download was interrupted, with their names.

    The name is empty if it is not known.
    """
    names: dict[str, str] = {}
    for path in home.glob("trees/*.json"):
        with contextlib.suppress(*UNREADABLE):
            files = json.loads(path.read_bytes())["files"]
            names |= {str(about.get("lfs_sha256")): str(name) for name, about in files.items()}
    found = {}
    for path in sorted(home.glob("blobs/*.incomplete")):
        content, _, rest = path.name.partition(".")
        own = unquote(rest.removesuffix(PARTIAL)) if rest.endswith(PARTIAL) else ""
        found[path] = names.get(content, own)
    return found


def listing(home: Path, commit: str) -> Collection[str] | None:
    """The names of all files of a version, if the hub's client has stored them."""
    with contextlib.suppress(*UNREADABLE):
        files = json.loads((home / "trees" / f"{commit}.json").read_bytes())["files"]
        return [name for name in files if isinstance(name, str)]
    return None


def find_in(
    folder: Path, tag: str | None = None, names: Collection[str] | None = None
) -> tuple[Path, HubFiles] | None:
    """The path to open in a folder with a complete model, and the files of its kind."""
    for files in hub_files(tag):
        with contextlib.suppress(OSError, ModelError):
            return files.find(folder, names), files
    return None


def hub_files(tag: str | None) -> Iterable[HubFiles]:
    """The files of each kind of model that may have this tag."""
    return [files for kind in all_kinds() if (files := kind.on_hub(tag)) is not None]
