"""What opening and closing models costs in memory: nothing that stays."""

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from talu import Client
from talu.models import load_architecture
from talu.sources.folder import FolderSource
from talu.sources.resolve import BUNDLED

TEMPLATE = "{{ messages[-1].content }}"
RESIDENT = """
import sys
from itertools import islice, product
from pathlib import Path
from talu import Client

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def talk(client):
    chat = client.chat(chat_template="{{ messages[-1].content }}")
    chat.send("Hello!", max_tokens=3)
    for piece in chat("Tell me a story.", max_tokens=20):
        break
"""
CYCLES = """
def cycle():
    with Client(sys.argv[1]) as client:
        talk(client)

for _ in range(20):
    cycle()
before = resident()
for _ in range(int(sys.argv[2])):
    cycle()
print(before, resident())
"""
WORDS = """
text = " ".join(map("".join, islice(product("abcdefgh", repeat=5), 10_000)))

def cycle():
    with Client(sys.argv[1]) as client:
        client.tokenize(text)

for _ in range(5):
    cycle()
before = resident()
for _ in range(20):
    cycle()
print(before, resident())
"""
LAST_CLOSE = """
with Client(sys.argv[1], use_mmap=False) as client:  # the libraries are loaded
    talk(client)
before = resident()
first, last = (Client(sys.argv[2], use_mmap=False) for _ in range(2))
talk(first)
talk(last)
opened = resident()
first.close()
shared = resident()
last.close()
print(before, opened, shared, resident())
"""


Measured = Callable[..., list[int]]


@pytest.fixture
def measured(tmp_path: Path) -> Measured:
    """Runs a program in a process of its own, where no other test is in the memory."""
    environment = os.environ | {"TALU_CACHE": str(tmp_path / "cache")}

    def run(program: str, *arguments: str) -> list[int]:
        command = [sys.executable, "-c", RESIDENT + program, *arguments]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.stderr == ""
        return [int(number) for number in done.stdout.split()]

    return run


@pytest.fixture
def large(checkpoint: Path, tmp_path: Path) -> Path:
    """The tiny checkpoint with so many rows in its table that it is 64 MiB."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    config = (checkpoint / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace(": 320,", f": {2**18},"))
    shapes = load_architecture(FolderSource(tmp_path)).graph.weights
    weights = {name: np.full(shape, 0.01, np.float32) for name, shape in shapes.items()}
    save_file(weights, tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Only counting references frees anything."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("model", ["tiny", BUNDLED])
def test_opening_and_closing_again_and_again_holds_memory_within_three_percent(
    model: str, checkpoint: Path, measured: Measured
) -> None:
    ref = str(checkpoint) if model == "tiny" else model
    before, after = measured(CYCLES, ref, "100" if model == "tiny" else "50")
    assert after <= 1.03 * before


def test_the_words_of_a_closed_tokenizer_do_not_stay_in_memory(measured: Measured) -> None:
    before, after = measured(WORDS, BUNDLED)
    assert after - before < 5 << 20


def test_the_last_close_gives_the_memory_of_the_engine_back(
    checkpoint: Path, large: Path, measured: Measured
) -> None:
    before, opened, shared, closed = measured(LAST_CLOSE, str(checkpoint), str(large))
    taken = opened - before
    assert taken > 60 << 20
    assert shared - before > 0.9 * taken
    assert closed - before < 0.1 * taken


def test_a_closed_client_holds_nothing_of_the_model_however_long_its_chats_live(
    checkpoint: Path, no_collector: None
) -> None:
    client = Client(str(checkpoint))
    chat = client.chat(chat_template=TEMPLATE)
    answer = chat.send("Hello!", max_tokens=3)
    stream = chat("More.", max_tokens=20)
    next(iter(stream))
    engine: Any = client.router.backend()._lease.engine
    gone = [weakref.ref(part) for part in (engine, engine.tokenizer, engine._worker._executor)]
    del engine
    client.close()
    assert [part() for part in gone] == [None] * 3
    assert answer.chat is chat
