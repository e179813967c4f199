"""Prompts that an earlier process computed: the same answers, sooner."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from talu import Client, ModelSpec, Profile
from talu.backends.local import LocalModel
from talu.config import GenerationConfig
from talu.engine import kept_prefixes
from talu.engine.blocks import BlockPool
from talu.engine.kept_prefixes import KeptPrefixes
from talu.engine.prefix_files import PrefixFiles
from talu.engine.scheduler import Job
from talu.exceptions import ValidationError
from talu.sources.resolve import BUNDLED
from talu.types import Done, LocalBackend, Request

TEXT = "What is the capital of France, and what is it known for? " * 4
BUDGET = 64 << 20


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TALU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prefixes"


@contextmanager
def opened(**options: Any) -> Iterator[LocalModel]:
    options = {"prefix_cache_bytes": BUDGET} | options
    with closing(LocalModel(BUNDLED, LocalBackend(**options))) as model:
        yield model


def answer(model: LocalModel, prompt: str = TEXT, **settings: Any) -> tuple[list[Any], Done]:
    """The tokens with their log-probabilities, and the end."""
    settings = {"max_tokens": 20, "temperature": 1.0, "seed": 3, "logprobs": True} | settings
    generation = model.generate(Request(prompt=prompt, config=GenerationConfig(**settings)))
    generation.start()
    events = list(generation)
    assert isinstance(events[-1], Done)
    return [each for event in events[:-1] for each in getattr(event, "logprobs", ())], events[-1]


def cached(done: Done) -> int:
    return done.usage.cached_tokens or 0


def test_a_chat_of_an_earlier_engine_continues_with_the_same_bits(folder: Path) -> None:
    with opened(prefix_cache_bytes=0) as model:
        first, _ = answer(model)
        text = TEXT + "And of Italy?"
        expected, computed = answer(model, text)
        assert cached(computed) > 0  # in memory
    assert not folder.exists()
    with opened() as model:
        assert answer(model)[0] == first
    with opened() as model:
        logprobs, done = answer(model, text)
    assert logprobs == expected
    assert cached(done) == cached(computed)
    assert done.notes == computed.notes


def test_one_process_replaces_all_damaged_files_of_a_chat(folder: Path) -> None:
    with opened() as model:
        expected, _ = answer(model)
    files = list(folder.iterdir())
    assert len(files) > 3
    for file in files:
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    with opened() as model:
        logprobs, done = answer(model)
    assert (logprobs, cached(done)) == (expected, 0)
    with opened() as model:
        logprobs, done = answer(model)
    assert logprobs == expected
    assert cached(done) >= 16 * (len(files) - 2)


def test_of_a_chat_that_is_larger_than_the_budget_the_beginning_is_kept(folder: Path) -> None:
    with opened() as model:
        answer(model)
    files = list(folder.iterdir())
    budget = (len(files) - 1) * files[0].stat().st_size
    for file in files:
        file.unlink()
    for _ in range(2):
        with opened(prefix_cache_bytes=budget) as model:
            _, done = answer(model)
    assert cached(done) >= 16 * (0.9 * len(files) - 4)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= budget


def test_a_chat_continues_in_another_process(folder: Path) -> None:
    with opened() as model:
        answer(model)
    script = (
        "import json, sys\nfrom tests.engine.test_kept_prefixes import opened, answer, cached\n"
        "with opened() as model: print(json.dumps(cached(answer(model)[1])))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert json.loads(ran.stdout) > 32


def test_the_answer_itself_is_kept_too() -> None:
    with opened() as model:
        pieces, done = answer(model, max_tokens=60, stop_token_ids=[])
        text = model.detokenize([each.token for each in pieces], skip_special_tokens=False)
        prompt = done.usage.prompt_tokens
        assert prompt is not None
    with opened() as model:
        ids = model.tokenize(TEXT) + [each.token for each in pieces]
        request = Request(
            token_ids=tuple(ids), config=GenerationConfig(max_tokens=1, temperature=0.0)
        )
        generation = model.generate(request)
        generation.start()
        *_, end = generation
        assert isinstance(end, Done)
        assert cached(end) > prompt, text


def test_a_namespace_finds_only_its_own_files() -> None:
    with opened() as model:
        answer(model, cache_namespace="red")
    with opened() as model:
        assert cached(answer(model)[1]) == 0
        assert cached(answer(model, cache_namespace="blue")[1]) == 0
        assert cached(answer(model, cache_namespace="red")[1]) > 0


def test_another_format_of_the_cache_finds_no_files() -> None:
    with opened() as model:
        answer(model)
    with opened(kv_dtype="bf16") as model:
        assert cached(answer(model)[1]) == 0


def test_damaged_files_are_computed_again(folder: Path) -> None:
    with opened() as model:
        expected, _ = answer(model)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    with opened() as model:
        logprobs, done = answer(model)
        assert (logprobs, cached(done)) == (expected, 0)
    with opened() as model:
        assert cached(answer(model)[1]) > 0


def test_a_folder_that_cannot_be_used_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TALU_CACHE", str(tmp_path / "file"))
    with opened() as model:
        logprobs, done = answer(model)
    assert len(logprobs) > 0
    assert done.notes[-1].startswith("prefix_cache_bytes has no effect: ")


def test_a_full_disk_is_logged_once_and_harms_no_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, folder: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with caplog.at_level(logging.WARNING, "talu.engine"), opened() as model:
        first, _ = answer(model)
        assert answer(model)[0] == first
    messages = [record.message for record in caplog.records if "not kept" in record.message]
    assert messages == [
        "a computed prompt is not kept on disk: less than 1 GiB of the disk is free"
    ]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("value", [-1, 2**51, 1.5, True, "1 GB", None])
def test_a_wrong_budget_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match=r"^prefix_cache_bytes=") as caught:
        LocalModel(BUNDLED, LocalBackend(prefix_cache_bytes=value))
    assert caught.value.details["param"] == "prefix_cache_bytes"


def test_a_budget_that_holds_no_block_is_refused_with_the_counts() -> None:
    with pytest.raises(ValidationError, match="16 tokens, the smallest part of a prompt") as caught:
        LocalModel(BUNDLED, LocalBackend(prefix_cache_bytes=1000))
    assert caught.value.details["needed"] > 1000


class Memory:
    """Blocks of 8 bytes."""

    target = "none"
    block_bytes = 8

    def __init__(self) -> None:
        self.blocks: dict[int, list[int]] = {}

    def read_blocks(self, blocks: Any) -> Any:
        return np.array([self.blocks[block] for block in blocks.tolist()], np.uint8)

    def write_blocks(self, blocks: Any, content: Any) -> None:
        for block, row in zip(blocks.tolist(), content.tolist(), strict=True):
            self.blocks[block] = row


@pytest.fixture
def keep(tmp_path: Path) -> Callable[[], tuple[KeptPrefixes, BlockPool, Memory]]:
    def new() -> tuple[KeptPrefixes, BlockPool, Memory]:
        files = PrefixFiles(tmp_path / "blocks", ["m"], block_bytes=8, budget=1 << 20)
        memory = Memory()
        return KeptPrefixes(files, memory), BlockPool(8, 4), memory

    return new


def test_a_long_prompt_is_read_in_parts(
    keep: Callable[[], tuple[KeptPrefixes, BlockPool, Memory]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = list(range(18))
    kept, pool, memory = keep()
    blocks: list[int] = []
    pool.grow(blocks, 5)
    memory.blocks = {block: [10 + n] * 8 for n, block in enumerate(blocks)}
    pool.publish(blocks, tokens, 0, 4)
    kept.keep(Job(tokens=tokens, computed=18))
    kept.close(pool)
    ages = [path.stat().st_mtime_ns for path in tmp_path.glob("blocks/*.block")]
    content = [path.read_bytes()[-1] for path in tmp_path.glob("blocks/*.block")]
    oldest_first = [number for _, number in sorted(zip(ages, content, strict=True))]
    assert oldest_first == [13, 12, 11, 10]  # the beginning is removed last
    monkeypatch.setattr(kept_prefixes, "AT_ONCE", 8)
    kept, pool, memory = keep()
    job = Job(tokens=tokens)
    assert [kept.restore(pool, job) for _ in range(5)] == [False] * 3 + [True] * 2
    assert pool.cached(tokens) == 16
    assert sorted(memory.blocks.values()) == [[10 + n] * 8 for n in range(4)]
    assert pool.available == 8


@pytest.mark.parametrize("kept", [False, True], ids=["in memory", "on disk"])
def test_a_fork_and_a_restored_chat_count_the_tokens_that_were_cached(
    tmp_path: Path, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    profile = Profile("cache")
    backend = LocalBackend(prefix_cache_bytes=BUDGET if kept else 0)
    with Client(ModelSpec(BUNDLED, backend), profile=profile) as client:
        chat = client.chat(session_id="s")
        first = chat.send("Hello! " * 20, max_tokens=20).usage
        known = (first.prompt_tokens or 0) - 16
        assert (chat.fork().send("Bye!", max_tokens=1).usage.cached_tokens or 0) >= known
        if not kept:
            restored = client.chat(session_id="s")
            assert (restored.send("And?", max_tokens=1).usage.cached_tokens or 0) >= known
            return
    with Client(ModelSpec(BUNDLED, backend), profile=profile) as client:
        restored = client.chat(session_id="s")
        assert (restored.send("And?", max_tokens=1).usage.cached_tokens or 0) >= known
