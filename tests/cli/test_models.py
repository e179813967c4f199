"""``talu get``, ``ls``, ``rm`` and ``describe`` manage models, with the real client of the hub."""

import importlib
import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.remote.llama import gguf as smollm2
from tests.sources.hub_server import HubServer, Repository

from talu.sources.resolve import BUNDLED_FOLDER

Process = Callable[..., subprocess.CompletedProcess[str]]
FILES = {
    path.name: path.read_bytes()
    for path in BUNDLED_FOLDER.iterdir()
    if path.suffix in (".json", ".jinja", ".safetensors")
}
SMOLLM2 = smollm2()


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    server = HubServer()
    server.repositories["org/pocket"] = Repository("org/pocket", FILES)
    server.repositories["org/smol"] = Repository(
        "org/smol", {"s-Q4_1.gguf": SMOLLM2.read_bytes(), "s-Q8_0.gguf": b"GGUF"}
    )
    server.repositories["org/unknown"] = Repository(
        "org/unknown", FILES | {"config.json": b'{"model_type": "qwen33"}'}
    )
    yield server
    server.stop()


@pytest.fixture
def environment(hub: HubServer, tmp_path: Path) -> dict[str, str]:
    """Settings of a process that uses the local hub, and caches of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TALU_"))}
    return kept | {
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": hub.url,
        "NO_PROXY": "127.0.0.1",
        "TALU_CACHE": str(tmp_path / "talu"),
    }


def test_a_model_is_fetched_listed_asked_and_removed(
    process: Process, environment: dict[str, str]
) -> None:
    def talu(*arguments: str) -> subprocess.CompletedProcess[str]:
        return process(*arguments, env=environment)

    got = talu("get", "org/pocket")
    assert (got.returncode, got.stderr) == (0, "")
    folder = Path(got.stdout.strip())
    assert {path.name for path in folder.iterdir()} == set(FILES)
    asked = talu("ask", "What is 2+2?", "-m", "org/pocket", "--temperature", "0")
    assert (asked.stdout, asked.stderr) == ("2 + 2 = 4.\n", "")
    listed = talu("ls")
    assert listed.stdout.split()[:2] == ["org/pocket", "BF16"]
    assert "talu: 1 model: 5." in listed.stderr
    (row,) = json.loads(talu("ls", "--json").stdout)
    assert (row["ref"], row["status"]) == ("org/pocket", "ready")
    assert row["bytes"] == sum(map(len, FILES.values()))
    assert talu("rm", "org/pocket").stderr.startswith("talu: There is no terminal to ask on")
    assert folder.exists()
    removed = talu("rm", "org/pocket", "--yes")
    assert removed.stderr.startswith("talu: removed org/pocket (5.")
    assert not folder.exists()
    assert talu("ls").stdout == ""


def test_get_takes_the_file_of_a_tag_and_says_on_a_terminal_how_far_it_is(
    environment: dict[str, str],
) -> None:
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (25, 100))
    command = [sys.executable, "-m", "talu", "get", "org/smol:q4_1"]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=terminal, text=True, check=True
    )
    os.close(terminal)
    shown = os.read(controller, 65536).decode()
    os.close(controller)
    assert "s-Q4_1.gguf: 100%" in shown
    assert Path(done.stdout.strip()).read_bytes() == SMOLLM2.read_bytes()


def test_a_model_that_cannot_run_is_refused_before_its_weights_are_fetched(
    process: Process, environment: dict[str, str], hub: HubServer
) -> None:
    hub.requests.clear()
    done = process("get", "org/unknown", env=environment)
    assert done.returncode == 1
    assert "did you mean 'qwen3'" in done.stderr
    assert "model.safetensors" not in hub.fetched()


@pytest.mark.parametrize(
    ("model", "status", "words"),
    [
        ("org/smol:Q5_0", 1, "it has :Q4_1, :Q8_0"),
        ("org/none", 1, "there is no model 'org/none'"),
        ("./folder", 2, "./folder is on this machine"),
        ("talu/pocket", 2, "talu/pocket is on this machine"),
        ("openai::gpt-4o", 2, "is not the hub id of a model"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(
    process: Process, environment: dict[str, str], model: str, status: int, words: str
) -> None:
    done = process("get", model, env=environment)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_describe_prints_what_the_file_says(talu: Any) -> None:
    done = talu("describe", str(SMOLLM2), "--context", "1024")
    assert (done.status, done.err) == (0, "")
    lines = {line[:16].strip(): line[17:].strip() for line in done.out.splitlines()[1:]}
    assert lines["architecture"] == "llama, 30 layers of width 576"
    assert lines["formats"] == "Q4_1: 210 tensors, 106.2 M, 66.4 MB"
    assert lines["chat template"] == "system messages: yes, tools: no, thinking: no"
    assert lines["licence"] == "apache-2.0"
    assert lines["memory"] == "96.6 MB of weights, 23.6 MB of cache for 1,024 tokens"
    assert lines["fits here"].startswith("yes, ")


def test_describe_prints_the_same_as_json(talu: Any) -> None:
    about = json.loads(talu("describe", "talu/pocket", "--json").out)
    assert about["model"] == "talu/pocket"
    assert about["formats"][0]["name"] == "BF16"
    assert about["template"] == {"system": True, "tools": True, "thinking": True}
    assert about["memory"]["context"] == 1024


def test_describe_says_what_does_not_fit(talu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = importlib.import_module("talu.engine.cpu")
    for free, words in (
        (200 << 20, "not with this context: 210 MB are free, enough for 1,"),
        (90 << 20, "no, 94.4 MB are free"),
    ):
        monkeypatch.setattr(cpu, "available_memory", lambda free=free: free)
        assert words in talu("describe", str(SMOLLM2)).out


def test_removing_asks_first(talu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    home = tmp_path / "models--org--m"
    home.mkdir()
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    assert talu("rm", "org/m").status == 130
    assert home.exists()
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "y")
    assert talu("rm", "org/m").status == 0
    assert not home.exists()
