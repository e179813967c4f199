"""Options and arguments that are text are neither empty nor anything but UTF-8."""

import errno
import os
from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest

from talu.cli.main import COMMANDS
from talu.cli.main import talu as group

Talu = Callable[..., Any]


def text_options() -> Iterator[Any]:
    """Each option with a text of the user's, as the words of a command that gives it."""
    for name in COMMANDS:
        command: Any = group.get_command(click.Context(group), name)
        for inner in getattr(command, "commands", {"": command}).values():
            words = [name] if inner is command else [name, inner.name]
            for option in inner.params:
                if isinstance(option, click.Option) and option.type.name == "text":
                    flag = max(option.opts, key=len)
                    yield pytest.param([*words, flag], id=" ".join([*words, flag]))


@pytest.mark.parametrize("command", list(text_options()))
def test_an_option_that_is_empty_is_wrong_usage(talu: Talu, command: list[str]) -> None:
    for words in ([*command, ""], [*command[:-1], f"{command[-1]}="]):
        outcome = talu(*words)
        assert (outcome.status, outcome.out) == (2, "")
        assert outcome.err.startswith(f"talu: {command[-1]} is empty. Try")


def test_an_environment_variable_that_is_empty_counts_as_not_set(
    talu: Talu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALU_MODEL", "")
    assert "using talu/pocket" in talu("tokenize", "hi").err


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["ask", os.fsdecode(b"caf\xe9")], "The PROMPT"),
        (["tokenize", os.fsdecode(b"caf\xe9")], "The TEXT"),
        (["embed", "one", os.fsdecode(b"caf\xe9")], "The TEXT"),
        (["ask", "hi", "--system", os.fsdecode(b"caf\xe9")], "--system"),
        (["log", "show", os.fsdecode(b"caf\xe9")], "The ID"),
    ],
)
def test_a_text_that_is_not_utf_8_is_wrong_usage_and_its_byte_is_named(
    talu: Talu, command: list[str], name: str
) -> None:
    outcome = talu(*command)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert f"talu: {name} is not UTF-8: it has the byte 0xe9 at character 3;" in outcome.err


def test_a_full_disk_is_reported_in_plain_words(
    talu: Talu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("talu.cli.tokenize.write_json", fail)
    outcome = talu("tokenize", "hi", "--model", "talu/pocket")
    wrong = "no space is left on the disk; free some space"
    assert outcome.status == 1
    assert outcome.err == f"talu: cannot read the input or write the output: {wrong}\n"
