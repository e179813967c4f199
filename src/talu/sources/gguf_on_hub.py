"""Chooses the GGUF model of a hub repository, by a quantisation or a file name.

Repositories usually hold one model in several quantisations, each in a file or split into several.
docs/decisions/0025-models-on-the-hub.md
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from talu.error_text import nearest, shown
from talu.exceptions import ModelError, ModelNotFoundError
from talu.gguf.reader import PART
from talu.gguf.settings import architecture_of
from talu.weights.checkpoint import listed

__all__ = ["DEFAULT_TAG", "GgufOnHub", "models_in", "quantisation", "tag_of"]

DEFAULT_TAG = "Q4_K_M"
SUFFIX = ".gguf"
NO_MODEL = re.compile(r"mmproj|imatrix", re.IGNORECASE)  # parts of names of files beside a model
QUANTISATION = re.compile(
    r"(?<![A-Za-z0-9])(?:UD-)?(?:I?Q[1-8]_[A-Za-z0-9_]+|TQ[12]_0|MXFP4(?:_[A-Za-z0-9]+)?|BF16|F16|F32)"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
SHOWN = 20  # quantisations in an error message


class GgufOnHub:
    """See ``HubFiles``.

    Args:
        tag: a quantisation such as ``Q4_K_M`` or the name of a file; None if the reference has
            none.
    """

    small: Sequence[str] = ()
    optional: Sequence[str] = ()

    def __init__(self, tag: str | None = None) -> None:
        self._tag = tag

    def holds(self, names: Collection[str]) -> bool:
        """Whether there are GGUF models."""
        return bool(models_in(names))

    def refusal(self, place: str, names: Collection[str]) -> ModelError | None:
        """A repository needs the files of one model that the tag, or the lack of one, means."""
        try:
            self._choose(place, names)
        except ModelError as error:
            return error
        return None

    def unsupported(self, place: str, described: Mapping[str, object]) -> ModelError | None:
        """The hub knows the architecture."""
        if isinstance(name := described.get("architecture"), str):
            try:
                architecture_of({"general.architecture": name}, place)
            except ModelError as error:
                return error
        return None

    def weights(
        self, place: str, names: Collection[str], folder: Path
    ) -> tuple[set[str], Sequence[str]]:
        """The file, or the parts, of the model."""
        return set(self._choose(place, names)), ()

    def find(self, folder: Path, names: Collection[str] | None = None) -> Path:
        """The file, or the first part."""
        present = [path.relative_to(folder).as_posix() for path in folder.rglob("*" + SUFFIX)]
        files = self._choose(str(folder), present if names is None else names)
        if missing := sorted(set(files) - set(present)):
            raise ModelError(f"{folder} lacks {listed(missing)}")
        return folder / files[0]

    def note(self, place: str, names: Collection[str]) -> str | None:
        """Which of several models is used if the reference does not say it."""
        models = models_in(names)
        if self._tag is not None or len(models) < 2:
            return None
        (first, *_) = self._choose(place, names)
        return (
            f"{place} has {len(models)} GGUF models; {first} is used, because the reference names "
            "none (others are named like :Q8_0 or :file-name.gguf at its end)"
        )

    def model(self, place: str, names: Collection[str]) -> str:
        """The name of the model's file, or of its first part.

        Raises:
            ModelError: several models match.
            ModelNotFoundError: none matches.
        """
        models = models_in(names)
        if self._tag is None:
            matching = [*models] if len(models) == 1 else _matching(models, DEFAULT_TAG)
        else:
            matching = _named(names, self._tag) or _matching(models, self._tag)
        if len(matching) != 1:
            raise self._unclear(place, models, matching)
        return matching[0]

    def _choose(self, place: str, names: Collection[str]) -> list[str]:
        """The files of the model, the first part first.

        Raises:
            ModelError: see ``model``, or parts are missing.
        """
        first = self.model(place, names)
        files = models_in(names).get(first, [first])
        _check_parts(place, files)
        return files

    def _unclear(
        self, place: str, models: Mapping[str, list[str]], matching: Sequence[str]
    ) -> ModelError:
        if not models:
            what = "GGUF file" if self._tag is None else f"GGUF file to take {shown(self._tag)} of"
            return ModelNotFoundError(f"{place} has no {what}")
        if matching:
            files = listed(list(matching))
            return ModelError(
                f"{place} has {len(matching)} models that match {shown(self._tag or DEFAULT_TAG)}: "
                f"{files}; name one by its file, such as :{matching[0]}"
            )
        tags = _tags(models)
        there = ", ".join(f":{tag}" for tag in tags[:SHOWN])
        there += f" and {len(tags) - SHOWN} more" if len(tags) > SHOWN else ""
        if self._tag is None:
            return ModelError(
                f"{place} has {len(models)} GGUF models, none of them in {DEFAULT_TAG}, the "
                f"default; add one of these to the reference: {there}"
            )
        hint = nearest(self._tag, tags)
        return ModelNotFoundError(
            f"{place} has no model {shown(self._tag)}{hint}{' ' if hint else '; '}it has {there}"
        )


def models_in(names: Collection[str]) -> dict[str, list[str]]:
    """The files of each GGUF model, by its name or that of its first part.

    Projectors and importance matrices, which are GGUF files too, are left out.
    """
    models: dict[str, list[str]] = {}
    for name in sorted(names):
        if name.endswith(SUFFIX) and not NO_MODEL.search(name.rpartition("/")[2]):
            models.setdefault(_first_part(name), []).append(name)
    return models


def quantisation(name: str) -> str | None:
    """The quantisation in the name of a file, as it is written there; None if there is none."""
    found = QUANTISATION.findall(_stem(name))
    return found[-1] if found else None


def tag_of(name: str, names: Collection[str]) -> str:
    """The shortest tag that means the model of a name among those of a repository's files."""
    tag = quantisation(name)
    return tag if tag is not None and _matching(models_in(names), tag) == [name] else name


def _first_part(name: str) -> str:
    match = PART.fullmatch(name)
    return f"{match[1]}-00001-of-{match[3]}{SUFFIX}" if match else name


def _stem(name: str) -> str:
    match = PART.fullmatch(name)
    return match[1] if match else name.removesuffix(SUFFIX)


def _named(names: Collection[str], tag: str) -> list[str]:
    """The models, by their first parts, of files with this name, with or without a folder."""
    if not tag.endswith(SUFFIX):
        return []
    exact = [name for name in names if name == tag]
    files = exact or [name for name in names if name.rpartition("/")[2] == tag]
    return sorted({_first_part(name) for name in files})


def _matching(models: Collection[str], tag: str) -> list[str]:
    """The models in whose names the tag is a word, between ``-``, ``.``, ``_`` or ``/``."""
    word = re.compile(rf"(?<![^-._/]){re.escape(tag)}(?![^-./])", re.IGNORECASE)
    return [name for name in models if word.search(_stem(name))]


def _tags(models: Collection[str]) -> list[str]:
    """What names each of the models: its quantisation if no other one has it, else its file."""
    return [tag_of(name, models) for name in models]


def _check_parts(place: str, files: Sequence[str]) -> None:
    if (match := PART.fullmatch(files[0])) is None:
        return
    count = int(match[3])
    if len(files) != count:
        raise ModelError(f"{place} has {len(files)} of the {count} parts of {files[0]}")
