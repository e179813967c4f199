"""Reads a model folder as Hugging Face lays it out: JSON settings, tokenizer.json, safetensors."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path

from talu.exceptions import ModelError
from talu.sources.embedding import EmbeddingSettings
from talu.sources.folder_files import other_files
from talu.sources.folder_on_hub import FolderOnHub
from talu.sources.quantised.methods import logical_tensors, read_method
from talu.sources.sentence_transformers import (
    network_folder,
    read_embedding_settings,
    read_scoring_settings,
)
from talu.sources.settings import Settings
from talu.tokenizer.files import read_templates
from talu.tokenizer.loading import Loaded, load
from talu.weights.checkpoint import Checkpoint
from talu.weights.files import FileVersion, OpenFile, version_of
from talu.weights.safetensors_folder import open_folder

__all__ = ["FolderSource", "matches", "on_hub", "open_source"]

CARD, MAX_CARD = "README.md", 1 << 16  # bytes that are read of it
FRONT_MATTER = re.compile(r"---\r?\n(.*?)\n---", re.DOTALL)
LICENCE = re.compile(r"^license(?:_name)?: *['\"]?([^\s'\"]+)", re.MULTILINE)
READ = (".jinja", ".json", ".safetensors")  # suffixes of a model's files


class FolderSource:
    """A folder with config.json, tokenizer.json and safetensors; see ``ModelSource``."""

    def __init__(self, folder: Path) -> None:
        """Find the files of a folder, and read none."""
        self.location = str(folder)
        self.files = tuple(sorted(_versions(folder)))
        self._folder = folder

    def licence(self) -> str | None:
        """The licence in the model card, README.md."""
        with suppress(ModelError), closing(OpenFile(self._folder / CARD, use_mmap=False)) as file:
            text = file.read(0, min(file.size, MAX_CARD)).tobytes().decode(errors="replace")
            if (head := FRONT_MATTER.match(text)) and (found := LICENCE.search(head[1])):
                return found[1]
        return None

    def settings(self) -> Settings:
        """The content of config.json. A method of quantisation that talu lacks is refused."""
        settings = Settings.from_file(self._network / "config.json")
        read_method(settings)
        return settings

    def generation(self) -> Settings | None:
        """The content of generation_config.json."""
        return Settings.from_optional_file(self._network / "generation_config.json")

    def other_files(self) -> Mapping[str, Path]:
        """Files of the tokenizer, of templates, embeddings and the licence."""
        return other_files(self._network)

    def embedding(self, width: int, context: int, *, scores: bool = False) -> EmbeddingSettings:
        """What the files of sentence-transformers say."""
        if scores:
            return read_scoring_settings(self._folder, context)
        return read_embedding_settings(self._folder, width, context)

    def tokenizer(self, *, lower_case: bool = False) -> Loaded:
        """The tokenizer of tokenizer.json, with the settings of the other files."""
        return load(self._network, lower_case=lower_case)

    def chat_templates(self) -> Mapping[str, str]:
        """The templates in tokenizer_config.json, or in files of their own."""
        return read_templates(self._network)

    def tensors(self, *, use_mmap: bool = True) -> Checkpoint:
        """The tensors of the safetensors files; quantised ones as config.json describes them."""
        stored = open_folder(self._network, use_mmap=use_mmap)
        try:
            return logical_tensors(stored, self.settings())
        except BaseException:
            stored.close()
            raise

    @cached_property
    def _network(self) -> Path:
        """The folder of config.json, weights and tokenizer."""
        return network_folder(self._folder)


def matches(path: Path) -> bool:
    """Whether the path is a folder."""
    return path.is_dir()


def on_hub(tag: str | None) -> FolderOnHub | None:
    """The files of a model folder in a hub repository, which has one at most."""
    return FolderOnHub() if tag is None else None


def open_source(path: Path) -> FolderSource:
    """The source of a folder."""
    return FolderSource(path)


def _versions(folder: Path, *, inner: bool = False) -> Iterator[FileVersion]:
    """The model's possible files.

    They are in the folder and in the subfolders of sentence embeddings, such as ``1_Pooling``.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(READ):
                with suppress(OSError):  # a broken link: loading reports what is missing
                    yield version_of(Path(entry.path))
            elif not inner and entry.name[:1].isdigit() and entry.is_dir():
                yield from _versions(Path(entry.path), inner=True)
