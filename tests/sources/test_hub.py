"""Downloads from a local hub.

The hub client reads its settings when it is imported, so it runs in a separate process: one for
most tests, a new one for each that needs other settings or asks what was imported.
"""

import json
import os
import pty
import shutil
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

NOWHERE = "http://127.0.0.1:1"
TOKEN = "hf_canaryCANARYcanary"
PROGRAM = """
import contextlib, io, json, os, sys, traceback
from pathlib import Path
from talu.exceptions import ModelError, TaluError
from talu.sources.hub import update
from talu.sources.resolve import resolve, split_tag

sockets = []
sys.addaudithook(lambda event, _: sockets.append(event) if event.startswith("socket.") else None)

def refuse(folder):
    raise ModelError(f"refused with {sorted(path.name for path in Path(folder).iterdir())}")

for line in sys.stdin:
    asked = json.loads(line)
    sockets.clear()
    before = dict(os.environ)
    os.environ.update(asked.pop("env"))
    check = refuse if asked.pop("refuse", False) else None
    captured = sys.stderr if sys.stderr.isatty() else io.StringIO()
    result = {}
    with contextlib.redirect_stderr(captured):
        try:
            if asked.pop("update", False):
                found = update(*split_tag(asked["ref"]), check=check)
            else:
                found = resolve(**asked, check=check)
            result |= {"folder": str(found.path), "note": found.note or ""}
        except TaluError as error:
            result |= {"error": type(error).__name__, "code": error.code, "message": str(error)}
            result["traceback"] = traceback.format_exc()
    result["sockets"] = sockets
    result["client"] = "huggingface_hub.file_download" in sys.modules
    result["stderr"] = "" if captured is sys.stderr else captured.getvalue()
    os.environ.clear()
    os.environ.update(before)
    print(json.dumps(result), flush=True)
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
    """The result of a process that resolved a reference."""

    folder: Path | None = None
    note: str = ""
    error: str = ""
    code: str = ""
    message: str = ""
    traceback: str = ""
    stderr: str = ""
    sockets: list[str] = field(default_factory=list)
    client: bool = False

    def files(self) -> dict[str, bytes]:
        assert self.folder is not None, self.message
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}


def start(home: Path, endpoint: str, **options: Any) -> subprocess.Popen[str]:
    """A process that resolves the references written to it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE_"))}
    settings = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "NO_PROXY": "127.0.0.1"}
    env = kept | settings | options.pop("env", {})
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **options}
    return subprocess.Popen([sys.executable, "-c", PROGRAM], env=env, text=True, **pipes)


def ask(process: subprocess.Popen[str], ref: str, **asked: Any) -> Outcome:
    """The result of ``resolve`` in the process."""
    process.stdin.write(json.dumps({"ref": ref, "env": {}, **asked}) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    assert TOKEN not in answer
    outcome = Outcome(**json.loads(answer))
    outcome.folder = Path(outcome.folder) if outcome.folder else None
    return outcome


Resolve = Callable[..., Outcome]
numbers = count()


@pytest.fixture(scope="module")
def server(hub_module: Any) -> Iterator[Any]:
    """A hub without models."""
    server = hub_module.HubServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hf")


@pytest.fixture(scope="module")
def process(server: Any, home: Path) -> Iterator[subprocess.Popen[str]]:
    process = start(home, server.url)
    yield process
    process.communicate(timeout=60)


@pytest.fixture
def hub(server: Any) -> Any:
    """The hub, with no request recorded."""
    server.requests.clear()
    return server


@pytest.fixture
def repository(hub: Any, hub_module: Any) -> Any:
    """A valid model among files that are not needed."""
    repository = hub_module.Repository(f"org/model-{next(numbers)}", files=FILES | OTHERS)
    hub.repositories[repository.id] = repository
    return repository


@pytest.fixture
def resolve(process: subprocess.Popen[str], hub: Any, repository: Any) -> Resolve:
    """Resolves the id of ``repository`` with the local hub."""

    def run(ref: str = "", **asked: Any) -> Outcome:
        return ask(process, ref or repository.id, **asked)

    return run


@pytest.fixture
def resolve_anew(hub: Any, home: Path, repository: Any) -> Resolve:
    """The same in a new process, in which ``env`` is set before any import."""

    def run(env: dict[str, str] | None = None, stderr: int | None = None, **asked: Any) -> Outcome:
        with start(home, hub.url, env=env or {}, stderr=stderr) as process:
            return ask(process, repository.id, **asked)

    return run


def test_only_what_a_model_needs_is_downloaded_silently_without_a_terminal(
    resolve: Resolve, hub: Any, repository: Any
) -> None:
    outcome = resolve()
    assert outcome.files() == FILES
    assert hub.fetched() == sorted(FILES)
    assert outcome.stderr == ""


def test_the_modules_of_an_embedding_model_are_downloaded_too(
    resolve: Resolve, hub: Any, repository: Any
) -> None:
    modules = {
        "modules.json": b"[]",
        "sentence_bert_config.json": b'{"max_seq_length": 9}',
        "config_sentence_transformers.json": b'{"prompts": {}}',
        "1_Pooling/config.json": b'{"pooling_mode": "cls"}',
        "2_Dense/config.json": b'{"in_features": 8}',
        "2_Dense/model.safetensors": WEIGHTS[:1000],
        "3_LayerNorm/model.safetensors": WEIGHTS[:900],
    }
    repository.files.update(modules)
    folder = resolve().folder
    assert hub.fetched() == sorted([*FILES, *modules])
    assert folder is not None
    assert {name: (folder / name).read_bytes() for name in modules} == modules


def test_a_terminal_shows_the_progress_of_the_weights(resolve_anew: Resolve) -> None:
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (25, 100))
    assert resolve_anew(stderr=terminal).files() == FILES
    os.close(terminal)
    shown = os.read(controller, 65536).decode()
    os.close(controller)
    assert "model.safetensors: 100%" in shown
    assert "Fetching" not in shown


@pytest.mark.parametrize(
    "asked", [{}, {"offline": True}, {"env": {"HF_HUB_OFFLINE": "1"}}], ids=["", "offline", "env"]
)
@pytest.mark.parametrize("listing", [True, False], ids=["new client", "client without listings"])
def test_a_cached_model_opens_without_a_socket_and_without_the_hub_client(
    resolve: Resolve, resolve_anew: Resolve, repository: Any, asked: Any, listing: bool
) -> None:
    del repository.files["chat_template.jinja"]
    folder = resolve().folder
    if not listing:
        shutil.rmtree(folder.parents[1] / "trees")
    again = resolve_anew(**asked)
    assert again.folder == folder
    assert again.sockets == []
    assert not again.client


@pytest.mark.parametrize("asked", [{"offline": True}, {"env": {"HF_HUB_OFFLINE": "1"}}])
def test_an_uncached_model_offline_is_an_error_without_opening_a_socket(
    resolve_anew: Resolve, hub: Any, repository: Any, asked: Any
) -> None:
    outcome = resolve_anew(**asked)
    assert outcome.error == "ModelNotFoundError"
    assert f"'{repository.id}' is not complete in" in outcome.message
    assert f"talu get {repository.id}" in outcome.message
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
    assert ranges == [None, "bytes=10485760-"]  # the client keeps complete chunks of 10 MiB


LARGE = safetensors.numpy.save({"w": np.arange(6_000_000, dtype=np.float32)})  # 24 MB
KEPT = 2 * 10 * 2**20  # the client writes chunks of 10 MiB


def held(repository: Any) -> None:
    """Make the server send no more than the first bytes of the weights, until it is released."""
    repository.files = FILES | {"model.safetensors": LARGE}
    repository.held_after["model.safetensors"] = KEPT + 1000


def partial_file(home: Path, repository: Any) -> Path:
    """The incomplete file of the weights, once it has what the server sent."""
    blobs = home / "hub" / f"models--{repository.id.replace('/', '--')}" / "blobs"
    while True:
        for path in blobs.glob("*.talu.incomplete"):
            if path.stat().st_size == KEPT:
                return path
        threading.Event().wait(0.02)


def gets(hub: Any, name: str) -> list[str | None]:
    """The ranges that were requested of a file."""
    return [
        seen.headers.get("range")
        for seen in hub.requests
        if seen.method == "GET" and seen.path.endswith("/" + name)
    ]


def test_a_download_of_a_killed_process_is_continued(
    resolve: Resolve, hub: Any, home: Path, repository: Any
) -> None:
    held(repository)
    with start(home, hub.url) as process:
        process.stdin.write(json.dumps({"ref": repository.id, "env": {}}) + "\n")
        process.stdin.flush()
        partial = partial_file(home, repository)
        process.kill()
    repository.release.set()
    assert resolve(offline=True).error == "ModelNotFoundError"
    assert resolve().files()["model.safetensors"] == LARGE
    assert gets(hub, "model.safetensors") == [None, f"bytes={KEPT}-"]
    assert not partial.exists()


def test_two_processes_share_one_download(
    resolve: Resolve, hub: Any, home: Path, repository: Any
) -> None:
    held(repository)
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (25, 100))
    with (
        start(home, hub.url) as first,
        start(home, hub.url, stderr=terminal) as second,
    ):
        asked = json.dumps({"ref": repository.id, "env": {}}) + "\n"
        first.stdin.write(asked)
        first.stdin.flush()
        partial_file(home, repository)
        second.stdin.write(asked)
        second.stdin.flush()
        shown = ""
        while "another process downloads model.safetensors" not in shown:
            shown += os.read(controller, 65536).decode()
        repository.release.set()
        folders = [json.loads(each.stdout.readline())["folder"] for each in (first, second)]
    os.close(terminal)
    os.close(controller)
    assert folders[0] == folders[1]
    assert (Path(folders[0]) / "model.safetensors").read_bytes() == LARGE
    assert gets(hub, "model.safetensors") == [None]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_file_that_is_damaged_on_its_way_is_refused_and_not_kept(
    resolve: Resolve, repository: Any, name: str
) -> None:
    right = repository.files[name]
    repository.damaged[name] = bytes(len(right))
    outcome = resolve()
    assert (outcome.error, outcome.code) == ("IOError", "IO_NETWORK_FAILED")
    assert repr(name) in outcome.message
    assert "SHA-256" in outcome.message or "git checksum" in outcome.message
    assert resolve(offline=True).error == "ModelNotFoundError"
    repository.damaged.clear()
    assert resolve().files()[name] == right


def test_an_update_gets_the_new_version_and_repairs_what_is_damaged_in_the_cache(
    resolve: Resolve, hub: Any, repository: Any
) -> None:
    folder = resolve().folder
    assert folder is not None
    for name in ("model.safetensors", "tokenizer.json"):
        blob = (folder / name).resolve()
        blob.write_bytes(bytes(blob.stat().st_size))
    assert resolve().files() != FILES  # opening does not read all weights
    hub.requests.clear()
    outcome = resolve(update=True)
    assert outcome.files() == FILES
    assert hub.fetched() == ["model.safetensors", "tokenizer.json"]
    assert outcome.stderr.count("is damaged: its SHA-256 is") == 1
    assert outcome.stderr.count("is damaged: its git checksum is") == 1


def test_an_update_without_a_network_is_an_error(resolve_anew: Resolve, hub: Any) -> None:
    outcome = resolve_anew(env={"HF_HUB_OFFLINE": "1"}, update=True)
    assert (outcome.error, outcome.code) == ("IOError", "IO_NETWORK_FAILED")
    assert "HF_HUB_OFFLINE forbids the network" in outcome.message
    assert hub.requests == []


def test_names_outside_of_the_cache_are_left_alone(
    resolve: Resolve, repository: Any, tmp_path: Path
) -> None:
    own = tmp_path / "own-Q4_0.gguf"
    own.write_bytes(b"mine")
    repository.files = {f"{'../' * 20}{str(own)[1:]}": b"other", "m-Q8_0.gguf": b"eight"}
    for tag in ("Q4_0", "Q8_0"):
        resolve(f"{repository.id}:{tag}", update=True)
    assert own.read_bytes() == b"mine"


def test_a_file_outside_of_the_cache_is_left_alone_if_a_link_to_it_is_damaged(
    resolve: Resolve, repository: Any, tmp_path: Path
) -> None:
    folder = resolve().folder
    assert folder is not None
    own = tmp_path / "own"
    own.write_bytes(b"mine")
    link = folder / "model.safetensors"
    link.unlink()
    link.symlink_to(own)
    assert resolve(update=True).files() == FILES
    assert own.read_bytes() == b"mine"


def test_the_shards_in_the_index_of_a_sharded_model_are_downloaded(
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


@pytest.mark.parametrize(
    "names", [["model-q4.gguf"], ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]]
)
def test_the_one_gguf_model_of_a_repository_is_downloaded(
    resolve: Resolve, hub: Any, repository: Any, names: list[str]
) -> None:
    repository.files = {"README.md": b"", **{name: name.encode() for name in names}}
    outcome = resolve()
    assert outcome.folder is not None, outcome.message
    assert outcome.folder.name == names[0]
    assert sorted(hub.fetched()) == names


SEVERAL = {
    "config.json": b"{}",
    "m-Q4_K_M.gguf": b"four",
    "m-Q8_0.gguf": b"eight",
    "big/m-F16-00001-of-00002.gguf": b"first",
    "big/m-F16-00002-of-00002.gguf": b"second",
}


@pytest.mark.parametrize(
    ("tag", "names"),
    [
        ("Q8_0", ["m-Q8_0.gguf"]),
        ("m-Q4_K_M.gguf", ["m-Q4_K_M.gguf"]),
        ("F16", ["big/m-F16-00001-of-00002.gguf", "big/m-F16-00002-of-00002.gguf"]),
    ],
)
def test_a_tag_downloads_the_files_of_one_model_and_opens_it_offline_afterwards(
    resolve: Resolve, hub: Any, repository: Any, tag: str, names: list[str]
) -> None:
    repository.files = SEVERAL
    ref = f"{repository.id}:{tag}"
    before = resolve(ref, offline=True)
    assert before.error == "ModelNotFoundError"
    outcome = resolve(ref)
    assert outcome.folder is not None, outcome.message
    assert outcome.folder.read_bytes() == SEVERAL[names[0]]
    assert sorted(hub.fetched()) == names
    assert (outcome.note, outcome.stderr) == ("", "")
    hub.requests.clear()
    assert resolve(ref).folder == resolve(ref, offline=True).folder == outcome.folder
    assert hub.requests == []


def test_without_a_tag_the_default_is_downloaded_with_a_note_even_if_another_one_is_cached(
    resolve: Resolve, hub: Any, repository: Any
) -> None:
    repository.files = SEVERAL
    assert resolve(f"{repository.id}:Q8_0").folder is not None
    hub.requests.clear()
    outcome = resolve()
    assert hub.fetched() == ["m-Q4_K_M.gguf"]
    assert "has 3 GGUF models; m-Q4_K_M.gguf is used" in outcome.note
    again = resolve(offline=True)
    assert (again.folder, again.note) == (outcome.folder, outcome.note)


@pytest.mark.parametrize(
    ("tag", "error", "words"),
    [
        ("Q5_K_M", "ModelNotFoundError", "has no model 'Q5_K_M'; did you mean 'Q4_K_M'? it has :"),
        ("x.gguf", "ModelNotFoundError", "it has :F16, :Q4_K_M, :Q8_0"),
    ],
)
def test_a_tag_that_the_repository_lacks_lists_what_it_has_before_any_download(
    resolve: Resolve, hub: Any, repository: Any, tag: str, error: str, words: str
) -> None:
    repository.files = SEVERAL
    outcome = resolve(f"{repository.id}:{tag}")
    assert outcome.error == error
    assert words in outcome.message
    assert f"the repository {repository.id} on {hub.url}" in outcome.message
    assert hub.fetched() == []


def test_a_tag_on_a_repository_without_gguf_files_is_refused(resolve: Resolve, hub: Any) -> None:
    outcome = resolve(f"{next(reversed(hub.repositories))}:Q4_K_M")
    assert outcome.error == "ModelNotFoundError"
    assert "has no GGUF file to take 'Q4_K_M' of" in outcome.message


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"architecture": "qwen33"}, "the architecture is 'qwen33'; did you mean 'qwen3'?"),
        ({"architecture": "llama"}, ""),
        ({"architecture": 7}, ""),
        ({}, ""),
    ],
)
def test_an_architecture_that_the_hub_says_is_refused_before_any_download(
    resolve: Resolve, hub: Any, repository: Any, described: dict[str, object], words: str
) -> None:
    repository.files = {"m.gguf": b"GGUF"}
    repository.described = described
    outcome = resolve()
    assert words in outcome.message
    assert (outcome.error == "ModelError") == bool(words)
    assert hub.fetched() == ([] if words else ["m.gguf"])


def test_the_weights_of_a_refused_model_are_not_downloaded(
    resolve: Resolve, hub: Any, repository: Any
) -> None:
    outcome = resolve(refuse=True)
    assert outcome.message == f"refused with {sorted(FILES.keys() - {'model.safetensors'})}"
    assert "model.safetensors" not in hub.fetched()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b""}, "as pickled objects"),
        ({"a.gguf": b"", "b.gguf": b""}, "add one of these to the reference: :a.gguf, :b.gguf"),
        ({"config.json": b"{}"}, "no weights in the repository org/model-"),
        ({"model.safetensors": WEIGHTS}, "has no config.json"),
        (
            {"modules.json": b"[]", "0_Transformer/config.json": b"{}"},
            "has its model in the subfolder '0_Transformer', which is supported for local folders",
        ),
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


def test_the_token_is_sent_to_the_hub_but_not_to_redirect_targets(
    resolve: Resolve, hub: Any, hub_module: Any, repository: Any
) -> None:
    storage = hub_module.HubServer()
    storage.repositories[repository.id] = hub_module.Repository(repository.id, FILES)
    repository.token = TOKEN
    repository.moved_to = storage.url + "{path}"
    assert resolve(env={"HF_TOKEN": TOKEN}).files() == FILES
    assert storage.fetched() == sorted(FILES)
    assert {seen.headers.get("authorization") for seen in storage.requests} == {None}
    asked = [seen for seen in hub.requests if repository.id in seen.path]
    assert {seen.headers.get("authorization") for seen in asked} == {f"Bearer {TOKEN}"}
    storage.stop()


@pytest.mark.parametrize(
    ("refusal", "error", "code", "words"),
    [
        ((404, "RepoNotFound"), "ModelNotFoundError", "MODEL_NOT_FOUND", "there is no model"),
        ((401, "RepoNotFound"), "ModelNotFoundError", "MODEL_NOT_FOUND", "or it is private"),
        ((403, "GatedRepo"), "ModelNotFoundError", "MODEL_ACCESS_DENIED", "is restricted: request"),
        ((403, ""), "ModelNotFoundError", "MODEL_ACCESS_DENIED", "HTTP 403"),
        ((507, ""), "IOError", "IO_NETWORK_FAILED", "HTTP 507"),
    ],
)
def test_a_refusal_of_the_hub_says_what_to_do(
    resolve: Resolve, hub: Any, repository: Any, refusal: Any, error: str, code: str, words: str
) -> None:
    repository.refusal = refusal
    outcome = resolve(env={"HF_TOKEN": TOKEN})
    assert (outcome.error, outcome.code) == (error, code)
    assert words in outcome.message
    assert f"'{repository.id}' on {hub.url}" in outcome.message
    assert ("HF_TOKEN" if code.startswith("MODEL") else "try again") in outcome.message


def test_an_unreachable_hub_is_a_network_error(resolve_anew: Resolve) -> None:
    with_password = NOWHERE.replace("//", f"//user:{TOKEN}@")
    outcome = resolve_anew(env={"HF_ENDPOINT": with_password})
    assert (outcome.error, outcome.code) == ("IOError", "IO_NETWORK_FAILED")
    assert f"on {NOWHERE} " in outcome.message
    assert "HF_ENDPOINT" in outcome.message


def test_a_token_that_is_invalid_in_a_header_is_not_shown(resolve: Resolve) -> None:
    outcome = resolve(env={"HF_TOKEN": TOKEN + "é"})
    assert outcome.error == "IOError"
    assert "HF_TOKEN" in outcome.message


def test_a_signed_url_is_not_shown(
    resolve: Resolve, hub: Any, hub_module: Any, repository: Any
) -> None:
    storage = hub_module.HubServer()
    repository.moved_to = f"{storage.url}/signed{{path}}?signature={TOKEN}"
    assert resolve().error
    assert any(TOKEN in seen.path for seen in storage.requests)
    storage.stop()


def test_a_disk_that_is_too_small_is_reported_before_the_download(
    resolve: Resolve, hub: Any, repository: Any
) -> None:
    repository.claimed_sizes["model.safetensors"] = 10**16
    outcome = resolve()
    assert (outcome.error, outcome.code) == ("IOError", "IO_WRITE_FAILED")
    assert "10,000,000 GB are needed" in outcome.message
    assert "HF_HOME" in outcome.message
    assert "model.safetensors" not in hub.fetched()


def test_a_cache_that_cannot_be_written_is_named(resolve_anew: Resolve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = resolve_anew(env={"HF_HOME": str(tmp_path / "file")})
    assert (outcome.error, outcome.code) == ("IOError", "IO_WRITE_FAILED")
    assert str(tmp_path / "file" / "hub") in outcome.message


def test_an_interrupted_download_is_completed_and_never_used_as_a_model(
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


def test_a_partly_filled_cache_is_completed_or_used_with_a_warning(
    resolve: Resolve, resolve_anew: Resolve
) -> None:
    folder = resolve().folder
    (folder / "generation_config.json").unlink()
    assert resolve(offline=True).folder == folder
    assert "generation_config.json" in resolve().files()
    (folder / "generation_config.json").unlink()
    outcome = resolve_anew(env={"HF_ENDPOINT": NOWHERE})
    assert outcome.folder == folder
    assert "is used" in outcome.stderr


SIBLING = {"rfilename": "config.json", "size": 2}


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        "text",
        7,
        {"id": 5},
        {"siblings": 3},
        {"siblings": [3]},
        {"siblings": [{}]},
        {"siblings": [{"rfilename": 5}]},
        {"siblings": [SIBLING, {"rfilename": "model.safetensors", "size": "many"}], "sha": 5},
        {"id": "a/b", "siblings": [SIBLING, {"rfilename": "model.safetensors", "size": []}]},
        {"id": "a/b", "siblings": [SIBLING, {"rfilename": ["model.safetensors"]}]},
    ],
    ids=repr,
)
def test_a_malformed_answer_of_the_hub_is_a_typed_error(
    resolve: Resolve, repository: Any, answer: Any
) -> None:
    repository.answer = answer
    outcome = resolve()
    assert outcome.error in ("IOError", "ModelError")
    assert repository.id in outcome.message
