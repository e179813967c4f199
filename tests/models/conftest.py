"""Provides golden checkpoints and runs them from tokens to logits."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from talu import _native
from talu.engine.cpu import CpuDevice
from talu.engine.loading import load_network
from talu.graph.native_executor import NativeExecutor
from talu.graph.numpy_executor import NumpyExecutor
from talu.graph.record import Graph
from talu.models import load_architecture
from talu.protocols import Executor, PackedTensor
from talu.sources.folder import FolderSource
from talu.types import LocalBackend
from talu.weights.numbers import as_float32
from talu.weights.packed_file import aligned
from talu.weights.safetensors_folder import open_folder

BLOCK_SIZE = 16


def _plain(folder: Path) -> tuple[Graph, dict[str, NDArray[np.float32]]]:
    """The network of a folder and its weights, widened to float32 without loss."""
    architecture = load_architecture(FolderSource(folder))
    graph = architecture.graph
    checkpoint = open_folder(folder)
    checkpoint = checkpoint.renamed(architecture.names_in(checkpoint.names))
    checkpoint.check(graph.weights)
    return graph, {name: as_float32(checkpoint[name]) for name in graph.weights}


def _numpy(folder: Path, blocks: int) -> Executor:
    return NumpyExecutor(*_plain(folder), blocks=blocks, block_size=BLOCK_SIZE, kv_dtype="f32")


def _packed(array: NDArray[np.float32]) -> PackedTensor:
    if array.ndim == 1:
        return PackedTensor("vector", array.shape, array)
    data = aligned(_native.packed_bytes("f32", *array.shape))
    _native.pack("f32", array, data)
    return PackedTensor("f32", array.shape, data)


def _native_f32(folder: Path, blocks: int) -> Executor:
    graph, tensors = _plain(folder)
    packed = {name: _packed(array) for name, array in tensors.items()}
    return NativeExecutor(graph, packed, blocks=blocks, block_size=BLOCK_SIZE, kv_dtype="f32")


def _native_as_stored(folder: Path, blocks: int) -> Executor:
    options = LocalBackend(weight_format="stored")
    architecture, weights, _ = load_network(FolderSource(folder), CpuDevice(options), options)
    return NativeExecutor(architecture.graph, weights.packed, blocks=blocks, block_size=BLOCK_SIZE)


class Runner:
    """One sequence on a separate executor; each call continues where the last one ended."""

    def __init__(self, executor: Executor, blocks: int) -> None:
        self.executor = executor
        self.table = np.arange(blocks, dtype=np.int32)[None, ::-1].copy()
        self.length = 0

    def __call__(self, tokens: list[int]) -> NDArray[np.float32]:
        rows = np.arange(len(tokens), dtype=np.int32)
        starts = np.array([0, len(tokens)], np.int32)
        ids = np.array(tokens, np.int32)
        positions = rows + np.int32(self.length)
        logits = np.asarray(self.executor.step(ids, positions, starts, self.table, rows))
        self.length += len(tokens)
        return logits

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        tokens = [int(self(prompt)[-1].argmax())]
        while len(tokens) < count:
            tokens.append(int(self(tokens[-1:])[-1].argmax()))
        return tokens


OPENERS = {"numpy": _numpy, "native": _native_f32, "native as stored": _native_as_stored}


@pytest.fixture
def open_with(request: pytest.FixtureRequest) -> Callable[[str, Path], Runner]:
    """Opens a model folder for one sequence of up to 512 positions on the named executor."""

    def opened(executor: str, folder: Path) -> Runner:
        blocks = 512 // BLOCK_SIZE
        runner = Runner(OPENERS[executor](folder, blocks), blocks)
        request.addfinalizer(runner.executor.close)
        return runner

    return opened


@pytest.fixture(params=["numpy", "native"])
def run(
    request: pytest.FixtureRequest, open_with: Callable[[str, Path], Runner]
) -> Callable[[Path], Runner]:
    """Opens a model folder with each executor that computes in float32."""
    return partial(open_with, request.param)
