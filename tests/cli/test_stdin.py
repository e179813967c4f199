"""A command reads standard input only if it is asked to, and says so if it does not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ASK = f"{sys.executable} -m talu ask --model talu/pocket --temperature 0"
NOTICE = "talu: PROMPT is given, so standard input is not read; end the command with - to add it\n"


def bash(script: str, folder: Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        **options,
    )


def test_a_shell_loop_over_a_file_keeps_its_lines(tmp_path: Path) -> None:
    (tmp_path / "questions").write_text("What is 2+2?\nWhat is 3+3?\n")
    done = bash(f'while read -r q; do {ASK} "$q"; done < questions', tmp_path)
    assert (done.stdout, done.stderr) == ("2 + 2 = 4.\n3 + 3 = 6.\n", "")


def test_a_pipe_that_stays_open_does_not_block_the_command() -> None:
    reads, writes = os.pipe()
    command = [*ASK.split(), "What is 2+2?"]
    done = subprocess.run(
        command, stdin=reads, capture_output=True, text=True, check=True, timeout=60
    )
    os.close(reads)
    os.close(writes)
    assert (done.stdout, done.stderr) == ("2 + 2 = 4.\n", NOTICE)


@pytest.mark.parametrize(
    ("script", "notice"),
    [
        ('echo text | {} "What is 2+2?"', NOTICE),
        ('{} "What is 2+2?" < file', NOTICE),
        ('{} "What is 2+2?" < /dev/null', ""),
        ('{} "What is 2+2?" < empty', ""),
        ('{} "What is 2+2?" <&-', ""),
        ('echo 2+2? | {} "What is" -', ""),
        ("echo What is 2+2? | {}", ""),
        ("{} < file", ""),
    ],
)
def test_input_that_is_not_read_is_reported(tmp_path: Path, script: str, notice: str) -> None:
    (tmp_path / "file").write_text("What is 2+2?\n")
    (tmp_path / "empty").touch()
    done = bash(script.format(ASK), tmp_path, stdin=subprocess.DEVNULL)
    assert (done.stdout, done.stderr) == ("2 + 2 = 4.\n", notice)
