"""Plans a GGUF file for a model: its metadata, and the type of each tensor."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from talu.conversion.gguf_file import FileTensor, GgufPlan, vector
from talu.conversion.original import Original
from talu.exceptions import ConvertError
from talu.gguf.network import interleaved
from talu.gguf.reader import open_gguf
from talu.gguf.settings import architecture_of
from talu.gguf.tensor_names import ROPE_FACTORS, stored_name
from talu.gguf.writer import Typed, typed, with_types
from talu.sources.gguf import GgufSource
from talu.weights.tensors import Tensor, as_float32

__all__ = ["GGUF_TARGETS", "GgufTarget"]

NOT_CARRIED = ("general.file_type", "general.quantization_version", "split.")  # beginnings of keys


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTarget:
    """A GGUF file; see ``Target``.

    Attributes:
        matrices: the type of its matrices.
        file_type: the number that GGUF has for the whole.
    """

    name: str
    summary: str
    matrices: str
    file_type: int
    is_folder: ClassVar[bool] = False

    def plan(self, original: Original) -> GgufPlan:
        """See ``Target``."""
        described = carried_over(original)
        tensors = [
            FileTensor(name=name, type="F32", tensor=tensor)
            for name, tensor in described.extra.items()
        ]
        for weight in original.architecture.graph.weights:
            tensors.append(self._tensor(weight, original.tensors[weight], described))
        metadata = {**described.metadata, "general.file_type": typed(self.file_type)}
        return GgufPlan(metadata, tensors, described.notes)

    def _tensor(self, weight: str, tensor: Tensor, described: "Described") -> FileTensor:
        stored = stored_name(described.architecture, weight)
        assert stored is not None  # every tensor of these networks has a name
        if stored.change == "interleaved":
            tensor = interleaved(tensor, described.head_size)
        elif stored.change == "one added" and not described.one_added:
            tensor = vector(tensor.name, as_float32(tensor) + np.float32(1))
        kind = "F32" if len(tensor.shape) == 1 else self.matrices
        return FileTensor(name=stored.name, type=kind, tensor=tensor, weight=weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
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


def carried_over(original: Original) -> Described:
    """The description in a GGUF file, as it is."""
    source = original.source
    if not isinstance(source, GgufSource):
        raise ConvertError(
            f"{source.location} is not a GGUF file, and only those can be converted to GGUF",
            code="CONVERT_UNSUPPORTED_FORMAT",
        )
    model = open_gguf(Path(source.location), use_mmap=False)
    with model.tensors as tensors:
        extra = {
            name: vector(name, as_float32(tensors[name]))
            for name in tensors.names
            if name == ROPE_FACTORS
        }
    head_size = source.settings().raw("head_dim", 0)
    return Described(
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


GGUF_TARGETS = (
    GgufTarget(name="f32", summary="GGUF, 32-bit floats", matrices="F32", file_type=0),
    GgufTarget(name="f16", summary="GGUF, 16-bit floats", matrices="F16", file_type=1),
    GgufTarget(name="bf16", summary="GGUF, 16-bit brain floats", matrices="BF16", file_type=32),
)
