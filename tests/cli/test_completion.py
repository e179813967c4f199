"""``talu completion``: its scripts complete commands, options and models."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from talu.cli.main import COMMANDS
from talu.client import Client
from talu.profile import Profile

Talu = Callable[..., Any]
COMMIT = "0123456789" * 4

# What bash does when the user presses Tab after these words.
TAB = """
eval "$(talu completion bash)"
COMP_WORDS=({words}) COMP_CWORD={last}
_talu_completion talu
echo "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment with this talu as the command ``talu``, and something to complete."""
    command = tmp_path / "talu"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m talu "$@"\n')
    command.chmod(0o755)
    model = tmp_path / "hub" / "models--acme--lion"
    folder = model / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()
    (tmp_path / "hub" / "models--acme--unfinished").mkdir()
    home = tmp_path / "home"
    templates = home / ".talu" / "templates"
    templates.mkdir(parents=True)
    for name in ("summary", "shorter", "other"):
        (templates / f"{name}.toml").touch()
    monkeypatch.setenv("HOME", str(home))
    for profile, name in (("default", "a-chat"), ("other", "b-chat")):
        with Client("talu/pocket", profile=Profile(profile)) as client:
            client.chat(session_id=name).title = f"About {name}:\x1b[1m foxes, hens"
    places = {"HOME": str(home)}
    places |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HF_HUB_CACHE": str(tmp_path / "hub")}
    return os.environ | places


@pytest.mark.parametrize(
    ("words", "offers"),
    [
        ("talu ''", " ".join(COMMANDS)),
        ("talu em", "embed"),
        ("talu ask --max", "--max-tokens"),
        ("talu log ''", "delete export import list search show"),
        ("talu log list --li", "--limit"),
        ("talu embed --pooling m", "mean model"),
        ("talu ask --model ''", "talu/pocket acme/lion"),
        ("talu bench ac", "acme/lion"),
        ("talu convert acme/lion --to q4_k", "q4_k_s q4_k_m"),
        ("talu rerank --pooling m", "mean model"),
        ("talu doctor --j", "--json"),
        ("talu ask -t s", "shorter summary"),
        ("talu log show a", "a-chat"),
        ("talu log delete --profile other ''", "b-chat"),
        ("talu chat --session ''", "a-chat"),
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
def test_every_shell_gets_a_script_with_valid_syntax(
    talu: Talu, tmp_path: Path, shell: str
) -> None:
    outcome = talu("completion", shell)
    assert (outcome.status, outcome.err) == (0, "")
    assert f"_TALU_COMPLETE={shell}_complete" in outcome.out
    if found := shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(outcome.out)
        subprocess.run([found, "-n", script], check=True)


def test_a_path_is_completed_with_files_and_folders(path: dict[str, str]) -> None:
    asked = {"COMP_WORDS": "talu ask --model ./m", "COMP_CWORD": "3"}
    done = subprocess.run(
        ["talu"],
        env=path | asked | {"_TALU_COMPLETE": "bash_complete"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "file,./m\n"


@pytest.mark.parametrize(
    ("shell", "offered"),
    [
        ("zsh", "plain\na-chat\nAbout a-chat: foxes, hens\n"),
        ("fish", "plain,a-chat\tAbout a-chat: foxes, hens\n"),
    ],
)
def test_other_shells_show_what_a_chat_is_about(
    path: dict[str, str], shell: str, offered: str
) -> None:
    words = {"COMP_WORDS": "talu log show ", "COMP_CWORD": "" if shell == "fish" else "3"}
    done = subprocess.run(
        ["talu"],
        env=path | words | {"_TALU_COMPLETE": f"{shell}_complete"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == offered


def test_the_zsh_script_starts_the_completion_system_if_it_is_not_running(talu: Talu) -> None:
    lines = [line.strip() for line in talu("completion", "zsh").out.splitlines()]
    start = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i; }"
    assert lines.index(start) + 1 == lines.index("compdef _talu_completion talu")


def test_the_fish_script_keeps_descriptions_with_commas(talu: Talu) -> None:
    assert 'string split --max 1 "," $completion' in talu("completion", "fish").out
