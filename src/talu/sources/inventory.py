"""Lists the models in the caches: the hub's, which other programs use too, and that of weights."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from talu.exceptions import ModelError
from talu.sources.folder import open_source
from talu.sources.gguf_on_hub import models_in, quantisation, tag_of
from talu.sources.hub_cache import (
    cache_folder,
    files_by_model,
    find_cached,
    homes,
    incomplete_files,
)
from talu.weights.cache import PackedFile, packed_files

__all__ = ["StoredModel", "stored_models"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model in the caches.

    Attributes:
        ref: its reference; the path of its files if only its packed weights are in a cache.
        status: ``"ready"``, ``"incomplete"`` for the part of a file whose download was interrupted,
            ``"packed"`` if only packed weights are in a cache, or ``"other"`` for files that make
            no model that talu opens.
        format: the number format of most of its weights; None if it is unknown.
        bytes: its files in the hub's cache, in all versions.
        packed_bytes: its packed weights.
        last_used: when one of the files was read last, in seconds since 1970, as far as the file
            system keeps that.
    """

    ref: str
    status: str
    format: str | None = None
    bytes: int = 0
    packed_bytes: int = 0
    last_used: float


def stored_models() -> list[StoredModel]:
    """All models in the caches, by name; at the end those of which only packed weights are."""
    packed = packed_files()
    found: list[StoredModel] = []
    known: set[str] = set()
    for model_id, home in homes().items():
        with suppress(OSError):
            found += _complete(model_id, home, packed)
            found += _incomplete(model_id, home)
            known |= {str(path.resolve()) for path in home.glob("blobs/*")}
    found += [
        StoredModel(
            ref=_place(each.sources),
            status="packed",
            format="+".join(each.formats),
            packed_bytes=each.bytes,
            last_used=_used([each.path]),
        )
        for each in packed
        if not known & {*each.sources}
    ]
    return sorted(found, key=lambda model: (model.status == "packed", model.ref.casefold()))


def _complete(model_id: str, home: Path, packed: Collection[PackedFile]) -> Iterator[StoredModel]:
    """The models of a repository."""
    models = files_by_model(home)
    names = [name for name in models if name is not None]
    for name, files in models.items():
        tag = None if name is None else tag_of(name, names)
        cached = find_cached(cache_folder(), model_id, tag)
        if cached is not None and name is None and cached.found.path.suffix == ".gguf":
            cached = None  # these are the other files of a repository with GGUF models
        if cached is None and name is None and names:
            continue
        contents = {str(path) for path in files.contents}
        own = [each for each in packed if contents & {*each.sources}]
        yield StoredModel(
            ref=model_id if tag is None else f"{model_id}:{tag}",
            status="ready" if cached else "other",
            format=_format(cached.found.path) if cached else None,
            bytes=sum(path.stat().st_size for path in files.contents),
            packed_bytes=sum(each.bytes for each in own),
            last_used=_used([*files.contents, *(each.path for each in own)]),
        )


def _incomplete(model_id: str, home: Path) -> Iterator[StoredModel]:
    """The downloads that were interrupted, or are running."""
    for path, name in incomplete_files(home).items():
        first = next(iter(models_in([name])), None)
        yield StoredModel(
            ref=model_id if first is None else f"{model_id}:{quantisation(first) or first}",
            status="incomplete",
            bytes=path.stat().st_size,
            last_used=_used([path]),
        )


def _format(path: Path) -> str | None:
    """The format of most weights: in the name of a GGUF file, or in the headers of a folder."""
    if path.is_file():
        return quantisation(path.name)
    sizes: dict[str, int] = {}
    with suppress(ModelError), open_source(path).tensors(use_mmap=False) as tensors:
        for name in tensors.names:
            kind = tensors[name].encoding.name
            sizes[kind] = sizes.get(kind, 0) + tensors[name].rows * tensors[name].columns
    return max(sizes, key=lambda kind: sizes[kind], default=None)


def _place(sources: Collection[str]) -> str:
    """The file that was packed, or the folder of several."""
    first = Path(min(sources, default="?"))
    return str(first if first.suffix == ".gguf" else first.parent)


def _used(paths: Iterable[Path]) -> float:
    """When one of the files was read last."""
    times = [0.0]
    for path in paths:
        with suppress(OSError):
            times.append(path.stat().st_atime)
    return max(times)
