"""Declares what every kind of model file offers to the parts that open a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from talu.sources.embedding import EmbeddingSettings
from talu.sources.settings import Settings
from talu.weights.checkpoint import Checkpoint
from talu.weights.files import FileVersion

if TYPE_CHECKING:  # finding a model does not import the package of the tokenizers
    from talu.tokenizer.loading import Loaded

__all__ = ["ModelSource"]


class ModelSource(Protocol):
    """The files of a model, whatever their kind: what they say, and where the numbers are.

    A source answers from its files when it is asked, and holds none of them open. Each answer is
    checked: a damaged or hostile file is a typed error that names it.
    """

    @property
    def location(self) -> str:
        """The folder or file, for people."""

    @property
    def files(self) -> tuple[FileVersion, ...]:
        """The files that may be read, as they were when the source was opened.

        Two sources with the same location and files are the same model; that is how an open engine
        is shared.
        """

    def licence(self) -> str | None:
        """The name of the model's licence if the files say it."""

    def settings(self) -> Settings:
        """The settings of the network, by the names that config.json has for them.

        Raises:
            ModelError: they are missing or damaged.
        """

    def generation(self) -> Settings | None:
        """Defaults for generation and the end tokens, by the names of generation_config.json.

        None if the source has none: then they are looked for in ``settings``.

        Raises:
            ModelError: they are damaged.
        """

    def other_files(self) -> Mapping[str, Path]:
        """The files beside the settings and weights of the network, by their names in a folder.

        Empty if the source is not a folder.

        Raises:
            ModelError: a file is a link to another place, or far larger than any known one.
        """

    def embedding(self, width: int, context: int, *, scores: bool = False) -> EmbeddingSettings:
        """How hidden states become embeddings.

        Args:
            width: width of the hidden states.
            context: maximum number of tokens of the network.
            scores: the network is a cross-encoder: its files say how pairs of texts become tokens.

        Raises:
            ModelError: the settings are damaged or out of range.
        """

    def tokenizer(self, *, lower_case: bool = False) -> "Loaded":
        """The tokenizer.

        Args:
            lower_case: lower-case every text before all else, except for special tokens in it.

        Raises:
            TokenizerError: it is missing or damaged.
        """

    def chat_templates(self) -> Mapping[str, str]:
        """Jinja sources by name, usually one, ``"default"``; empty if there are none.

        Raises:
            TokenizerError: the settings that hold them are damaged.
        """

    def tensors(self, *, use_mmap: bool = True) -> Checkpoint:
        """The logical tensors, under the names that the families of ``talu.models`` know.

        Opening them reads headers only.

        Args:
            use_mmap: map the files; otherwise what is read of a tensor gets its own memory.

        Raises:
            ModelError: there are no weights, or a file is damaged.
        """
