"""Compares the network that the metadata of a GGUF file describes with the original."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from talu.conversion.gguf_metadata import Network, unsupported
from talu.conversion.original import Original
from talu.gguf.header import Value
from talu.gguf.settings import settings_of
from talu.gguf.writer import Typed
from talu.graph.record import Graph, Op
from talu.models import families
from talu.models.decoder import HEAD, TABLE
from talu.sources.settings import Settings

__all__ = ["check_network", "plain"]

ROUNDING = 1e-6  # relative difference of rotary frequencies that are divided by rounded factors
ONE_ADDED = ("rms_norm", "offset")  # in files, the weights of Gemma's norms have the 1 added
WINDOW = ("attention", "window")
EMBEDDINGS = ("scale", "factor")
FREQUENCIES = ("rope", "frequencies")


def check_network(
    original: Original, network: Network, shapes: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """Read a network back from the metadata of a file, and say what differs.

    Args:
        original: the model.
        network: what the file says.
        shapes: of the tensors in the file.

    Returns:
        a note for each difference that leaves the model usable.

    Raises:
        ConvertError: there is another difference.
    """
    factors = network.rope_factors
    values = settings_of(
        plain(network.metadata),
        shapes,
        "the converted model",
        rope_factors=None if factors is None else factors.tolist(),
    )
    settings = Settings(Path("the converted model"), values)
    family = families()[str(values["model_type"])]
    found: Graph = family.build(family.read(settings, values["model_type"]), _head(original))
    differences: dict[tuple[str, str], tuple[Any, Any]] = {}
    known = original.architecture.graph
    for ours, theirs in zip(known.ops, found.ops, strict=False):
        if _kind(ours) != _kind(theirs):
            what = f"{ours.kind} of {', '.join(ours.weights) or 'values'}"
            raise unsupported(f"GGUF cannot describe this network: it would have no {what}")
        for name in ours.params:
            if not np.array_equal(ours.params[name], theirs.params[name]):
                differences.setdefault((ours.kind, name), (ours.params[name], theirs.params[name]))
    if len(known.ops) != len(found.ops):
        raise unsupported("GGUF cannot describe this network: it would have other operations")
    return [_note(where, *values) for where, values in differences.items() if where != ONE_ADDED]


def plain(metadata: Mapping[str, Typed]) -> dict[str, Value]:
    """Metadata as ``talu.gguf.header`` reads it."""
    return {
        key: value.item()
        if isinstance(value, np.generic)
        else value.data
        if isinstance(value, np.ndarray)
        else value
        for key, value in metadata.items()
    }


def _head(original: Original) -> str | None:
    architecture = original.architecture
    if not architecture.generates:
        return None
    return HEAD if HEAD in architecture.graph.weights else TABLE


def _kind(op: Op) -> tuple[object, ...]:
    """What must be equal in two operations."""
    return op.kind, op.inputs, op.weights, op.width, op.params.keys()


def _note(where: tuple[str, str], ours: Any, theirs: Any) -> str:
    """A note on a difference; an error if the model would not be usable."""
    if where == WINDOW and not theirs:
        return (
            f"the file has no place for the sliding window of {ours} tokens, so every token "
            "attends to all before it; answers differ in longer texts"
        )
    if where == EMBEDDINGS:
        return (
            f"programs that read the file multiply embeddings by {theirs:g}; the original says "
            f"{ours:g}, which is that number rounded to 16 bits"
        )
    if where == FREQUENCIES and np.allclose(ours, theirs, rtol=ROUNDING, atol=0):
        return "rotary frequencies differ from the original's in the last bit"
    raise unsupported(
        f"GGUF cannot describe this network: {where[1]} of {where[0]} would be {theirs!s:.40} "
        f"instead of {ours!s:.40}"
    )
