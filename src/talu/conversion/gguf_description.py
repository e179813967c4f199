"""Describes a model in the metadata of a GGUF file."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from talu.conversion.gguf_check import check_network
from talu.conversion.gguf_file import vector
from talu.conversion.gguf_metadata import describe_network, unsupported
from talu.conversion.original import Original
from talu.gguf.reader import open_gguf
from talu.gguf.settings import architecture_of
from talu.gguf.tensor_names import ROPE_FACTORS, stored_name
from talu.gguf.writer import Typed, typed, with_types
from talu.sources.gguf import GgufSource
from talu.tokenizer.gguf_export import GgufTokenizerError, tokenizer_metadata
from talu.weights.numbers import as_float32
from talu.weights.tensors import Tensor

__all__ = ["Description", "describe"]

UNREAD = {  # tensors that make llama.cpp refuse a file
    "gemma": "output.weight",
    "gemma2": "output.weight",
    "qwen3": "attn_output.bias",
}
NOT_CARRIED = ("general.file_type", "general.quantization_version", "split.")  # beginnings of keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a file says about a model besides its weights.

    Attributes:
        architecture: its name in GGUF.
        metadata: without the type of the weights.
        extra: tensors that the network does not read, by their names in the file.
        head_size: columns of a head.
        one_added: the norms of the original have 1 added already.
        notes: what differs from the original.
    """

    architecture: str
    metadata: dict[str, Typed]
    extra: dict[str, Tensor]
    head_size: int
    one_added: bool
    notes: tuple[str, ...] = ()


def describe(original: Original) -> Description:
    """Describe a model for a GGUF file.

    Raises:
        ConvertError: GGUF cannot describe it.
    """
    if isinstance(original.source, GgufSource):
        return _carried_over(original.source)
    network = describe_network(original)
    factors = network.rope_factors
    shapes = {}
    for weight, shape in original.architecture.graph.weights.items():
        stored = stored_name(network.architecture, weight)
        if stored is None:
            raise unsupported(f"GGUF has no name for the tensor {weight!r}")
        part = ".".join(stored.name.split(".")[-2:])
        if part == UNREAD.get(network.architecture):
            raise unsupported(
                f"llama.cpp reads no tensor {stored.name!r} in files of the architecture "
                f"{network.architecture!r}"
            )
        shapes[stored.name] = shape
    differences = check_network(original, network, shapes)
    words, notes = _tokenizer(original)
    return Description(
        architecture=network.architecture,
        metadata={
            **network.metadata,
            **{key: typed(value) for key, value in words.items()},
        },
        extra={} if factors is None else {ROPE_FACTORS: vector(ROPE_FACTORS, factors)},
        head_size=original.architecture.graph.layers[0][1],
        one_added=False,
        notes=(*network.notes, *differences, *notes),
    )


def _tokenizer(original: Original) -> tuple[dict[str, Any], list[str]]:
    """The metadata of the tokenizer, and what it cannot hold."""
    source, architecture = original.source, original.architecture
    text = files("talu.engine").joinpath("calibration.txt").read_text("utf-8")
    try:
        return tokenizer_metadata(
            source.tokenizer(lower_case=architecture.lower_case),
            architecture.vocabulary_size,
            ends=architecture.end_token_ids if architecture.generates else None,
            templates=source.chat_templates(),
            texts=text.splitlines(),
        )
    except GgufTokenizerError as error:
        raise unsupported(str(error)) from error


def _carried_over(source: GgufSource) -> Description:
    """The description in a GGUF file, as it is."""
    model = open_gguf(Path(source.location), use_mmap=False)
    with model.tensors as tensors:
        extra = {
            name: vector(name, as_float32(tensors[name]))
            for name in tensors.names
            if name == ROPE_FACTORS
        }
    head_size = source.settings().raw("head_dim", 0)
    return Description(
        architecture=architecture_of(model.metadata, source.location),
        metadata={
            key: value
            for key, value in with_types(model.metadata, model.types).items()
            if not key.startswith(NOT_CARRIED)
        },
        extra=extra,
        head_size=head_size if isinstance(head_size, int) else 0,
        one_added=True,
    )
