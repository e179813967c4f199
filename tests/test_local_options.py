"""The options of a local model have the documented effect, as seen by the operating system."""

import asyncio
import subprocess
import sys
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from talu import AsyncClient, Client, LocalBackend, ModelSpec, _native
from talu.sources.resolve import BUNDLED_FOLDER

COMPUTING = """
import os, sys, threading
from talu import Client

def busy():  # nanoseconds on a processor of each thread that Python did not start
    ours = {thread.native_id for thread in threading.enumerate()}
    others = [tid for tid in os.listdir("/proc/self/task") if int(tid) not in ours]
    stat = "/proc/self/task/{}/schedstat"
    return {tid: int(open(stat.format(tid)).read().split()[0]) for tid in others}

with Client("talu/pocket", num_threads=int(sys.argv[1])) as client:
    client.ask("Hello!", max_tokens=1)
    before = busy()
    answer = client.ask("Tell me a story.", max_tokens=100, temperature=0, stop_token_ids=[])
    worked = sum(after > before.get(tid, 0) for tid, after in busy().items())
    print(worked, client.router.backend().info.threads, answer.tokens)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The model in the package as a separate folder, large enough to be stored packed."""
    monkeypatch.setenv("TALU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("talu.weights.pack.CACHE_FROM_BYTES", 0)
    return str(copytree(BUNDLED_FOLDER, tmp_path / "model"))


def mapped_files(tmp_path: Path) -> set[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {Path(line.split()[-1]).suffix for line in lines if str(tmp_path) in line}


@pytest.mark.parametrize("opening", ["first", "second"])
def test_weights_are_mapped_exactly_when_use_mmap_says_so(
    tmp_path: Path, folder: str, opening: str
) -> None:
    if opening == "second":
        with Client(folder) as client:
            client.ask("Hi", max_tokens=1)
    tokens = []
    for use_mmap, expected in ((False, set()), (True, {".packed"}), (None, {".packed"})):
        with Client(folder, use_mmap=use_mmap) as client:
            tokens.append(client.ask("Hi", max_tokens=9, temperature=0).tokens)
            assert mapped_files(tmp_path) == expected
            assert client.router.backend().info.weights_mapped is bool(expected)
        assert mapped_files(tmp_path) == set()
    assert tokens[0] == tokens[1] == tokens[2]


def test_as_many_threads_compute_as_num_threads_says_and_the_tokens_are_the_same() -> None:
    most = _native.available_threads()
    answers = set()
    for wanted in (1, 2, 0):
        command = [sys.executable, "-c", COMPUTING, str(wanted)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        helpers, said, tokens = done.stdout.split(" ", 2)
        computing = min(wanted or most, most)
        assert int(said) == computing
        assert int(helpers) == computing - 1  # the engine's thread also computes
        answers.add(tokens)
    assert len(answers) == 1


def test_speculation_gives_the_same_answer_to_both_clients() -> None:
    story = "Tell me a story about a dragon."
    settings: dict[str, Any] = {"temperature": 0.9, "seed": 4, "stop_token_ids": []}

    async def answer(model: ModelSpec | str) -> tuple[str, list[int], int | None]:
        async with AsyncClient(model) as client:
            stream = await client.chat()(story, stream=True, max_tokens=150, **settings)
            text = "".join([str(token) async for token in stream])
            assert stream.usage is not None
            return text, list(stream.tokens or ()), stream.usage.draft_tokens

    guessing = ModelSpec("talu/pocket", LocalBackend(speculative="ngram"))
    text, tokens, drafted = asyncio.run(answer(guessing))
    assert asyncio.run(answer("talu/pocket")) == (text, tokens, None)
    assert drafted is not None
    with Client(guessing) as client:
        response = client.ask(story, max_tokens=150, **settings)
        assert (response.text, list(response.tokens or ())) == (text, tokens)
