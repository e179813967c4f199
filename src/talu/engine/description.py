"""Describes a model and the memory that it needs from its files, without loading its weights."""

from dataclasses import dataclass
from math import prod

from talu.descriptions import Memory, TensorFormat
from talu.engine.budget import cache_bytes, plan_cache
from talu.engine.devices import Device, device_for
from talu.engine.loading import plan_layout
from talu.exceptions import ModelError, ResourceError, ValidationError
from talu.models import Architecture, load_architecture
from talu.sources.source import ModelSource
from talu.types import LocalBackend
from talu.weights.checkpoint import Checkpoint
from talu.weights.layout import choose_kv_dtype
from talu.weights.tensors import Tensor

__all__ = ["Network", "check_settings", "describe_network"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What the files say about a network.

    Attributes:
        formats: of its tensors, the largest first.
        memory: what it needs here; None if it cannot run.
        problem: why it cannot run; None if it can.
    """

    architecture: Architecture
    formats: tuple[TensorFormat, ...]
    memory: Memory | None
    problem: str | None


def describe_network(
    source: ModelSource, *, context: int | None = None, options: LocalBackend | None = None
) -> Network:
    """Describe a model; of its weights, only the headers are read.

    Args:
        source: its files.
        context: tokens for which the memory is computed; None for what the model was trained for.
        options: as for opening it.

    Raises:
        ModelError: a file is missing or damaged, or the network is not supported.
        ValidationError: the model was trained for a shorter context.
    """
    options = options or LocalBackend()
    device = device_for(options)
    with source.tensors(use_mmap=False) as checkpoint:
        architecture = load_architecture(source, stored=set(checkpoint.names))
        names = architecture.names_in(checkpoint.names)
        formats = _formats(checkpoint.renamed(names))
        if context is not None and not 0 < context <= architecture.context_length:
            raise ValidationError(
                f"context={context} is not 1 to {architecture.context_length}, which the model was "
                "trained for",
                details={"param": "context", "value": context},
            )
        try:
            tensors, layout = plan_layout(architecture, checkpoint, device, options)
        except ModelError as error:
            return Network(
                architecture=architecture, formats=formats, memory=None, problem=str(error)
            )
        weights = device.packed_bytes(tensors, layout)
    memory = _memory(architecture, weights, choose_kv_dtype(options, layout), device, context)
    return Network(architecture=architecture, formats=formats, memory=memory, problem=None)


def check_settings(source: ModelSource) -> None:
    """Check that the network is supported; the weights need not be there.

    Raises:
        ModelError: a file is missing or damaged, or the network is not supported.
    """
    load_architecture(source)


def _formats(tensors: Checkpoint) -> tuple[TensorFormat, ...]:
    """The formats of the stored tensors, each counted once even if it has two names."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name in tensors.names:
        tensor = tensors[name]
        groups.setdefault(tensor.encoding.name, {})[tensor.name] = tensor
    found = [
        TensorFormat(
            name=name,
            tensors=len(group),
            parameters=sum(prod(tensor.shape) for tensor in group.values()),
            bytes=sum(tensor.bytes for tensor in group.values()),
        )
        for name, group in groups.items()
    ]
    return tuple(sorted(found, key=lambda each: each.bytes, reverse=True))


def _memory(
    architecture: Architecture, weights: int, kv_dtype: str, device: Device, context: int | None
) -> Memory:
    layers, most = architecture.graph.layers, architecture.context_length
    free = device.free_memory()
    try:
        usable = plan_cache(layers, most, kv_dtype, max(0, free - weights)).context_length
    except ResourceError:
        usable = 0
    context = context or most
    cache = cache_bytes(layers, context, kv_dtype)
    return Memory(
        context=context,
        weights=weights,
        cache=cache,
        free=free,
        usable_context=usable,
        fits=weights + cache <= free and context <= usable,
    )
