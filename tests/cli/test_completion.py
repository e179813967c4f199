"""``talu completion``: its scripts complete the command in a real shell."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Talu = Callable[..., Any]

# What bash does when the user presses Tab behind these words.
TAB = """
eval "$(talu completion bash)"
COMP_WORDS=({words}) COMP_CWORD={last}
_talu_completion talu
echo "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def path(tmp_path: Path) -> dict[str, str]:
    """An environment that has this talu as the command ``talu``."""
    command = tmp_path / "talu"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m talu "$@"\n')
    command.chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("words", "offers"),
    [
        ("talu ''", "ask chat embed tokenize chats bench completion"),
        ("talu em", "embed"),
        ("talu ask --max", "--max-tokens"),
        ("talu chats ''", "delete export import list show"),
        ("talu chats list --li", "--limit"),
        ("talu embed --pooling m", "mean model"),
    ],
)
def test_bash_completes_commands_options_and_values(
    path: dict[str, str], words: str, offers: str
) -> None:
    script = TAB.format(words=words, last=len(words.split()) - 1)
    done = subprocess.run(
        ["bash", "-c", script], env=path, capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout.split(), done.stderr) == (offers.split(), "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_script_that_it_can_read(talu: Talu, tmp_path: Path, shell: str) -> None:
    outcome = talu("completion", shell)
    assert (outcome.status, outcome.err) == (0, "")
    assert f"_TALU_COMPLETE={shell}_complete" in outcome.out
    if found := shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(outcome.out)
        subprocess.run([found, "-n", script], check=True)
