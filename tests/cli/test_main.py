"""The command as a whole: its subcommands, its help, and what it imports at the start."""

import pkgutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import click
import pytest

from talu import cli
from talu.cli.main import COMMANDS, talu

NO_COMMANDS = {
    "answer", "chat_commands", "files", "main", "markdown", "options", "plot", "question",
    "roofline", "screen", "sessions", "stdin", "tables", "templates", "terminal", "text", "tools",
    "transcript", "typed_input",
}  # fmt: skip
Process = Callable[..., subprocess.CompletedProcess[str]]
Talu = Callable[..., Any]


def test_every_file_of_the_folder_is_a_command_and_every_command_a_file() -> None:
    files = {module.name for module in pkgutil.iter_modules(cli.__path__)}
    assert files - NO_COMMANDS == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_for_all_its_options(name: str) -> None:
    command = talu.get_command(None, name)
    for each in [command, *getattr(command, "commands", {}).values()]:
        assert each.get_short_help_str()
        options = [option for option in each.params if isinstance(option, click.Option)]
        assert all(option.help for option in options)


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("names", [[], *([name] for name in COMMANDS), ["log", "list"]])
def test_h_and_help_show_the_help(talu: Talu, names: list[str], option: str) -> None:
    outcome = talu(*names, option)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.startswith(" ".join(["Usage: talu", *names]))


def test_the_version_is_that_of_the_package(talu: Talu) -> None:
    for option in ("-V", "--version"):
        assert talu(option).out == f"talu, version {version('talu')}\n"


def test_talu_without_arguments_shows_the_commands(talu: Talu) -> None:
    outcome = talu()
    assert outcome.status == 0
    assert all(name in outcome.out for name in COMMANDS)


def test_python_m_talu_is_the_command(process: Process) -> None:
    done = process("--version")
    assert (done.returncode, done.stdout) == (0, f"talu, version {version('talu')}\n")


@pytest.mark.parametrize("name", ["main", "ask", "chat", "log"])
def test_starting_talu_imports_no_heavy_package(name: str) -> None:
    heavy = {"numpy", "rich", "jinja2", "tokenizers", "huggingface_hub", "prompt_toolkit"}
    code = f"import sys, talu.cli.{name}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())
