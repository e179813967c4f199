"""Loads a model from its files: network, weights, tokenizer, cache and executor."""

from typing import TYPE_CHECKING

from talu.engine.budget import CachePlan, plan_cache
from talu.engine.devices import Device, DeviceExecutor, DeviceWeights, device_for
from talu.engine.embedding import plan_embedder
from talu.engine.model import LoadedModel, ModelInfo
from talu.engine.parts import parts
from talu.exceptions import ValidationError
from talu.first_use import loaded
from talu.graph.record import Graph
from talu.models import Architecture, load_architecture
from talu.protocols import Executor
from talu.sources.embedding import EmbeddingSettings
from talu.sources.source import ModelSource
from talu.tokenizer.tokenizer import Tokenizer
from talu.types import LocalBackend
from talu.weights.checkpoint import Checkpoint
from talu.weights.layout import (
    VECTOR,
    Role,
    choose_kv_dtype,
    choose_layout,
    conversions,
    quantisation_notes,
    quantizes,
)
from talu.weights.tensors import UnequalError

if TYPE_CHECKING:
    from talu.engine.calibration import Calibration
    from talu.engine.kept_prefixes import KeptPrefixes
    from talu.engine.vectors import Head

__all__ = ["load_model", "plan_layout"]


def load_model(source: ModelSource, options: LocalBackend | None = None) -> LoadedModel:
    """Load a model.

    Args:
        source: its files.
        options: execution options; None for the defaults of ``LocalBackend``.

    Raises:
        ModelError: a file is missing or damaged, or the files do not match.
        TokenizerError: the tokenizer is missing or damaged.
        ResourceError: there is too little memory for the cache.
        ValidationError: ``TALU_CPU`` names a target that this processor does not support, or the
            options ask for what only a model that generates can do, or for too small a cache.
    """
    options = options or LocalBackend()
    device = device_for(options)
    device.check()
    expected = load_architecture(source)  # report errors in the settings first
    tokenizer = Tokenizer(source.tokenizer(lower_case=expected.lower_case))
    chat_templates = source.chat_templates()
    architecture, weights, layout = load_network(source, device, options, tokenizer, expected)
    graph, own = architecture.graph, architecture.embedding
    formats = {*layout.values()} - {VECTOR}
    kv_dtype = choose_kv_dtype(options, layout)
    context = architecture.context_length
    budget = options.kv_cache_bytes
    cache = plan_cache(graph.layers, context, kv_dtype, device.free_memory(), budget)

    def open_executor(network: Graph, blocks: int) -> DeviceExecutor:
        return weights.executor(
            network, blocks=blocks, block_size=cache.block_size, kv_dtype=kv_dtype
        )

    executor = open_executor(graph, cache.blocks)
    embedder = plan_embedder(architecture, cache)

    def open_embedder() -> Executor:
        if not architecture.generates:
            return executor
        return open_executor(graph.up_to(architecture.hidden), embedder.blocks)

    notes = [weights.note] if weights.note else []
    kept: KeptPrefixes | None = None
    if options.prefix_cache_bytes:
        model = [source.files, sorted(layout.items()), repr(graph.ops), kv_dtype]
        open_kept = loaded("talu.engine.kept_prefixes", "open_kept")
        opened = open_kept(model, executor, cache.block_size, options.prefix_cache_bytes)
        if isinstance(opened, str):
            notes.append(opened)
        else:
            kept = opened
    info = ModelInfo(
        model_type=architecture.model_type,
        parameters=architecture.parameter_count,
        device=device.name,
        target=executor.target,
        threads=executor.num_threads,
        weight_format="+".join(sorted(formats)),
        weight_bytes=weights.bytes,
        weights_mapped=weights.mapped,
        weights_from_cache=weights.from_cache,
        kv_dtype=kv_dtype,
        kv_bytes=cache.bytes,
        context_length=cache.context_length,
        model_context_length=context,
        notes=(*notes, *tokenizer.notes, *model_notes(architecture, cache, budget)),
    )
    return LoadedModel(
        architecture=architecture,
        tokenizer=tokenizer,
        chat_templates=chat_templates,
        executor=executor,
        weights=weights,
        cache=cache,
        info=info,
        embedder=embedder,
        open_embedder=open_embedder,
        head=_head(own),
        speculative=options.speculative is not None,
        kept=kept,
    )


def _head(embedding: EmbeddingSettings) -> "Head | None":
    """The steps after pooling; None if there are none."""
    if not embedding.steps:
        return None
    head: Head = loaded("talu.engine.vectors", "load_head")(embedding.steps, embedding.dimension)
    return head


def load_network(
    source: ModelSource,
    device: Device,
    options: LocalBackend,
    tokenizer: Tokenizer | None = None,
    expected: Architecture | None = None,
) -> tuple[Architecture, DeviceWeights, dict[str, str]]:
    """The network, its weights on the device, and the format of each weight.

    If config.json ties the output head to the embedding table, but the checkpoint has a different
    head, the stored head is used.

    Args:
        source: the files of the model.
        device: where it will run.
        options: execution options.
        tokenizer: for the texts of a calibration; None if nothing is quantised.
        expected: the network according to config.json alone, if it has been recorded already.

    Raises:
        ValidationError: the options ask for what only a model that generates can do.
    """
    with source.tensors(use_mmap=options.use_mmap) as checkpoint:
        stored = set(checkpoint.names)
        if expected is not None and expected.fits(stored):
            architecture = expected
        else:
            architecture = load_architecture(source, stored=stored)
        if not architecture.generates:
            _check_encoder(options, architecture)
        tied = architecture.tied_pair(stored)
        try:
            return load_weights(architecture, checkpoint, device, options, tokenizer, tied)
        except UnequalError:  # as in transformers
            architecture = load_architecture(source, stored=stored, own_head=True)
            return load_weights(architecture, checkpoint, device, options, tokenizer)


def _check_encoder(options: LocalBackend, architecture: Architecture) -> None:
    """Refuse options that only have an effect on answers."""
    for name, effect in (
        ("speculative", "guesses tokens of an answer"),
        ("prefix_cache_bytes", "keeps beginnings of chats"),
    ):
        if value := getattr(options, name):
            raise ValidationError(
                f"{name}={value!r} {effect}, but {architecture.embeds_only}; leave it out",
                details={"param": name, "value": value},
            )


def load_weights(
    architecture: Architecture,
    checkpoint: Checkpoint,
    device: Device,
    options: LocalBackend,
    tokenizer: Tokenizer | None,
    tied: tuple[str, str] | None = None,
) -> tuple[Architecture, DeviceWeights, dict[str, str]]:
    """The network, its weights, and their formats; ``tied`` are tensors that must be equal."""
    tensors, layout = plan_layout(architecture, checkpoint, device, options)
    same = (checkpoint[tied[0]], checkpoint[tied[1]]) if tied else None
    notes = [*architecture.notes, *conversions(tensors, layout)]
    calibration: Calibration | None = None
    if quantizes(options):
        notes = [*quantisation_notes(options, roles_of(architecture), layout), *notes]
    if quantizes(options) and tokenizer is not None:
        calibration = loaded("talu.engine.calibration", "Calibration")(
            architecture.graph, tokenizer, architecture.context_length
        )
    packed = device.pack(tensors, layout, same=same, calibration=calibration)
    return architecture._replace(notes=tuple(notes)), packed, layout


def plan_layout(
    architecture: Architecture, checkpoint: Checkpoint, device: Device, options: LocalBackend
) -> tuple[Checkpoint, dict[str, str]]:
    """The tensors of a network by its own names, and the format in which each is stored.

    Raises:
        ModelError: a tensor is missing, has another shape, or cannot be stored.
    """
    tensors = checkpoint.renamed(architecture.names_in(checkpoint.names))
    if architecture.segments is not None:
        table = loaded("talu.engine.segments", "with_segment_table")
        tensors = table(tensors, architecture.segments)
    tensors.check(architecture.graph.weights)
    return tensors, choose_layout(roles_of(architecture), tensors, options, device.formats)


def roles_of(architecture: Architecture) -> list[Role]:
    """What the network does with each of its weights."""
    found = parts(architecture.graph)
    return [
        Role(name=name, shape=shape, part=found[name], generates=architecture.generates)
        for name, shape in architecture.graph.weights.items()
    ]


def model_notes(architecture: Architecture, cache: CachePlan, budget: int) -> list[str]:
    """Notes on deviations from the model's files."""
    notes = []
    if cache.reduced_from is not None:
        why = "as kv_cache_bytes says" if budget else "a quarter of the memory that was free"
        notes.append(
            f"the context is {cache.context_length} tokens instead of {cache.reduced_from}: the "
            f"cache has {cache.bytes >> 20} MiB, {why}"
        )
    return [*notes, *architecture.notes]
