"""Values that describe a loaded model: its parts, and what is known about them."""

from collections.abc import Callable
from dataclasses import dataclass

from talu.engine.budget import CachePlan
from talu.engine.embedding import EmbedderPlan
from talu.engine.vectors import Head
from talu.models import Architecture
from talu.protocols import Executor
from talu.tokenizer.tokenizer import Tokenizer
from talu.weights.pack import LoadedWeights

__all__ = ["LoadedModel", "ModelInfo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What was opened, where it runs and what it takes.

    Attributes:
        device: where the steps run.
        target: the instruction set whose kernels were chosen.
        threads: the number that work on a step.
        weight_format: of the matrices; several are joined by ``+``.
        weights_mapped: they lie in a mapped file that other processes share.
        weights_from_cache: an earlier open had packed them.
        kv_format, kv_bytes: of the cache.
        context_length: tokens that one request may have, prompt and answer.
        model_context_length: what the model was made for.
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
    kv_format: str
    kv_bytes: int
    context_length: int
    model_context_length: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """The parts of one model, ready to step.

    Attributes:
        executor: gives logits; hidden states where the model makes no logits.
        weights: what the executors share; closed with them.
        embedder: how texts are embedded.
        open_embedder: makes the executor that gives hidden states. It shares the weights with
            ``executor``, or is the same.
        head: makes vectors of what was pooled.
    """

    architecture: Architecture
    tokenizer: Tokenizer
    executor: Executor
    weights: LoadedWeights
    cache: CachePlan
    info: ModelInfo
    embedder: EmbedderPlan
    open_embedder: Callable[[], Executor]
    head: Head
