import io
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talu.weights import pack, progress
from talu.weights.pack import load_packed
from talu.weights.progress import CLEAR, Progress
from talu.weights.safetensors_folder import open_folder


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "monotonic", clock)
    monkeypatch.delenv("TALU_PROGRESS", raising=False)
    return clock


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal as stderr; in the test itself, because pytest sets stderr after the fixtures."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def work(clock: Clock, seconds: float) -> None:
    """Process ten chunks of 100 MB in ``seconds``."""
    with Progress("packing", 10**9) as shown:
        for _ in range(10):
            clock.now += seconds / 10
            shown.add(10**8)


def test_a_terminal_shows_a_line_after_a_second_and_clears_it_at_the_end(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = on_terminal(monkeypatch)
    work(clock, 5)
    lines = terminal.getvalue().split(CLEAR)
    assert lines[:2] == ["", "talu: packing: 20 % of 1.0 GB"]
    assert lines[-2:] == ["talu: packing: 100 % of 1.0 GB", ""]


def test_a_task_of_less_than_a_second_is_not_shown(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = on_terminal(monkeypatch)
    work(clock, 0.9)
    assert terminal.getvalue() == ""


def test_many_small_chunks_do_not_flood_the_terminal(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = on_terminal(monkeypatch)
    with Progress("packing", 10**5) as shown:
        for _ in range(10**5):
            clock.now += 1e-4
            shown.add(1)
    assert 40 <= terminal.getvalue().count(CLEAR) <= 50


def test_the_environment_variable_turns_the_line_off(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = on_terminal(monkeypatch)
    monkeypatch.setenv("TALU_PROGRESS", "0")
    work(clock, 5)
    assert terminal.getvalue() == ""


def closed() -> Terminal:
    stream = Terminal()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [io.StringIO, closed, lambda: None])
def test_without_a_terminal_progress_is_only_logged(
    clock: Clock,
    stream: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "talu.progress")
    monkeypatch.setattr(sys, "stderr", stream())
    work(clock, 5)
    if isinstance(sys.stderr, io.StringIO) and not sys.stderr.closed:
        assert sys.stderr.getvalue() == ""
    records: list[Any] = [r for r in caplog.records if r.name == "talu.progress"]
    assert [r.done for r in records] == [n * 10**8 for n in range(2, 11)]
    assert {r.total for r in records} == {10**9}
    assert records[0].getMessage() == "packing: 20 % of 1.0 GB"


def test_packing_a_checkpoint_reports_every_tensor(
    tmp_path: Path,
    save_tensors: Callable[[Path, dict[str, Any]], Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "talu.progress")
    monkeypatch.setattr(progress, "SILENT_S", 0)
    monkeypatch.setattr(progress, "INTERVAL_S", 0)
    monkeypatch.setattr(pack, "CACHE_FROM_BYTES", 1)
    monkeypatch.setenv("TALU_CACHE", str(tmp_path / "cache"))
    tensors = {name: np.ones((64, 32), np.float32) for name in "abc"}
    save_tensors(tmp_path / "m" / "model.safetensors", tensors)
    for _ in range(2):  # the second time there is nothing to pack
        with open_folder(tmp_path / "m") as checkpoint:
            load_packed(checkpoint, dict.fromkeys("abc", "f32"))
    shares = [record.getMessage().split(": ")[1] for record in caplog.records]
    assert shares == ["33 % of 0 MB", "66 % of 0 MB", "100 % of 0 MB"]
