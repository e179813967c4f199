"""The command as a whole: its verbs, its help, and what starting it costs."""

import pkgutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import click
import pytest

from talu import cli
from talu.cli.main import VERBS, talu

NO_VERBS = {"main", "terminal"}
Process = Callable[..., subprocess.CompletedProcess[str]]
Talu = Callable[..., Any]


def test_every_file_of_the_folder_is_a_verb_and_every_verb_a_file() -> None:
    files = {module.name for module in pkgutil.iter_modules(cli.__path__)}
    assert files - NO_VERBS == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_for_all_its_options(verb: str) -> None:
    command = talu.get_command(None, verb)
    assert command.get_short_help_str()
    options = [each for each in command.params if isinstance(each, click.Option)]
    assert all(option.help for option in options)


def test_the_version_is_the_packages(talu: Talu) -> None:
    assert talu("--version").out == f"talu, version {version('talu')}\n"


def test_no_verb_shows_the_verbs(talu: Talu) -> None:
    outcome = talu()
    assert outcome.status == 0
    assert all(verb in outcome.out for verb in VERBS)


def test_help_of_a_verb_is_a_success(talu: Talu) -> None:
    outcome = talu("ask", "--help")
    assert (outcome.status, outcome.err) == (0, "")
    assert "--max-tokens" in outcome.out


def test_python_m_talu_is_the_command(process: Process) -> None:
    done = process("--version")
    assert (done.returncode, done.stdout) == (0, f"talu, version {version('talu')}\n")


def test_a_verb_costs_nothing_until_it_is_called() -> None:
    heavy = {"numpy", "rich", "jinja2", "tokenizers", "huggingface_hub"}
    code = "import sys, talu.cli.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())
