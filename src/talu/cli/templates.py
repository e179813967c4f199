"""Reads the templates of questions: TOML files with placeholders, such as ``$input``.

A template is a file ``~/.talu/templates/NAME.toml``, or any other by its path.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from string import Template

import click
from click.shell_completion import CompletionItem

from talu.cli.files import read_file
from talu.cli.terminal import visible
from talu.error_text import nearest, shown

__all__ = ["QuestionTemplate", "complete_template", "read_template"]

FOLDER = "~/.talu/templates"
SUFFIX = ".toml"
NAME = re.compile(r"\w[\w-]{0,59}")
MAX_BYTES = 1 << 20
INPUT = "input"


@dataclass(frozen=True)
class QuestionTemplate:
    """A question with placeholders, and what goes with it.

    Attributes:
        prompt: the question; the user's question itself if there is none. ``$input`` stands for
            what the user asks, ``$name`` for a parameter, and ``$$`` for a dollar sign.
        system: the system message, with the same placeholders.
        model: the model that the template is written for.
        defaults: values of parameters that are not given.
    """

    prompt: str | None = None
    system: str | None = None
    model: str | None = None
    defaults: Mapping[str, str] = field(default_factory=dict)

    @property
    def takes_input(self) -> bool:
        """Whether it has a place for what the user asks."""
        return self.prompt is None or INPUT in self._names()

    def filled(self, question: str, given: Mapping[str, str]) -> tuple[str, str | None]:
        """The question and the system message with these values.

        Raises:
            click.UsageError: a parameter is missing, or the template has no such parameter.
        """
        names = self._names()
        for name in given:
            if name not in names or name == INPUT:
                known = ", ".join(sorted(names - {INPUT})) or "none"
                raise click.UsageError(
                    f"The template has no parameter {visible(shown(name))}; it has {known}."
                )
        values = {**self.defaults, **given, INPUT: question}
        if missing := sorted(names - values.keys()):
            raise click.UsageError(
                f"The template needs --param {missing[0]} VALUE"
                + "".join(f" and --param {name} VALUE" for name in missing[1:])
                + "."
            )
        texts = [text and Template(text).substitute(values) for text in (self.prompt, self.system)]
        return question if texts[0] is None else texts[0], texts[1]

    def _names(self) -> set[str]:
        """The placeholders of both texts."""
        texts = filter(None, (self.prompt, self.system))
        return {name for text in texts for name in Template(text).get_identifiers()}


def read_template(given: str) -> QuestionTemplate:
    """The template of this name, or in this file.

    Raises:
        click.UsageError: there is no such template, or it is not valid.
    """
    path = _path(given)
    where = f"The template {visible(given)}"
    try:
        values = tomllib.loads(read_file(str(path), MAX_BYTES))
    except tomllib.TOMLDecodeError as error:
        raise click.UsageError(f"{where} is not TOML: {error}.") from error
    names = [each.name for each in fields(QuestionTemplate)]
    for name, value in values.items():
        if name not in names:
            hint = nearest(name, names)
            raise click.UsageError(f"{where} has the key {shown(name)}, which is unknown{hint}.")
        if not _is_valid(name, value):
            kind = "a table of texts" if name == "defaults" else "a text that is not empty"
            raise click.UsageError(f"{where} needs {kind} as {name}, got {shown(value)}.")
    template = QuestionTemplate(**values)
    for text in filter(None, (template.prompt, template.system)):
        if not Template(text).is_valid():
            wrong = "has a $ that begins no placeholder; $$ stands for a dollar sign"
            raise click.UsageError(f"{where} {wrong}.")
    if template.prompt is None and template.system is None:
        raise click.UsageError(f"{where} has neither a prompt nor a system message.")
    return template


def complete_template(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The templates whose names begin like this, or else files."""
    matching = [CompletionItem(name) for name in _names() if name.startswith(incomplete)]
    return matching or [CompletionItem(incomplete, type="file")]


def _path(given: str) -> Path:
    if given.endswith(SUFFIX) or "/" in given:
        return Path(given)
    path = _folder() / f"{given}{SUFFIX}"
    if NAME.fullmatch(given) and path.is_file():
        return path
    names = _names()
    known = f"; the templates are {', '.join(names)}" if names else f"; it would be {path}"
    hint = nearest(given, names) or known
    raise click.UsageError(f"There is no template {visible(shown(given))}{visible(hint)}.")


def _folder() -> Path:
    return Path(os.path.expanduser(FOLDER))


def _names() -> list[str]:
    return sorted(path.stem for path in _folder().glob(f"*{SUFFIX}"))


def _is_valid(name: str, value: object) -> bool:
    if name != "defaults":
        return isinstance(value, str) and bool(value.strip())
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
