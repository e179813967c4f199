"""Defines ``LoadedModel``, the parts of a loaded model, and ``ModelInfo``, which describes it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from talu.engine.budget import CachePlan
from talu.engine.devices import DeviceWeights
from talu.engine.embedding import EmbedderPlan
from talu.models import Architecture
from talu.protocols import Executor
from talu.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from talu.engine.kept_prefixes import KeptPrefixes
    from talu.engine.vectors import Head

__all__ = ["LoadedModel", "ModelInfo"]


class ModelInfo(NamedTuple):
    """Describes a loaded model, where it runs and the memory that it uses.

    Attributes:
        device: device that runs the steps.
        target: instruction set of the kernels.
        threads: number of threads of a step.
        weight_format: number format of the matrices; several are joined by ``+``.
        weights_mapped: whether the weights are in a mapped file that other processes share.
        weights_from_cache: whether an earlier open packed the weights.
        kv_dtype, kv_bytes: number format and size of the KV cache.
        context_length: maximum tokens of a request, prompt and answer together.
        model_context_length: tokens that the model was trained for.
        notes: what differs from what the model or the caller asked for.
    """

    model_type: str
    parameters: int
    device: str
    target: str
    threads: int
    weight_format: str
    weight_bytes: int
    weights_mapped: bool
    weights_from_cache: bool
    kv_dtype: str
    kv_bytes: int
    context_length: int
    model_context_length: int
    notes: tuple[str, ...] = ()

    @property
    def bits_per_weight(self) -> float:
        """Bits that a parameter takes on average, with scales, and padding of the matrices."""
        return 8 * self.weight_bytes / self.parameters


class LoadedModel(NamedTuple):
    """The parts of a loaded model.

    Attributes:
        chat_templates: Jinja sources by name.
        executor: computes logits, or hidden states if the model computes no logits.
        weights: shared by the executors and closed with them.
        embedder: plan of the embedding steps.
        open_embedder: creates the executor for hidden states. It shares the weights with
            ``executor``, or is the same object.
        head: computes vectors from pooled states; None if there is no step after pooling.
        speculative: whether generations use drafts.
        kept: keeps computed beginnings of prompts on disk; None if they are not kept.
    """

    architecture: Architecture
    tokenizer: Tokenizer
    chat_templates: Mapping[str, str]
    executor: Executor
    weights: DeviceWeights
    cache: CachePlan
    info: ModelInfo
    embedder: EmbedderPlan
    open_embedder: Callable[[], Executor]
    head: "Head | None"
    speculative: bool = False
    kept: "KeptPrefixes | None" = None
