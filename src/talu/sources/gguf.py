"""Reads a model from a GGUF file, or from all files that it is split into.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from talu.first_use import loaded
from talu.gguf.header import Metadata
from talu.gguf.network import network_tensors, rope_factors
from talu.gguf.reader import Headers, model_files, open_gguf, read_headers
from talu.gguf.settings import architecture_of, pooling_mode, sampling_of, settings_of
from talu.gguf.tensor_names import ROPE_FACTORS
from talu.sources.embedding import EmbeddingSettings, TextSettings
from talu.sources.settings import Settings
from talu.tokenizer.gguf import build_from_metadata, chat_templates
from talu.tokenizer.gguf_vocabulary import end_token_ids
from talu.weights.checkpoint import Checkpoint
from talu.weights.files import versions_of

if TYPE_CHECKING:
    from talu.sources.gguf_on_hub import GgufOnHub
    from talu.tokenizer.loading import Loaded

__all__ = ["GgufSource", "matches", "on_hub", "open_source"]

MAGIC = b"GGUF"


class GgufSource:
    """A GGUF file; see ``ModelSource``."""

    def __init__(self, path: Path) -> None:
        """Find the files of the model, and read what says how many they are.

        Raises:
            ModelError: the file is damaged, or parts are missing.
        """
        self.location = str(path)
        self.files = versions_of(model_files(path))
        self._path = path

    def licence(self) -> str | None:
        """The licence in the metadata."""
        value = self._metadata.get("general.license")
        return value if isinstance(value, str) else None

    def settings(self) -> Settings:
        """What the metadata says about the network, by the names of config.json."""
        return Settings(self._path, self._network)

    def generation(self) -> Settings | None:
        """The tokens that begin a text and end an answer, and defaults for sampling."""
        values = {
            **sampling_of(self._metadata),
            "bos_token_id": self._metadata.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": end_token_ids(self._metadata, self.location) or None,
        }
        return Settings(self._path, values)

    def other_files(self) -> Mapping[str, Path]:
        """Everything is in one file."""
        return {}

    def embedding(self, width: int, context: int, *, scores: bool = False) -> EmbeddingSettings:
        """How the metadata says that hidden states are pooled."""
        mode = pooling_mode(self._metadata, self.location)
        return EmbeddingSettings(
            pooling=None if mode is None else (mode,),
            dimension=width,
            texts=TextSettings(max_tokens=context),
        )

    def tokenizer(self, *, lower_case: bool = False) -> "Loaded":
        """The tokenizer that the metadata describes."""
        return build_from_metadata(self._metadata, self.location, lower_case=lower_case)

    def chat_templates(self) -> Mapping[str, str]:
        """The templates in the metadata."""
        return chat_templates(self._metadata, self.location)

    def tensors(self, *, use_mmap: bool = True) -> Checkpoint:
        """The tensors under the names, and in the order of rows, of the networks."""
        tensors = open_gguf(self._path, use_mmap=use_mmap, known=self._read[0]).tensors
        try:
            architecture = architecture_of(self._metadata, self.location)
            head_size = self._network.get("head_dim")
            return network_tensors(
                tensors, architecture, head_size if isinstance(head_size, int) else 0
            )
        except BaseException:
            tensors.close()
            raise

    @property
    def _metadata(self) -> Metadata:
        return self._read[0].first.metadata

    @property
    def _network(self) -> Mapping[str, object]:
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[Headers, Mapping[str, object]]:
        """The headers of the files, and the settings of the network."""
        headers = read_headers(self._path)
        shapes = {
            name: tensor.shape
            for header in headers.parts.values()
            for name, tensor in header.tensors.items()
        }
        factors = None
        if ROPE_FACTORS in shapes:
            with open_gguf(self._path, use_mmap=False, known=headers).tensors as tensors:
                factors = rope_factors(tensors)
        metadata = headers.first.metadata
        network = settings_of(metadata, shapes, self.location, rope_factors=factors)
        return headers, network


def matches(path: Path) -> bool:
    """Whether the path is a file that begins as GGUF files do, or is named like one."""
    try:
        if not path.is_file():  # opening a pipe would block for ever
            return False
        with path.open("rb") as file:
            return path.suffix == ".gguf" or file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def on_hub(tag: str | None) -> "GgufOnHub":
    """The files of a model in a hub repository."""
    files: GgufOnHub = loaded("talu.sources.gguf_on_hub", "GgufOnHub")(tag)
    return files


def open_source(path: Path) -> GgufSource:
    """The source of a file.

    Raises:
        ModelError: the file is damaged.
    """
    return GgufSource(path)
