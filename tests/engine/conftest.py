import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file, save_file

from talu.engine.budget import CachePlan
from talu.engine.cpu import CpuDevice
from talu.engine.embedding import plan_embedder
from talu.engine.engine import Engine
from talu.engine.loading import load_network
from talu.engine.model import LoadedModel, ModelInfo
from talu.engine.scheduler import Limits
from talu.engine.vectors import load_head
from talu.graph.native_executor import NativeExecutor
from talu.graph.numpy_executor import NumpyExecutor
from talu.graph.record import Graph
from talu.models import load_architecture
from talu.protocols import Executor
from talu.sources.folder import FolderSource
from talu.tokenizer.loading import load
from talu.tokenizer.tokenizer import Tokenizer
from talu.types import LocalBackend

CONTEXT = 256
CONFIG = {
    "model_type": "qwen3",
    "vocab_size": 320,  # more rows than the tokenizer has tokens, as in real checkpoints
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "hidden_act": "silu",
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
Wrap = Callable[[Executor], Executor]


def write_checkpoint(folder: Path) -> Path:
    """A random two-layer model that reads bytes."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    random = np.random.default_rng(7)
    shapes = load_architecture(FolderSource(folder)).graph.weights
    weights = {
        name: random.normal(1.0 if len(shape) == 1 else 0.0, 0.25, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    save_file(weights, folder / "model.safetensors")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    backend.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<|im_end|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tokenizer(checkpoint: Path) -> Tokenizer:
    return Tokenizer(load(checkpoint))


@pytest.fixture(scope="session")
def tensors(checkpoint: Path) -> dict[str, Any]:
    return load_file(checkpoint / "model.safetensors")


@pytest.fixture
def new_engine(
    checkpoint: Path, tokenizer: Tokenizer, tensors: dict[str, Any]
) -> Iterator[Callable[..., Engine]]:
    """Makes engines on either executor, with as many blocks and other limits as asked."""
    engines: list[Engine] = []

    def new(
        *,
        kind: str = "numpy",
        blocks: int = 128,
        limits: Limits | None = None,
        wrap: Wrap = lambda executor: executor,
        max_requests: int = 10_000,
        speculative: bool = False,
        threads: int = 0,
        target: str = "",
    ) -> Engine:
        options = LocalBackend()
        source, device = FolderSource(checkpoint), CpuDevice(options)
        architecture, weights, _ = load_network(source, device, options)
        cache = CachePlan(blocks, 16, "f16", CONTEXT, 0)
        embedder = plan_embedder(architecture, cache)

        def executor(graph: Graph, blocks: int) -> Executor:
            if kind == "native":
                native = NativeExecutor(
                    graph,
                    weights.packed,
                    blocks=blocks,
                    block_size=16,
                    num_threads=threads,
                    target=target,
                )
                return wrap(native)
            return wrap(NumpyExecutor(graph, tensors, blocks=blocks, block_size=16))

        model = LoadedModel(
            architecture=architecture,
            tokenizer=tokenizer,
            chat_templates={},
            executor=executor(architecture.graph, blocks),
            weights=weights,
            embedder=embedder,
            open_embedder=lambda: executor(
                architecture.graph.up_to(architecture.hidden), embedder.blocks
            ),
            cache=cache,
            head=load_head((), architecture.hidden_size),
            speculative=speculative,
            info=ModelInfo(
                model_type="qwen3", parameters=0, device="cpu", target="numpy", threads=1,
                weight_format="f32", weight_bytes=0, weights_mapped=False,
                weights_from_cache=False, kv_dtype="f16", kv_bytes=0, context_length=CONTEXT,
                model_context_length=CONTEXT,
            ),
        )  # fmt: skip
        engines.append(Engine(model, limits, max_requests=max_requests))
        return engines[-1]

    yield new
    for engine in engines:
        engine.close()
