"""Plans a GGUF file for a model: its metadata, and the type of each tensor."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from talu.conversion.gguf_description import Description, describe
from talu.conversion.gguf_file import FileTensor, GgufPlan, vector
from talu.conversion.original import Original
from talu.gguf.network import interleaved
from talu.gguf.tensor_names import stored_name
from talu.gguf.writer import typed
from talu.weights.tensors import Tensor, as_float32

__all__ = ["GGUF_TARGETS", "GgufTarget"]

KEPT = ("position_embd.weight", "token_types.weight")  # llama.cpp needs them, like vectors, in F32


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
        described = describe(original)
        tensors = [
            FileTensor(name=name, type="F32", tensor=tensor)
            for name, tensor in described.extra.items()
        ]
        for weight in original.architecture.graph.weights:
            tensors.append(self._tensor(weight, original.tensors[weight], described))
        metadata = {**described.metadata, "general.file_type": typed(self.file_type)}
        return GgufPlan(metadata, tensors, described.notes)

    def _tensor(self, weight: str, tensor: Tensor, described: Description) -> FileTensor:
        stored = stored_name(described.architecture, weight)
        assert stored is not None  # every tensor of these networks has a name
        if stored.change == "interleaved":
            tensor = interleaved(tensor, described.head_size)
        elif stored.change == "one added" and not described.one_added:
            tensor = vector(tensor.name, as_float32(tensor) + np.float32(1))
        exact = len(tensor.shape) == 1 or stored.name in KEPT
        kind = "F32" if exact else self.matrices
        return FileTensor(name=stored.name, type=kind, tensor=tensor, weight=weight)


GGUF_TARGETS = (
    GgufTarget(name="f32", summary="GGUF, 32-bit floats", matrices="F32", file_type=0),
    GgufTarget(name="f16", summary="GGUF, 16-bit floats", matrices="F16", file_type=1),
    GgufTarget(name="bf16", summary="GGUF, 16-bit brain floats", matrices="BF16", file_type=32),
)
