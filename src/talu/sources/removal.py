"""Removes models from the caches, and never a file elsewhere."""

import importlib
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talu.error_text import reason, shown
from talu.exceptions import IOError as TaluIOError
from talu.exceptions import ModelError, ModelNotFoundError
from talu.sources.gguf_on_hub import GgufOnHub, models_in
from talu.sources.hub_cache import (
    Files,
    cache_folder,
    files_by_model,
    home_of,
    incomplete_files,
)
from talu.sources.resolve import BUNDLED, PATH_STARTS, exists, split_tag
from talu.weights.cache import packed_files

__all__ = ["Removal", "removal_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What is removed with a model.

    Attributes:
        ref: the model.
        files: links and files; those of a ``home`` are left out.
        home: the folder of a repository that is removed as a whole, else None.
        shared: content that is removed if no other repository needs it.
        bytes: disk space that becomes free.
    """

    ref: str
    files: tuple[Path, ...]
    home: Path | None = None
    shared: tuple[Path, ...] = ()
    bytes: int

    def execute(self) -> None:
        """Remove the files.

        Raises:
            IOError: one cannot be removed; others may be.
        """
        try:
            if self.home is not None:
                _remove_repository(self.home)
            for path in self.files:
                path.unlink(missing_ok=True)
            _sweep(self.shared, cache_folder())
        except OSError as error:
            raise TaluIOError(
                f"cannot remove {error.filename}: {reason(error)}", code="IO_WRITE_FAILED"
            ) from error


def removal_of(ref: str, *, packed_only: bool = False) -> Removal:
    """What removing a model means; nothing is removed yet.

    Args:
        ref: a hub id, with a tag to remove one of the GGUF models of a repository. With
            ``packed_only`` also the path of a model.
        packed_only: remove the packed weights only, which the next open makes again.

    Raises:
        ModelNotFoundError: no such model is in a cache.
        ModelError: it is not in a cache but elsewhere, or several models match the tag.
    """
    if ref == BUNDLED:
        raise ModelError(f"{BUNDLED} is a part of talu, and cannot be removed")
    if ref.startswith(PATH_STARTS) or ref in (".", "..") or exists(ref):
        if packed_only:
            return _of_packed(ref, _files_at(Path(ref).expanduser()))
        raise ModelError(
            f"{shown(ref)} is a file or folder of your own; only what is in the caches is removed. "
            "--packed removes its packed weights"
        )
    named = split_tag(ref)
    if named is None:
        raise ModelNotFoundError(f"{shown(ref)} is not the hub id of a model")
    model_id, tag = named
    home = home_of(cache_folder(), model_id)
    if not home.is_dir():
        raise ModelNotFoundError(f"the model {shown(model_id)} is not in {cache_folder()}")
    if home.is_symlink():
        raise ModelError(f"{home} is a link to a folder elsewhere; remove that yourself")
    models = files_by_model(home)
    chosen, parts = (models, set()) if tag is None else _tagged(home, models, tag)
    contents = {path for files in chosen.values() for path in files.contents}
    if packed_only:
        return _of_packed(ref, contents)
    packed = _packed(contents)
    whole = tag is None or (chosen.keys() == models.keys() and parts == {*incomplete_files(home)})
    if whole:
        blobs = {*home.glob("blobs/*")}
        own = {path for path in home.rglob("*") if path in blobs or not path.is_symlink()}
    else:
        kept = {name: files for name, files in models.items() if name not in chosen}
        own = blobs = (_blobs(home, chosen) - _blobs(home, kept)) | parts
    return Removal(
        ref=ref,
        files=packed if whole else (*_links(chosen), *own, *packed),
        home=home if whole else None,
        shared=tuple(_shared(blobs, home.parent)),
        bytes=_bytes({*own, *packed}),
    )


def _blobs(home: Path, models: Mapping[str | None, Files]) -> set[Path]:
    """The blobs of a repository to which the links of these models lead."""
    found = set()
    for link in _links(models):
        with suppress(OSError):
            found.add(Path(os.path.normpath(link.parent / os.readlink(link))))
    return {path for path in found if path.parent == home / "blobs"}


def _tagged(
    home: Path, models: Mapping[str | None, Files], tag: str
) -> tuple[dict[str | None, Files], set[Path]]:
    """The model that a tag means, and what there is of it if its download was interrupted.

    Raises:
        ModelError: none does, or several do.
    """
    names = [path.relative_to(home).as_posix().split("/", 2)[2] for path in _links(models)]
    incomplete = incomplete_files(home)
    name = GgufOnHub(tag).model(str(home), {*names, *incomplete.values()})
    parts = {path for path, file in incomplete.items() if name in models_in([file])}
    chosen: dict[str | None, Files] = {name: models[name]} if name in models else {}
    if not chosen and not parts:  # a file that is no model of its own
        raise ModelNotFoundError(f"{home} has no model {shown(tag)}")
    return chosen, parts


def _links(models: Mapping[str | None, Files]) -> list[Path]:
    return [path for files in models.values() for path in files.links]


def _of_packed(ref: str, contents: Iterable[Path]) -> Removal:
    files = _packed(contents)
    if not files:
        raise ModelNotFoundError(f"there are no packed weights of {shown(ref)}")
    return Removal(ref=ref, files=files, bytes=_bytes(files))


def _packed(contents: Iterable[Path]) -> tuple[Path, ...]:
    """The packed weights of these files."""
    names = {str(path) for path in contents}
    return tuple(each.path for each in packed_files() if names & {*each.sources})


def _files_at(path: Path) -> set[Path]:
    """The file, or all files in the folder, with links resolved."""
    paths = [path, *path.rglob("*")] if path.is_dir() else [path]
    return {each.resolve() for each in paths if each.is_file()}


def _bytes(paths: Iterable[Path]) -> int:
    total = 0
    for path in paths:
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _remove_repository(home: Path) -> None:
    """Remove the folder of a repository, and its locks."""
    shutil.rmtree(home)
    shutil.rmtree(home.parent / ".locks" / home.name, ignore_errors=True)


def _shared(blobs: Iterable[Path], cache: Path) -> list[Path]:
    """What the hub's client shares between repositories, of the blobs of one."""
    if not any(path.is_symlink() for path in blobs):
        return []
    client = _client()
    found = (client.shared_blob_target(path, cache) for path in blobs) if client else ()
    return [path for path in found if path is not None]


def _sweep(shared: Iterable[Path], cache: Path) -> None:
    """Let the hub's client remove what no repository needs any more."""
    for path in shared:
        with suppress(OSError):
            _client().sweep_shared_blob(path, cache_dir=cache)


def _client() -> Any:
    """The part of the hub's client that shares content; None in a version without it.

    Then ``hf cache prune`` removes what is not needed.
    """
    try:
        module = importlib.import_module("huggingface_hub.utils._shared_blobs")
    except ImportError:
        return None
    known = hasattr(module, "shared_blob_target") and hasattr(module, "sweep_shared_blob")
    return module if known else None
