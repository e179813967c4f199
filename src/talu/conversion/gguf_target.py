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
from talu.weights.layout import SUMMED_COLUMNS
from talu.weights.mixtures import BLOCK, MIXTURES, Part, type_in
from talu.weights.numbers import as_float32
from talu.weights.tensors import ARRAY_TYPES, Tensor

__all__ = ["GGUF_TARGETS", "GgufTarget"]

KEPT = ("position_embd.weight", "token_types.weight")  # llama.cpp needs them, like vectors, in F32
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
        notes = [*described.notes, *notes_on_types(self.name, original, tensors)]
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
        if is_encoded(stored.name, tensor):
            floats = self.name in FLOATS
            kind = self.name.upper() if floats else type_in(self.name, part, tensor.columns)
        if kind is None:  # no block divides its rows
            kind = "BF16" if tensor.encoding.name == "BF16" else "F16"
        return FileTensor(name=stored.name, type=kind, tensor=tensor, weight=weight)


def is_encoded(name: str, tensor: Tensor) -> bool:
    """Whether a tensor of a file has the type that is asked for, not always F32."""
    return len(tensor.shape) > 1 and name not in KEPT


def notes_on_types(
    mixture: str, original: Original, tensors: Sequence[FileTensor]
) -> Iterator[str]:
    """Notes on matrices that are not quantised as the mixture has it.

    Raises:
        ConvertError: none is quantised.
    """
    found = parts(original.architecture.graph)
    matrices = [
        each for each in tensors if each.weight is not None and is_encoded(each.name, each.tensor)
    ]
    left = [each for each in matrices if each.type in ARRAY_TYPES]
    if len(left) == len(matrices):
        raise ConvertError(
            f"no matrix of {shown(original.name)} can be quantised to {mixture}: their columns "
            f"are not a multiple of {BLOCK}; convert it to bf16",
            code="CONVERT_UNSUPPORTED_FORMAT",
        )
    other, unread = [], []
    for each in matrices:
        part = found[each.weight or ""]
        if each not in left and each.type != type_in(mixture, part, LARGE_BLOCK):
            other.append(each)
        if each not in left and part.multiplied and each.tensor.columns % SUMMED_COLUMNS:
            unread.append(each)
    yield from _counted(left, "stored in {}", BLOCK)
    yield from _counted(other, "stored in {}", LARGE_BLOCK)
    if mixture not in WITHOUT_TEXTS:
        yield from _counted(unread, "quantised without sample texts", SUMMED_COLUMNS)


def _counted(some: Sequence[FileTensor], how: str, columns: int) -> Iterator[str]:
    """A note if there are such matrices."""
    if some:
        count = "1 matrix is" if len(some) == 1 else f"{len(some)} matrices are"
        kinds = ", ".join(sorted({each.type for each in some}))
        yield (
            f"{count} {how.format(kinds)}, such as {some[0].name!r}, because columns are not a "
            f"multiple of {columns}"
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
