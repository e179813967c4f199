"""Another device packs the logical tensors in its own way, and runs the same networks over them."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from talu.engine import devices, loading, registry
from talu.engine.engine import Engine
from talu.engine.loading import load_model
from talu.engine.registry import acquire
from talu.graph.numpy_executor import NumpyExecutor
from talu.graph.record import Graph
from talu.sampling import SamplingParams
from talu.sources.folder import FolderSource
from talu.types import LocalBackend
from talu.weights.checkpoint import Checkpoint
from talu.weights.tensors import NUMBERS

GREEDY = SamplingParams(max_tokens=6, temperature=0.0)
ROWS = 7  # read at a time


class ToyExecutor(NumpyExecutor):
    target = "toy"
    num_threads = 1


class ToyWeights:
    """Columns where the file has rows; an executor turns them back."""

    mapped = from_cache = False
    note = None

    def __init__(self, columns: Mapping[str, NDArray[np.float32]]) -> None:
        self._columns = columns
        self.bytes = sum(array.nbytes for array in columns.values())

    def executor(self, graph: Graph, *, blocks: int, block_size: int, kv_dtype: str) -> Any:
        tensors = {name: array.T for name, array in self._columns.items()}
        return ToyExecutor(graph, tensors, blocks=blocks, block_size=block_size)

    def close(self) -> None:
        self._columns = {}


class ToyDevice:
    name = "toy:0"
    formats = ("f32",)

    def __init__(self, options: LocalBackend) -> None:
        self.layout: dict[str, str] = {}

    def check(self) -> None:
        pass

    def free_memory(self) -> int:
        return 1 << 30

    def packed_bytes(self, tensors: Checkpoint, layout: Mapping[str, str]) -> int:
        return 0

    def pack(
        self,
        tensors: Checkpoint,
        layout: Mapping[str, str],
        *,
        same: Any = None,
        calibration: Any = None,
    ) -> Any:
        self.layout = dict(layout)
        columns = {}
        for name in layout:
            rows = tensors[name].parts[NUMBERS]
            pieces = [
                rows.read(start, min(start + ROWS, rows.count)).view(np.float32)
                for start in range(0, rows.count, ROWS)
            ]
            columns[name] = np.concatenate(pieces).reshape(tensors[name].shape).T.copy()
        return ToyWeights(columns)


def tokens(engine: Engine) -> list[int]:
    return [token for piece in engine.submit([1, 2, 3], GREEDY) for token in piece.tokens]


def test_a_device_packs_and_runs_a_model_by_its_own_layout(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Engine(load_model(FolderSource(checkpoint)))) as engine:
        expected = tokens(engine)
    monkeypatch.setattr(loading, "device_for", ToyDevice)
    with closing(Engine(load_model(FolderSource(checkpoint)))) as engine:
        assert (engine.info.device, engine.info.target) == ("toy:0", "toy")
        assert tokens(engine) == expected


def test_models_on_two_devices_are_not_shared(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu = acquire(str(checkpoint))
    for module in (loading, registry):
        monkeypatch.setattr(module, "device_for", ToyDevice)
    elsewhere, same = acquire(str(checkpoint)), acquire(str(checkpoint))
    assert elsewhere.engine is not on_cpu.engine
    assert elsewhere.engine is same.engine
    assert tokens(elsewhere.engine) == tokens(on_cpu.engine)
    for lease in (on_cpu, elsewhere, same):
        lease.release()


def test_the_processor_runs_models_today() -> None:
    assert devices.device_for(LocalBackend()).name == "cpu"
