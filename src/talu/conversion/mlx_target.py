"""Plans a folder for mlx-lm: its weights, settings and other files."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from talu.conversion.gguf_file import vector
from talu.conversion.mlx_config import mlx_config
from talu.conversion.mlx_folder import MlxPlan, MlxTensor
from talu.conversion.original import Original
from talu.conversion.tokenizer_files import json_file, tokenizer_files
from talu.models.decoder import TABLE
from talu.models.gemma import ONE_ADDED
from talu.weights.tensors import Tensor, as_float32

__all__ = ["MLX_TARGETS", "MlxTarget"]

CONFIG, TOKENIZER = "config.json", "tokenizer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class MlxTarget:
    """A folder; see ``Target``.

    Attributes:
        type: of all tensors.
    """

    name: str
    summary: str
    type: str
    is_folder: ClassVar[bool] = True

    def plan(self, original: Original) -> MlxPlan:
        """See ``Target``."""
        values, notes = mlx_config(original, None)
        files = {CONFIG: json_file(values)}
        copied = dict(original.source.other_files())
        if TOKENIZER not in copied:
            about = original.architecture
            more, about_tokens = tokenizer_files(
                original.source, about.model_type, about.context_length
            )
            files |= more
            notes += about_tokens
        tensors = [
            MlxTensor(name=name, type=self.type, tensor=tensor)
            for name, tensor in network_tensors(original)
        ]
        notes += rounding_notes(original, self.type)
        return MlxPlan(tensors, files, copied, notes)


def network_tensors(original: Original) -> Iterator[tuple[str, Tensor]]:
    """The tensors by the names that mlx-lm has for them, in the order of the network."""
    settings = original.source.settings()
    one_added = settings.has(ONE_ADDED) and settings.flag(ONE_ADDED)
    for name in original.architecture.graph.weights:
        tensor = original.tensors[name]
        if one_added and len(tensor.shape) == 1:
            tensor = vector(tensor.name, as_float32(tensor) - np.float32(1))
        yield name, tensor


def rounding_notes(original: Original, kind: str) -> list[str]:
    """A note if the matrices lose digits."""
    stored = original.tensors[TABLE].encoding.name
    if stored in (kind, "BF16" if kind == "F32" else kind):
        return []
    return [f"weights of the type {stored} are rounded to {kind}"]


MLX_TARGETS = (
    MlxTarget(name="mlx-bf16", summary="MLX folder, 16-bit brain floats", type="BF16"),
    MlxTarget(name="mlx-f16", summary="MLX folder, 16-bit floats", type="F16"),
)
