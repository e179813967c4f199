"""Compares the meaning of each key of config.json with transformers."""

import hashlib
import importlib
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from talu.exceptions import ModelError
from talu.graph.numpy_executor import NumpyExecutor
from talu.graph.record import Graph
from talu.models import load_architecture
from talu.sources.folder import FolderSource

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "golden" / "configs.json").read_text()
)
PROMPT = np.array([5, 9, 1, 33, 7, 1, 1, 12, 30, 21, 8, 2, 17, 6], np.int32)
SHOWN, COLUMNS = [0, 2, 3, 8, -1], 3
ROOT = Path(__file__).parents[2]
FILES = {"mistral": "llama", "qwen2": "qwen", "qwen3": "qwen", "roberta": "bert"} | {
    "xlm-roberta": "bert",
    "distilbert": "bert",
    "gemma2": "gemma",
    "gemma3_text": "gemma",
}
DECODERS = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")
GEMMAS = ("gemma", "gemma2", "gemma3_text")
PLAIN = ("llama", "gemma")  # decoders without windows
ACTIVATION = {"distilbert": "activation"} | dict.fromkeys(GEMMAS[1:], "hidden_activation")
NO_EFFECT = {  # transformers validates these, but the network does not depend on them
    "attention_dropout", "bos_token_id", "chunk_size_feed_forward", "classifier_dropout",
    "eos_token_id", "hidden_dropout_prob", "initializer_range", "pretraining_tp",
    "sinusoidal_pos_embds", "use_cache",
}  # fmt: skip
NO_EFFECT_HERE = {  # the same, in some families
    family: {"pad_token_id", "tie_word_embeddings"}
    - ({"tie_word_embeddings"} if family in DECODERS else set())
    - ({"pad_token_id"} if "roberta" in family else set())
    for family in RECORDED
}
NO_EFFECT_HERE["gemma3_text"].add("attn_logit_softcapping")


def lacks(family: str, key: str, value: Any, change: dict[str, Any]) -> bool:
    """Whether talu refuses, naming the key, a setting that transformers supports."""
    decoder, distilled = family in DECODERS, family == "distilbert"
    match key:
        case "hidden_act" | "activation" | "hidden_activation":
            read = key == ACTIVATION.get(family, "hidden_act")
            return read and value in ("tanh", "mish")
        case "rope_scaling" | "rope_parameters" if isinstance(value, dict):
            read = (family, key) != ("gemma3_text", "rope_parameters")  # there by kind of layer
            return read and value.get("rope_type") in ("yarn", "dynamic")
        case "num_hidden_layers" | "n_layers" if distilled or key == "num_hidden_layers":
            return value is True or (isinstance(value, int) and value < 1)
        case "num_attention_heads":
            return value is True
        case "head_dim":
            return decoder and value == 1
        case "per_layer_config":
            return isinstance(value, dict) and value != {}
        case "position_embedding_type":
            return value not in ("missing", None, "absolute")
        case "is_causal" if decoder:
            return not value and family not in PLAIN and "sliding_window" not in change
        case "is_causal" | "is_decoder" | "add_cross_attention":
            return not decoder and value != "missing" and bool(value)
        case "sliding_window" if family in PLAIN:
            return value not in ("missing", None) and "layer_types" not in change
        case "attention_chunk_size":
            return family in PLAIN and value == 1
    return False


def lacks_in_gemma(family: str, key: str, value: Any) -> bool:
    """The same, for keys that only Gemma has."""
    match key:
        case "use_bidirectional_attention":
            return value is True
        case "attn_logit_softcapping" if family == "gemma2":
            return isinstance(value, float) and value <= 0
        case "final_logit_softcapping" if family in GEMMAS[1:]:
            return isinstance(value, float) and value <= 0
        case "query_pre_attn_scalar":
            return family in GEMMAS[1:] and value == -1
        case "sliding_window_pattern" if family == "gemma3_text":
            return isinstance(value, float) or value == -1
        case "rope_scaling" if family == "gemma3_text":
            return isinstance(value, dict) and "type" in value and "rope_type" not in value
        case "rope_parameters" if family == "gemma3_text" and isinstance(value, dict):
            return bool((value.get("full_attention") or {}).get("rope_type") == "yarn")
    return False


def cases() -> list[Any]:
    """The recorded changes of each family and key."""
    found: dict[tuple[str, str], list[Any]] = {}
    for family, recorded in RECORDED.items():
        base = recorded["outcomes"][recorded["cases"][0][1]]
        for change, outcome in recorded["cases"]:
            expected = recorded["outcomes"][outcome]
            if set(change) <= NO_EFFECT | NO_EFFECT_HERE[family]:
                expected = base
            if any(
                lacks(family, key, value, change) or lacks_in_gemma(family, key, value)
                for key, value in change.items()
            ):
                expected = "refused"
            key = next(iter(change)) if len(change) == 1 else "several"
            found.setdefault((family, key), []).append((change, expected))
    return [
        pytest.param(family, changes, id=f"{family}-{key}")
        for (family, key), changes in found.items()
    ]


@pytest.mark.parametrize(("family", "changes"), cases())
def test_a_key_means_what_it_means_to_transformers(
    tmp_path: Path, family: str, changes: list[Any]
) -> None:
    for change, expected in changes:
        config = {"model_type": family} | RECORDED[family]["base"] | change
        config = {key: value for key, value in config.items() if value != "missing"}
        (tmp_path / "config.json").write_text(json.dumps(config))
        if expected == "refused" or expected == "unsteady":
            with pytest.raises(ModelError) as refusal:
                load_architecture(FolderSource(tmp_path))
            assert any(f"'{key}" in str(refusal.value) for key in {**config, **change}), change
            continue
        architecture = load_architecture(FolderSource(tmp_path))
        graph = architecture.graph
        prefix = "" if family in DECODERS else architecture.prefix
        assert digest(graph, prefix) == expected["shapes"], change
        if "states" in expected:
            result = states(graph.up_to(architecture.hidden), prefix)
            np.testing.assert_allclose(
                result, expected["states"], rtol=0, atol=3e-4, err_msg=str(change)
            )


@pytest.mark.parametrize("family", RECORDED)
def test_the_guide_names_every_key_that_is_read_or_refused(family: str) -> None:
    module = importlib.import_module(f"talu.models.{FILES.get(family, family)}")
    guide = (ROOT / "docs" / "guides" / "models.md").read_text()
    assert [key for key in module.KEYS[family] if f"`{key}`" not in guide] == []


def tensor(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The values that tools/golden/make_configs.py gives the tensor."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).integers(-99, 100, shape) / 99
    if name.endswith("bias"):
        return noise.astype(np.float32)
    if "norm" in name.lower():
        return (1 + 0.3 * noise).astype(np.float32)
    gain = 1.0 if "embed" in name else 3.0 * shape[-1] ** -0.5
    return (gain * noise).astype(np.float32)


def digest(graph: Graph, prefix: str) -> str:
    """Digest of the names and shapes of all tensors."""
    shapes = sorted([name.removeprefix(prefix), list(s)] for name, s in graph.weights.items())
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:12]


COMPUTED: dict[str, NDArray[np.float32]] = {}


def states(graph: Graph, prefix: str) -> NDArray[np.float32]:
    """Some hidden states of a network for ``PROMPT``, computed once for equal networks."""
    with np.printoptions(floatmode="unique"):
        name = repr([(op, {k: str(v) for k, v in op.params.items()}) for op in graph.ops])
    if name not in COMPUTED:
        tensors = {
            name: tensor(name.removeprefix(prefix), shape) for name, shape in graph.weights.items()
        }
        executor = NumpyExecutor(graph, tensors, blocks=1, block_size=16, kv_dtype="f32")
        rows = np.arange(len(PROMPT), dtype=np.int32)
        starts, table = np.array([0, len(PROMPT)], np.int32), np.zeros((1, 1), np.int32)
        COMPUTED[name] = executor.step(PROMPT, rows, starts, table, rows)
    return COMPUTED[name][SHOWN, :COLUMNS].ravel()
