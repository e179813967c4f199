"""Opens the model that is converted, and refuses one that cannot be."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from talu.error_text import shown
from talu.exceptions import ConvertError
from talu.models import Architecture, load_architecture
from talu.models.decoder import HEAD
from talu.sources import ModelSource, open_model
from talu.weights.checkpoint import Checkpoint, listed
from talu.weights.numbers import equal
from talu.weights.tensors import ARRAY_TYPES

__all__ = ["Original", "opened"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A model that is open for conversion.

    Attributes:
        name: for people, such as the name of its folder.
        source: its files.
        architecture: its network.
        tensors: those of the network by its own names, as F32, F16 or BF16.
        notes: what of the original is not converted.
    """

    name: str
    source: ModelSource
    architecture: Architecture
    tensors: Checkpoint
    notes: tuple[str, ...]


@contextmanager
def opened(ref: str, *, offline: bool = False) -> Iterator[Original]:
    """Open a model; its tensors can be read until the end of the ``with`` block.

    Args:
        ref: see ``talu.sources.open_model``.
        offline: open no socket; a hub id must be in the hub's cache.

    Raises:
        ConvertError: its weights are quantised already, or it is a cross-encoder.
        TaluError: it cannot be found or opened.
    """
    source, note = open_model(ref, offline=offline, check=load_architecture)
    with source.tensors(use_mmap=False) as checkpoint:
        stored = set(checkpoint.names)
        architecture = load_architecture(source, stored=stored)
        if architecture.scores_pairs:
            raise ConvertError(
                f"{_name(ref)} is a cross-encoder, which scores pairs of texts; only models that "
                "generate text or make embeddings are converted"
            )
        pair = architecture.tied_pair(stored)
        if pair is not None and not equal(*(checkpoint[name] for name in pair)):
            architecture = load_architecture(source, stored=stored, own_head=True)
        names = architecture.names_in(stored)
        tensors = checkpoint.renamed(names)
        tensors.check(architecture.graph.weights)
        _check_encodings(tensors)
        unused = sorted(stored.difference(names.values(), [HEAD] if pair else []))
        yield Original(
            name=_name(ref),
            source=source,
            architecture=architecture,
            tensors=tensors,
            notes=(*([note] if note else []), *_left_out(unused)),
        )


def _check_encodings(tensors: Checkpoint) -> None:
    quantised = [name for name in tensors.names if tensors[name].encoding.name not in ARRAY_TYPES]
    if quantised:
        kinds = sorted({tensors[name].encoding.name for name in quantised})
        raise ConvertError(
            f"the weights in {tensors.place} are quantised already ({listed(quantised)} as "
            f"{listed(kinds)}); only models with F32, F16 or BF16 weights are converted, so take "
            "the original",
            code="CONVERT_ALREADY_QUANTIZED",
            details={"formats": kinds},
        )


def _left_out(unused: list[str]) -> list[str]:
    """A note on the tensors that the network does not read."""
    if not unused:
        return []
    return [f"tensors that the network does not read are left out: {listed(unused)}"]


def _name(ref: str) -> str:
    """The last part of a reference, without the ending of a file."""
    name = Path(ref.rstrip("/")).name.partition(":")[0].removesuffix(".gguf")
    name = name or Path(ref).resolve().name or shown(ref)
    return name.encode(errors="replace").decode()  # the name of a folder can have any bytes
