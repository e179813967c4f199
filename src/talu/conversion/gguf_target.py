"""Plans a GGUF file for a model: the type of each tensor."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from talu.conversion.calibrated import calibrator
from talu.conversion.gguf_description import Description, describe
from talu.conversion.gguf_file import FileTensor, GgufPlan, vector
from talu.conversion.original import Original
from talu.engine.parts import parts
from talu.error_text import shown
from talu.exceptions import ConvertError
from talu.gguf.network import interleaved
from talu.gguf.tensor_names import stored_name
from talu.gguf.writer import typed
from talu.weights.mixtures import BLOCK, MIXTURES, Part, type_in
from talu.weights.tensors import ARRAY_TYPES, Tensor, as_float32

__all__ = ["GGUF_TARGETS", "GgufTarget"]

KEPT = ("position_embd.weight", "token_types.weight")  # llama.cpp needs them, like vectors, in F32
UNDIVIDED = "F16"  # the type of a matrix whose rows no block divides
LARGE_BLOCK = 256
QUANTIZATION_VERSION = 2
FLOATS = {
    "f32": ("32-bit floats", 0),
    "f16": ("16-bit floats", 1),
    "bf16": ("16-bit brain floats", 32),
}
WITHOUT_TEXTS = ("q8_0",)  # 8 bits are so close that sample texts make no difference


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTarget:
    """A GGUF file; see ``Target``.

    Attributes:
        file_type: the number that GGUF has for the types of the tensors.
    """

    name: str
    summary: str
    file_type: int
    is_folder: ClassVar[bool] = False

    def plan(self, original: Original) -> GgufPlan:
        """See ``Target``."""
        described = describe(original)
        tensors = [
            FileTensor(name=name, type="F32", tensor=tensor)
            for name, tensor in described.extra.items()
        ]
        found = parts(original.architecture.graph)
        for weight in original.architecture.graph.weights:
            tensor = original.tensors[weight]
            tensors.append(self._tensor(weight, tensor, found[weight], described))
        metadata = {**described.metadata, "general.file_type": typed(self.file_type)}
        if self.name in FLOATS:
            return GgufPlan(metadata, tensors, described.notes)
        metadata["general.quantization_version"] = typed(QUANTIZATION_VERSION)
        notes = [*described.notes, *self._notes(original, tensors)]
        if self.name in WITHOUT_TEXTS:
            return GgufPlan(metadata, tensors, notes)
        encodings = {
            each.weight: each.type
            for each in tensors
            if each.weight is not None and each.type not in ARRAY_TYPES
        }
        return GgufPlan(metadata, tensors, notes, calibrator(original, encodings, self.name).factor)

    def _tensor(
        self, weight: str, tensor: Tensor, part: Part, described: Description
    ) -> FileTensor:
        stored = stored_name(described.architecture, weight)
        assert stored is not None  # every tensor of these networks has a name
        if stored.change == "interleaved":
            tensor = interleaved(tensor, described.head_size)
        elif stored.change == "one added" and not described.one_added:
            tensor = vector(tensor.name, as_float32(tensor) + np.float32(1))
        kind: str | None = "F32"
        if len(tensor.shape) > 1 and stored.name not in KEPT:
            floats = self.name in FLOATS
            kind = self.name.upper() if floats else type_in(self.name, part, tensor.columns)
        return FileTensor(name=stored.name, type=kind or UNDIVIDED, tensor=tensor, weight=weight)

    def _notes(self, original: Original, tensors: Sequence[FileTensor]) -> Iterator[str]:
        """Notes on matrices that have other types than the mixture has for them.

        Raises:
            ConvertError: none is quantised.
        """
        matrices = [
            each for each in tensors if len(each.tensor.shape) > 1 and each.name not in KEPT
        ]
        left = [each for each in matrices if each.type in ARRAY_TYPES]
        if len(left) == len(matrices):
            raise ConvertError(
                f"no matrix of {shown(original.name)} can be quantised to {self.name}: their "
                f"columns are not a multiple of {BLOCK}; convert it to bf16",
                code="CONVERT_UNSUPPORTED_FORMAT",
            )
        found = parts(original.architecture.graph)
        other = [
            each
            for each in matrices
            if each not in left
            and each.type != type_in(self.name, found[each.weight or ""], LARGE_BLOCK)
        ]
        for some, block in ((left, BLOCK), (other, LARGE_BLOCK)):
            if some:
                kinds = ", ".join(sorted({each.type for each in some}))
                count = "1 matrix is" if len(some) == 1 else f"{len(some)} matrices are"
                yield (
                    f"{count} stored in {kinds}, such as {some[0].name!r}, because columns are not "
                    f"a multiple of {block}"
                )


GGUF_TARGETS = (
    *(
        GgufTarget(name=name, summary=f"GGUF, {what}", file_type=number)
        for name, (what, number) in FLOATS.items()
    ),
    *(
        GgufTarget(name=name, summary=f"GGUF, mostly {mixture.usual}", file_type=mixture.file_type)
        for name, mixture in MIXTURES.items()
    ),
)
