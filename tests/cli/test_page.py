"""The page on the command line shows the help and the output of the commands word for word.

The ``console`` blocks of the page run in order, in an empty folder that is also the user's
home; ``...`` stands for what differs from run to run. The blocks of help are compared with click's.
"""

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from talu.cli.chat_commands import COMMANDS as CHAT_COMMANDS
from talu.cli.main import COMMANDS, talu

Talu = Callable[..., Any]
PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"
HELP = "--help"


def blocks() -> list[str]:
    return re.findall(r"^```console\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def commands() -> Iterator[tuple[str, ...]]:
    for name in COMMANDS:
        yield (name,)
        command = talu.get_command(click.Context(talu), name)
        yield from ((name, inner) for inner in getattr(command, "commands", {}))


def steps(block: str) -> Iterator[tuple[str, str]]:
    """Each command line of a block and what it prints."""
    for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, printed = step.partition("\n")
        yield command, printed


@pytest.mark.parametrize("names", list(commands()), ids=" ".join)
def test_the_page_has_the_help_of_every_command(
    talu: Talu, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "82")  # click leaves a margin of two
    shown = talu(*names, HELP).out
    assert f"```console\n$ talu {' '.join(names)} {HELP}\n{shown}```\n" in PAGE.read_text()


@pytest.mark.parametrize("usage", [command.usage for command in CHAT_COMMANDS.values()])
def test_the_page_has_every_command_of_a_chat(usage: str) -> None:
    assert f"`{usage}`" in PAGE.read_text()


def test_the_commands_on_the_page_print_the_output_on_the_page(home: Path) -> None:
    program = home / "bin" / "talu"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m talu "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    environment.pop("TALU_MODEL", None)
    for block in blocks():
        for command, printed in steps(block):
            if command.endswith(HELP):
                continue
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=home,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
            assert done.stderr == ""
            same = doctest.OutputChecker().check_output(printed, done.stdout, doctest.ELLIPSIS)
            assert same, f"the page says\n{printed}\nand {command} prints\n{done.stdout}"
