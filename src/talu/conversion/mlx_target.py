"""Plans a folder for mlx-lm: its weights, settings and other files."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from talu.conversion.calibrated import calibrator, unknown
from talu.conversion.gguf_file import vector
from talu.conversion.mlx_config import mlx_config
from talu.conversion.mlx_folder import GROUP, MlxMatrix, MlxPlan, MlxTensor
from talu.conversion.original import Original
from talu.conversion.tokenizer_files import json_file, tokenizer_files
from talu.error_text import shown
from talu.exceptions import ConvertError
from talu.models.decoder import TABLE
from talu.models.gemma import ONE_ADDED
from talu.weights.numbers import as_float32
from talu.weights.tensors import Tensor

__all__ = ["MLX_TARGETS", "MlxTarget"]

CONFIG, TOKENIZER, CARD = "config.json", "tokenizer.json", "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class MlxTarget:
    """A folder; see ``Target``.

    Attributes:
        bits: of the codes of matrices; None if they are not quantised.
        type: of all other numbers; None for that of the embeddings if they are F16, else BF16.
    """

    name: str
    summary: str
    bits: int | None = None
    type: str | None = None
    is_folder: ClassVar[bool] = True

    def plan(self, original: Original) -> MlxPlan:
        """See ``Target``."""
        values, notes = mlx_config(original, self._quantization)
        files = {CONFIG: json_file(values)}
        copied = dict(original.source.other_files())
        if TOKENIZER not in copied:
            about = original.architecture
            more, about_tokens = tokenizer_files(
                original.source, about.model_type, about.context_length
            )
            files |= more
            notes += about_tokens
            if (licence := original.source.licence()) is not None:
                files[CARD] = f"---\nlicense: {json.dumps(licence)}\n---\n".encode()
        stored = original.tensors[TABLE].encoding.name
        kind = self.type or ("F16" if stored == "F16" else "BF16")
        tensors = [self._tensor(*each, kind) for each in network_tensors(original)]
        if self.bits is not None:
            notes += self._left(original, tensors)
        notes += self._rounded(original, tensors)
        encodings = {each.name: each.encoding for each in tensors if isinstance(each, MlxMatrix)}
        factor = calibrator(original, encodings, self.name).factor if encodings else unknown
        return MlxPlan(tensors, files, copied, notes, factor)

    @property
    def _quantization(self) -> dict[str, object] | None:
        """How config.json says that matrices are quantised."""
        if self.bits is None:
            return None
        return {"group_size": GROUP, "bits": self.bits, "mode": "affine"}

    def _tensor(self, name: str, tensor: Tensor, kind: str) -> MlxTensor | MlxMatrix:
        if self.bits is None or len(tensor.shape) == 1 or tensor.columns % GROUP:
            return MlxTensor(name=name, type=kind, tensor=tensor)
        return MlxMatrix(name=name, bits=self.bits, type=kind, tensor=tensor)

    def _rounded(
        self, original: Original, tensors: Sequence[MlxTensor | MlxMatrix]
    ) -> Iterator[str]:
        """A note on the numbers that are rounded to another type of floats."""
        names = zip(tensors, original.architecture.graph.weights, strict=True)
        plain = [
            (each, name)
            for each, name in names
            if isinstance(each, MlxTensor) and original.tensors[name].encoding.name != each.type
        ]
        types = sorted({original.tensors[name].encoding.name for _, name in plain})
        if types:
            what = "weights" if self.bits is None else "weights that are not quantised"
            kinds = f"the type{'s' if len(types) > 1 else ''} {', '.join(types)}"
            yield f"{what} of {kinds} are rounded to {plain[0][0].type}"

    def _left(self, original: Original, tensors: Sequence[MlxTensor | MlxMatrix]) -> list[str]:
        """A note on the matrices that are not quantised.

        Raises:
            ConvertError: none is.
        """
        matrices = [each for each in tensors if len(each.tensor.shape) == 2]
        left = [each for each in matrices if isinstance(each, MlxTensor)]
        if not left:
            return []
        why = f"their columns are not a multiple of {GROUP}"
        if len(left) == len(matrices):
            raise ConvertError(
                f"no matrix of {shown(original.name)} can be quantised to {self.name}: {why}; "
                "convert it to mlx-bf16",
                code="CONVERT_UNSUPPORTED_FORMAT",
            )
        return [
            f"{len(left)} matrices are stored in {left[0].type}, such as {left[0].name!r}: {why}"
        ]


def network_tensors(original: Original) -> Iterator[tuple[str, Tensor]]:
    """The tensors by the names that mlx-lm has for them, in the order of the network."""
    settings = original.source.settings()
    one_added = settings.has(ONE_ADDED) and settings.flag(ONE_ADDED)
    for name in original.architecture.graph.weights:
        tensor = original.tensors[name]
        if one_added and len(tensor.shape) == 1:
            tensor = vector(tensor.name, as_float32(tensor) - np.float32(1))
        yield name, tensor


MLX_TARGETS = (
    MlxTarget(name="mlx-bf16", summary="MLX folder, 16-bit brain floats", type="BF16"),
    MlxTarget(name="mlx-f16", summary="MLX folder, 16-bit floats", type="F16"),
    *(
        MlxTarget(name=f"mlx-{bits}bit", summary=f"MLX folder, {bits} bits", bits=bits)
        for bits in (8, 6, 5, 4, 3, 2)
    ),
)
