"""Golden checkpoints, and a way to run each of them from tokens to logits."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from talu.graph.numpy_executor import NumpyExecutor
from talu.models import load_architecture
from talu.protocols import Executor
from talu.weights.checkpoint import Checkpoint

BLOCK_SIZE = 16


def _widened(raw: NDArray[np.generic], dtype: str) -> NDArray[np.float32]:
    if dtype == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw.view(np.float16).astype(np.float32) if dtype == "F16" else raw.astype(np.float32)


def _open_numpy(folder: Path, blocks: int) -> Executor:
    graph = load_architecture(folder).graph
    checkpoint = Checkpoint.open(folder)
    checkpoint.check(graph.weights)
    tensors = {
        name: _widened(checkpoint.raw(name), checkpoint.info(name).dtype) for name in graph.weights
    }
    return NumpyExecutor(graph, tensors, blocks=blocks, block_size=BLOCK_SIZE, kv_format="f32")


class Runner:
    """One sequence on an executor of its own; each call goes on where the last one ended."""

    def __init__(self, executor: Executor, blocks: int) -> None:
        self.executor = executor
        self.table = np.arange(blocks, dtype=np.int32)[None, ::-1].copy()
        self.length = 0

    def __call__(self, tokens: list[int]) -> NDArray[np.float32]:
        rows = np.arange(len(tokens), dtype=np.int32)
        starts = np.array([0, len(tokens)], np.int32)
        ids = np.array(tokens, np.int32)
        logits = self.executor.step(ids, rows + np.int32(self.length), starts, self.table, rows)
        self.length += len(tokens)
        return logits

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        tokens = [int(self(prompt)[-1].argmax())]
        while len(tokens) < count:
            tokens.append(int(self(tokens[-1:])[-1].argmax()))
        return tokens


OPENERS = {"numpy": _open_numpy}


@pytest.fixture(params=list(OPENERS))
def run(request: pytest.FixtureRequest) -> Callable[[Path], Runner]:
    """Opens a model folder with each executor: ``run(folder)(tokens)`` gives all rows' logits."""

    def opened(folder: Path, positions: int = 512) -> Runner:
        blocks = -(-positions // BLOCK_SIZE)
        runner = Runner(OPENERS[request.param](folder, blocks), blocks)
        request.addfinalizer(runner.executor.close)
        return runner

    return opened
