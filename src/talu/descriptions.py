"""Defines the values that describe a model on this machine, or its conversion."""

from dataclasses import dataclass
from pathlib import Path

from talu.types import Capabilities

__all__ = ["Conversion", "Memory", "ModelDescription", "TemplateFeatures", "TensorFormat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFormat:
    """The tensors of a model that are stored in one number format.

    Attributes:
        name: as the file writes it, such as ``Q4_K`` or ``BF16``.
        tensors: how many there are.
        parameters: numbers in them.
        bytes: their size in the file.
    """

    name: str
    tensors: int
    parameters: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The memory that a model needs on this machine.

    Attributes:
        context: tokens that the cache is for.
        weights: bytes of the weights as they are computed with.
        cache: bytes of the keys and values of ``context`` tokens.
        free: bytes that are free now.
        usable_context: maximum tokens of a request that the memory which is free now allows.
        fits: whether weights and cache fit into the free memory.
    """

    context: int
    weights: int
    cache: int
    free: int
    usable_context: int
    fits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateFeatures:
    """What a chat template shows to the model.

    Attributes:
        system: system messages.
        tools: the tools that are offered.
        thinking: it knows reasoning before the answer.
    """

    system: bool
    tools: bool
    thinking: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """A model on this machine, as its files describe it.

    Attributes:
        location: its folder or file.
        model_type: the architecture, such as ``llama``.
        parameters: numbers in all tensors of the network.
        layers, hidden_size: depth and width of the network.
        vocabulary_size: tokens with an embedding.
        context_length: tokens that the model was trained for.
        formats: the number formats of the tensors, the largest first.
        bits_per_weight: of all tensors together.
        template: what the chat template shows; None if there is no template.
        capabilities: what this version of talu can do with the model.
        licence: its name if the files say it.
        memory: what the model needs here; None if it cannot run.
        problem: why it cannot run; None if it can.
        notes: settings in the files that are not used, and what the reference left open.
    """

    location: str
    model_type: str
    parameters: int
    layers: int
    hidden_size: int
    vocabulary_size: int
    context_length: int
    formats: tuple[TensorFormat, ...]
    bits_per_weight: float
    template: TemplateFeatures | None
    capabilities: Capabilities
    licence: str | None
    memory: Memory | None
    problem: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A converted model.

    Attributes:
        path: its file or folder.
        format: the name of its format.
        bytes: size of all its files together.
        bits_per_weight: of all tensors together.
        notes: what differs from what was asked for, or from the original.
    """

    path: Path
    format: str
    bytes: int
    bits_per_weight: float
    notes: tuple[str, ...]
