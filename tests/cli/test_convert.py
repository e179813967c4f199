"""``talu convert`` prints where the result is, and names what the format cannot hold."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from talu.sources.resolve import BUNDLED_FOLDER


def test_a_model_is_converted(talu: Any, tmp_path: Path) -> None:
    output = tmp_path / "pocket.gguf"
    done = talu("convert", "talu/pocket", "--to", "BF16", "-o", str(output))
    assert (done.status, done.out) == (0, f"{output}\n")
    assert done.err.splitlines() == [
        "talu: the file has no place for the default max_new_tokens = 256",
        "talu: 5.58 MB, 16.02 bits per weight",
    ]
    again = talu("convert", "talu/pocket", "--to", "bf16", "-o", str(output))
    assert again.status == 1
    assert "exists already" in again.err
    assert talu("convert", "talu/pocket", "--to", "bf16", "-o", str(output), "--force").status == 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--to", "bf16"), 2, "Missing option '-o'"),
        (("-o", "x.gguf"), 2, "Missing option '--to'"),
        (("--to", "bf15", "-o", "x.gguf"), 1, "did you mean 'bf16'?"),
        (("--to", "bf16", "-o", "none/x.gguf"), 1, "is not a folder"),
        (("--to", "bf16", "-o", ""), 2, "--output is empty"),
    ],
)
def test_wrong_usage_is_one_line_that_says_why(
    talu: Any, arguments: tuple[str, ...], status: int, message: str
) -> None:
    done = talu("convert", "talu/pocket", *arguments)
    assert (done.status, done.out) == (status, "")
    assert message in done.err


def test_an_unsupported_processor_target_is_one_line(process: Any, tmp_path: Path) -> None:
    arguments = ("convert", "talu/pocket", "--to", "q8_0", "-o", str(tmp_path / "x.gguf"))
    done = process(*arguments, env=os.environ | {"TALU_CPU": "sse9"})
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "'sse9'" in done.stderr
    assert [*tmp_path.iterdir()] == []


def test_a_program_reads_a_path_that_it_can_open(tmp_path: Path) -> None:
    output = os.fsencode(tmp_path) + b"/\xff\x1b[31m.gguf"
    command = [sys.executable, "-m", "talu", "convert", "talu/pocket", "--to", "bf16", "-o", output]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == output + b"\n"
    assert os.path.exists(output)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_a_conversion_without_a_trace(number: int, tmp_path: Path) -> None:
    command = ["convert", str(tmp_path / "model"), "--to", "q8_0", "-o", str(tmp_path / "x.gguf")]
    shutil.copytree(BUNDLED_FOLDER, tmp_path / "model")
    script = f"""
import os, sys
from talu.weights import encode
from talu import _native
from talu.cli.main import run
original = _native.encode
def slow(*arguments):
    os.kill(os.getpid(), {int(number)})
    return original(*arguments)
_native.encode = slow
sys.exit(run({command!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode != 0
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
