"""Opens the files of a model, whatever their kind."""

from collections.abc import Callable
from pathlib import Path

from talu.error_text import reason, shown
from talu.exceptions import ModelError
from talu.sources.kinds import kinds_for
from talu.sources.resolve import resolve
from talu.sources.source import ModelSource

__all__ = ["ModelSource", "open_model", "open_path"]


def open_model(
    ref: str, *, offline: bool = False, check: Callable[[ModelSource], object] = lambda source: None
) -> tuple[ModelSource, str | None]:
    """The source of the model that ``ref`` names, and a note if ``ref`` left a choice.

    Args:
        ref: see ``resolve``.
        offline: open no socket; a hub id must be in the hub's cache.
        check: called with a source that lacks the weights before those of a hub model are
            downloaded; an exception from it ends the download.

    Raises:
        TaluError: any error of ``resolve`` and ``open_path``.
    """
    found = resolve(ref, offline=offline, check=lambda folder: check(open_path(folder)))
    return open_path(found.path), found.note


def open_path(path: Path) -> ModelSource:
    """The source at an existing path.

    Symbolic links are resolved, so that a model has one location. That of a file keeps its own
    name, because the hub's cache has links to files whose names are checksums.

    Raises:
        ModelError: the path is inaccessible, or of no known kind.
    """
    try:
        real = path.resolve(strict=True)
        path = real if real.is_dir() else path.parent.resolve() / path.name
    except OSError as error:
        raise ModelError(f"{path} cannot be opened: {reason(error)}") from error
    except RuntimeError as error:
        raise ModelError(f"{path} cannot be opened: {error}") from error
    for kind in kinds_for(path):
        if kind.matches(path):
            return kind.open_source(path)
    raise ModelError(
        f"{shown(str(path))} is a file; give the folder that holds it: {shown(str(path.parent))}"
    )
