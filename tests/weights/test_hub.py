"""The hub client reads its settings when it is imported, so each test runs it in a new process."""

import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

TOKEN = "hf_canaryCANARYcanary"
PROGRAM = """
import json, sys, traceback
from pathlib import Path
from talu.exceptions import ModelError, TaluError
from talu.weights.resolve import resolve

sockets = []
sys.addaudithook(lambda event, _: sockets.append(event) if event.startswith("socket.") else None)
asked = json.loads(sys.argv[1])

def refuse(folder):
    raise ModelError(f"refused with {sorted(path.name for path in Path(folder).iterdir())}")

check = refuse if asked.pop("refuse", False) else None
try:
    result = {"folder": str(resolve(**asked, check=check))}
except TaluError as error:
    result = {"error": type(error).__name__, "code": error.code, "message": str(error)}
    result["traceback"] = "".join(traceback.format_exception(error))
result["sockets"] = sockets
result["client"] = "huggingface_hub.file_download" in sys.modules
print(json.dumps(result))
"""
WEIGHTS = safetensors.numpy.save({"w": np.arange(100_000, dtype=np.float32)})
FILES = {
    "config.json": b'{"model_type": "qwen3"}',
    "generation_config.json": b'{"top_k": 20}',
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b'{"eos_token": "<|im_end|>"}',
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": WEIGHTS,
}
OTHERS = {
    "README.md": b"",
    "pytorch_model.bin": b"\x80",
    "consolidated.safetensors": WEIGHTS,
    "original/model.safetensors": WEIGHTS,
    "onnx/config.json": b"{}",
}


@dataclass
class Outcome:
    """What a process that resolved a reference came to."""

    folder: Path | None
    error: str
    code: str
    message: str
    sockets: list[str]
    client: bool
    stderr: str

    def files(self) -> dict[str, bytes]:
        assert self.folder is not None, self.message
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}


Resolve = Callable[..., Outcome]


@pytest.fixture
def resolve(hub: Any, tmp_path: Path) -> Resolve:
    """Resolves a reference in a new process, with the hub of the test as the hub."""

    def run(
        ref: str = "org/model",
        *,
        env: dict[str, str] | None = None,
        stderr: int = subprocess.PIPE,
        **asked: Any,
    ) -> Outcome:
        settings = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.url, **(env or {})}
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE_"))}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps({"ref": ref, **asked})],
            env=clean | {"NO_PROXY": "127.0.0.1"} | settings,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + (done.stderr or "")
        result = json.loads(done.stdout)
        result.pop("traceback", None)
        folder = result.pop("folder", None)
        texts = {name: result.pop(name, "") for name in ("error", "code", "message")}
        return Outcome(folder=folder and Path(folder), stderr=done.stderr or "", **texts, **result)

    return run


@pytest.fixture
def repository(hub: Any, hub_module: Any) -> Any:
    """A sound model ``org/model`` among files that nobody needs."""
    hub.repositories["org/model"] = hub_module.Repository(files=FILES | OTHERS)
    return hub.repositories["org/model"]


def test_only_what_a_model_needs_is_downloaded_and_quietly_where_no_terminal_is(
    resolve: Resolve, hub: Any, repository: Any
) -> None:
    outcome = resolve()
    assert outcome.files() == FILES
    assert hub.fetched() == sorted(FILES)
    assert outcome.stderr == ""


def test_a_terminal_sees_the_progress_of_the_weights(resolve: Resolve, repository: Any) -> None:
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (25, 100))
    assert resolve(stderr=terminal).files() == FILES
    os.close(terminal)
    shown = os.read(controller, 65536).decode()
    os.close(controller)
    assert "Fetching 6 files: 100%" in shown
    assert "Fetching 5 files" not in shown


def test_a_cached_model_opens_without_a_socket_and_without_the_hub_client(
    resolve: Resolve, repository: Any
) -> None:
    del repository.files["chat_template.jinja"]
    first = resolve()
    for again in (resolve(), resolve(offline=True), resolve(env={"HF_HUB_OFFLINE": "1"})):
        assert again.folder == first.folder
        assert again.sockets == []
        assert not again.client


@pytest.mark.parametrize("asked", [{"offline": True}, {"env": {"HF_HUB_OFFLINE": "1"}}])
def test_offline_a_model_that_is_not_cached_is_an_error_and_no_socket_is_opened(
    resolve: Resolve, hub: Any, repository: Any, asked: Any
) -> None:
    outcome = resolve(**asked)
    assert outcome.error == "ModelNotFoundError"
    assert "'org/model' is not complete in" in outcome.message
    assert "hf download org/model" in outcome.message
    assert outcome.sockets == []
    assert hub.requests == []


def test_a_cut_connection_is_resumed_where_it_broke(
    resolve: Resolve, hub: Any, repository: Any
) -> None:
    large = safetensors.numpy.save({"w": np.arange(3_000_000, dtype=np.float32)})
    repository.files["model.safetensors"] = large
    repository.cut_after["model.safetensors"] = 11_000_000
    outcome = resolve()
    assert outcome.files()["model.safetensors"] == large
    ranges = [
        seen.headers.get("range")
        for seen in hub.requests
        if seen.method == "GET" and seen.path.endswith("/model.safetensors")
    ]
    assert ranges == [None, "bytes=10485760-"]  # the client keeps whole pieces of 10 MiB


def test_of_a_sharded_model_the_shards_of_the_index_are_downloaded(
    resolve: Resolve, hub: Any, repository: Any
) -> None:
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    del repository.files["model.safetensors"]
    index = json.dumps({"weight_map": {"w": first, "v": second}}).encode()
    shards = {first: WEIGHTS, second: WEIGHTS, "model.safetensors.index.json": index}
    repository.files |= shards
    files = resolve().files()
    assert files == {name: (FILES | shards)[name] for name in files}
    assert files.keys() == (FILES.keys() | shards.keys()) - {"model.safetensors"}
    repository.files.pop(second)
    hub.repositories["org/torn"] = repository
    torn = resolve("org/torn")
    assert torn.error == "ModelError"
    assert f"lacks '{second}', which its model.safetensors.index.json names" in torn.message


def test_a_model_that_is_refused_costs_no_download_of_weights(
    resolve: Resolve, hub: Any, repository: Any
) -> None:
    outcome = resolve(refuse=True)
    assert outcome.message == f"refused with {sorted(FILES.keys() - {'model.safetensors'})}"
    assert "model.safetensors" not in hub.fetched()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b""}, "as pickled objects"),
        ({"config.json": b"{}", "model-q4.gguf": b""}, "GGUF weights ('model-q4.gguf')"),
        ({"config.json": b"{}"}, "no weights in the repository org/model"),
        ({"model.safetensors": WEIGHTS}, "has no config.json"),
    ],
)
def test_a_repository_without_usable_weights_is_refused_before_any_download(
    resolve: Resolve, hub: Any, repository: Any, files: dict[str, bytes], words: str
) -> None:
    repository.files = files
    outcome = resolve()
    assert outcome.error == "ModelError"
    assert words in outcome.message
    assert hub.fetched() == []


def test_the_token_goes_to_the_hub_and_not_where_it_redirects(
    resolve: Resolve, hub: Any, hub_module: Any, repository: Any
) -> None:
    storage = hub_module.HubServer()
    storage.repositories["org/model"] = hub_module.Repository(files=FILES)
    repository.token = TOKEN
    repository.moved_to = storage.url
    assert resolve(env={"HF_TOKEN": TOKEN}).files() == FILES
    assert storage.fetched() == sorted(FILES)
    assert {seen.headers.get("authorization") for seen in storage.requests} == {None}
    asked = [seen for seen in hub.requests if "org/model" in seen.path]
    assert {seen.headers.get("authorization") for seen in asked} == {f"Bearer {TOKEN}"}
    storage.shutdown()
    storage.server_close()


@pytest.mark.parametrize(
    ("refusal", "error", "code", "words"),
    [
        ((404, "RepoNotFound"), "ModelNotFoundError", "MODEL_NOT_FOUND", "there is no model"),
        ((401, "RepoNotFound"), "ModelNotFoundError", "MODEL_NOT_FOUND", "or it is private"),
        ((403, "GatedRepo"), "ModelNotFoundError", "MODEL_ACCESS_DENIED", "is restricted: ask"),
        ((403, ""), "ModelNotFoundError", "MODEL_ACCESS_DENIED", "HTTP 403"),
        ((507, ""), "IOError", "IO_NETWORK_FAILED", "HTTP 507"),
    ],
)
def test_a_refusal_of_the_hub_is_told_with_the_next_step(
    resolve: Resolve, hub: Any, repository: Any, refusal: Any, error: str, code: str, words: str
) -> None:
    repository.refusal = refusal
    outcome = resolve(env={"HF_TOKEN": TOKEN})
    assert (outcome.error, outcome.code) == (error, code)
    assert words in outcome.message
    assert f"'org/model' on {hub.url}" in outcome.message
    assert ("HF_TOKEN" if code.startswith("MODEL") else "try again") in outcome.message


def test_a_hub_that_cannot_be_reached_is_an_error_of_the_network(
    resolve: Resolve, hub: Any
) -> None:
    hub.shutdown()
    hub.server_close()
    outcome = resolve()
    assert (outcome.error, outcome.code) == ("IOError", "IO_NETWORK_FAILED")
    assert "HF_ENDPOINT" in outcome.message


def test_a_token_that_makes_no_header_is_not_shown(resolve: Resolve, repository: Any) -> None:
    outcome = resolve(env={"HF_TOKEN": TOKEN + "\x01é"})
    assert outcome.error == "IOError"
    assert "HF_TOKEN" in outcome.message


def test_a_disk_that_is_too_small_is_known_before_the_download(
    resolve: Resolve, hub: Any, repository: Any
) -> None:
    repository.claimed_sizes["model.safetensors"] = 10**16
    outcome = resolve()
    assert (outcome.error, outcome.code) == ("IOError", "IO_WRITE_FAILED")
    assert "10000000.0 GB are needed" in outcome.message
    assert "HF_HOME" in outcome.message
    assert "model.safetensors" not in hub.fetched()


def test_a_cache_that_cannot_be_written_is_named(
    resolve: Resolve, repository: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    outcome = resolve(env={"HF_HOME": str(tmp_path / "file")})
    assert (outcome.error, outcome.code) == ("IOError", "IO_WRITE_FAILED")
    assert str(tmp_path / "file" / "hub") in outcome.message


def test_an_interrupted_download_is_completed_and_never_taken_for_a_model(
    resolve: Resolve, hub: Any, repository: Any
) -> None:
    folder = resolve().folder
    weights = folder / "model.safetensors"
    weights.resolve().unlink()
    weights.unlink()
    assert resolve(offline=True).error == "ModelNotFoundError"
    hub.requests.clear()
    assert resolve().files() == FILES
    assert hub.fetched() == ["model.safetensors"]


def test_a_cache_that_another_program_filled_in_part_is_completed_or_used_with_a_warning(
    resolve: Resolve, hub: Any, repository: Any
) -> None:
    folder = resolve().folder
    (folder / "generation_config.json").unlink()
    assert resolve(offline=True).folder == folder
    assert "generation_config.json" in resolve().files()
    (folder / "generation_config.json").unlink()
    hub.shutdown()
    hub.server_close()
    outcome = resolve()
    assert outcome.folder == folder
    assert "is used as it is" in outcome.stderr
