"""Knows which files of a hub repository make a model folder."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from talu.exceptions import ModelError
from talu.weights.checkpoint import listed
from talu.weights.safetensors_folder import INDEX, SINGLE, read_index, refusal, weight_files

__all__ = ["FolderOnHub"]

REQUIRED = "config.json"
OPTIONAL = (  # the tokenizer reports its missing files
    "1_Pooling/config.json",
    "added_tokens.json",
    "chat_template.jinja",
    "config_sentence_transformers.json",
    "generation_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
MODULES = ("[0-9]_*/config.json",)  # folders of modules.json
STEPS = (  # weights after the pooling, of a few megabytes
    "[0-9]_Dense/model.safetensors",
    "[0-9]_LayerNorm/model.safetensors",
)


class FolderOnHub:
    """See ``HubFiles``."""

    small: Sequence[str] = (REQUIRED, INDEX, *OPTIONAL, *MODULES)
    optional: Sequence[str] = OPTIONAL

    def holds(self, names: Collection[str]) -> bool:
        """Whether there are safetensors weights."""
        return SINGLE in names or INDEX in names

    def refusal(self, place: str, names: Collection[str]) -> ModelError | None:
        """A repository needs config.json and safetensors weights beside it."""
        if REQUIRED not in names:
            return _no_config(place, names)
        return None if self.holds(names) else refusal(place, names)

    def unsupported(self, place: str, described: Mapping[str, object]) -> ModelError | None:
        """The small files say what the hub could."""
        return None

    def weights(
        self, place: str, names: Collection[str], folder: Path
    ) -> tuple[set[str], Sequence[str]]:
        """One safetensors file, or the shards that the index names."""
        weights = {SINGLE} if SINGLE in names else set(read_index(folder / INDEX).values())
        if missing := sorted(weights - set(names)):
            raise ModelError(f"{place} lacks {listed(missing)}, which its {INDEX} names")
        return weights, STEPS

    def find(self, folder: Path, names: Collection[str] | None = None) -> Path:
        """The folder itself."""
        if not (folder / REQUIRED).is_file():
            raise ModelError(f"{folder} has no {REQUIRED}")
        weight_files(folder)
        return folder

    def note(self, place: str, names: Collection[str]) -> str | None:
        """A repository has one model of this kind."""
        return None


def _no_config(place: str, names: Collection[str]) -> ModelError:
    """The error for a repository without config.json at its top.

    In the old layout of sentence-transformers, it and the weights are in a subfolder.
    """
    folder = "0_Transformer"
    if f"{folder}/{REQUIRED}" in names:
        return ModelError(
            f"{place} has its model in the subfolder {folder!r}, which is supported for local "
            "folders only: download the whole repository and open its folder"
        )
    return ModelError(f"{place} has no {REQUIRED}: it holds no model that can be opened")
