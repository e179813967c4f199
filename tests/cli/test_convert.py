"""``talu convert`` prints where the result is, and names what the format cannot hold."""

import os
from pathlib import Path
from typing import Any

import pytest


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
