"""Records what transformers makes of keys of config.json, for tests/models/test_config_keys.py.

Needs torch and transformers (neither is a dependency of talu)::

    python tools/golden/make_configs.py [FAMILY ...]

For each family a small base configuration is changed one key at a time: the key is missing, null,
false, 0 or 1, or has one of the values listed here. The result is the shapes of the tensors and a
few hidden states for weights that the test makes again from the tensors' names.
"""

import hashlib
import json
import sys
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

TARGET = Path(__file__).parents[2] / "tests" / "models" / "golden" / "configs.json"
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")  # decoders
MISSING = "missing"
PROMPT = [5, 9, 1, 33, 7, 1, 1, 12, 30, 21, 8, 2, 17, 6]  # 1 is RoBERTa's padding token
SHOWN = [0, 2, 3, 8, -1]  # rows of the hidden states that are recorded
COLUMNS = 3
LARGE = 200_000  # numbers: of more only the shapes are recorded

DECODER = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 0.05,  # large enough to be missed when it is not used
    "hidden_act": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "rope_theta": 100.0,
}
ENCODER = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
    "type_vocab_size": 3,
    "layer_norm_eps": 0.05,
    "hidden_act": "silu",
}
GEMMA = DECODER | {"head_dim": 6}
GEMMA_WINDOWS = {key: value for key, value in GEMMA.items() if key != "hidden_act"} | {
    "hidden_activation": "silu",
    "query_pre_attn_scalar": 9,
    "sliding_window": 5,
}
BASES: dict[str, dict[str, Any]] = {
    "llama": DECODER,
    "mistral": DECODER | {"sliding_window": 5},
    "qwen2": DECODER | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
    "qwen3": DECODER
    | {"head_dim": 6, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
    "gemma": GEMMA,
    "gemma2": GEMMA_WINDOWS | {"attn_logit_softcapping": 2.0},
    "gemma3_text": GEMMA_WINDOWS | {"sliding_window_pattern": 2, "rope_local_base_freq": 10.0},
    "bert": ENCODER,
    "roberta": ENCODER,
    "xlm-roberta": ENCODER,
    "distilbert": {
        "vocab_size": 40,
        "dim": 16,
        "hidden_dim": 24,
        "n_layers": 2,
        "n_heads": 4,
        "max_position_embeddings": 24,
        "activation": "silu",
    },
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR = {"rope_type": "linear", "factor": 4.0}
FULL, SLIDING = "full_attention", "sliding_attention"
SIZES = (2, -1, 2.0, "2", True)
ROPES: list[Any] = [
    {},
    {"rope_theta": 1000.0},
    {"rope_theta": None},
    {"factor": 4.0},
    {"rope_type": None, "factor": 4.0},
    {"type": "linear", "factor": 4.0},
    {"type": None},
    {"type": "linear", "rope_type": "default", "factor": 4.0},
    LINEAR,
    LINEAR | {"factor": 2},
    LINEAR | {"factor": None},
    LINEAR | {"rope_theta": 1000.0, "attention_factor": 3.0},
    LINEAR | {"partial_rotary_factor": 0.5},
    LINEAR | {"partial_rotary_factor": 1.0},
    {"rope_type": "linear"},
    LLAMA3,
    LLAMA3 | {"low_freq_factor": 4.0},
    LLAMA3 | {"low_freq_factor": 5.0},
    {key: value for key, value in LLAMA3.items() if key != "original_max_position_embeddings"},
    {key: value for key, value in LLAMA3.items() if key != "low_freq_factor"},
    LLAMA3 | {"rope_type": "default"},
    {"rope_type": "default", "partial_rotary_factor": 0.5},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", "factor": 2.0},
    {"rope_type": "longrope", "factor": 2.0},
    {"rope_type": "unheard of"},
    {FULL: {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}},
    "linear",
    [1],
]
ACTIVATIONS = [
    "silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python",
    "gelu_python_tanh", "gelu_accurate", "quick_gelu", "relu", "tanh", "mish", "unheard of",
]  # fmt: skip
WINDOWS = [3, 8, -1, 64, 2.0]
LAYERS: list[Any] = [
    [FULL] * 3,
    [SLIDING] * 3,
    [SLIDING, FULL, FULL],
    [FULL] * 2,
    ["attention"] * 3,
    [FULL, FULL, "chunked_attention"],
    [FULL, FULL, "unheard of"],
    [],
]
COMMON: dict[str, list[Any]] = {
    "vocab_size": [50],
    "max_position_embeddings": [100, "100"],
    "tie_word_embeddings": [True],
    "is_causal": [True],
    "per_layer_config": [{}, {"1": {"intermediate_size": 32}}, {"1": {"intermediate_size": 24}}],
    "is_encoder_decoder": [],
    "output_hidden_states": [True],
    "use_cache": [True],
    "chunk_size_feed_forward": [2],
    "pad_token_id": [3, 100, -1],
    "bos_token_id": [3, 100],
    "eos_token_id": [3, [3, 4], 100, -1],
    "num_beams": [4],
    "temperature": [0.5],
    "unheard_of": [3, "text", {"a": 1}],
    "output_past": [True],
    "initializer_range": [0.5],
    "head_dim": [8, 5],
}
DECODERS: dict[str, list[Any]] = {
    "hidden_size": [32, *SIZES],
    "intermediate_size": [32, *SIZES],
    "num_hidden_layers": [4, *SIZES],
    "num_attention_heads": [8, *SIZES],
    "num_key_value_heads": [4, 3, *SIZES],
    "rms_norm_eps": [0.5, "0.5"],
    "hidden_act": ACTIVATIONS,
    "attention_bias": [True],
    "mlp_bias": [True],
    "attention_dropout": [0.5],
    "rope_theta": [1000, 1000.0, "1000"],
    "rope_scaling": ROPES,
    "rope_parameters": ROPES,
    "partial_rotary_factor": [0.5, 1.0],
    "original_max_position_embeddings": [16],
    "pretraining_tp": [2],
    "sliding_window": WINDOWS,
    "use_sliding_window": [True],
    "max_window_layers": [2, 3, 28, -1],
    "layer_types": LAYERS,
    "attention_chunk_size": [4],
    "kv_sharing_modes": [["reuse"] * 3],
    "attn_logit_softcapping": [30.0],
    "logits_soft_cap": [30.0],
    "embedding_multiplier": [12],
    "num_experts": [8],
}
GEMMAS: dict[str, list[Any]] = {
    "hidden_activation": ACTIVATIONS,
    "query_pre_attn_scalar": [16, *SIZES],
    "attn_logit_softcapping": [3.0, -3.0, 3, "3.0"],
    "final_logit_softcapping": [3.0, 0.0, -3.0, "3.0"],
    "sliding_window_pattern": [3, 4, -1, 2.0],
    "rope_local_base_freq": [1000, 1000.0, "1000"],
    "use_bidirectional_attention": [True],
}
GEMMA_ROPES: list[Any] = [
    {FULL: {"rope_theta": 50.0}},
    {FULL: None, SLIDING: {"rope_theta": 50.0}},
    {FULL: LINEAR, SLIDING: None},
    {FULL: {"rope_type": "default"}, SLIDING: LINEAR | {"rope_theta": 50.0}},
    {FULL: {"rope_type": "yarn", "factor": 2.0}},
]
ENCODERS: dict[str, list[Any]] = {
    "hidden_size": [32, *SIZES],
    "intermediate_size": [32, *SIZES],
    "num_hidden_layers": [3, *SIZES],
    "num_attention_heads": [8, 3, *SIZES],
    "max_position_embeddings": [40],
    "type_vocab_size": [2],
    "layer_norm_eps": [0.5],
    "hidden_act": ACTIVATIONS,
    "is_decoder": [True],
    "add_cross_attention": [True],
    "position_embedding_type": ["absolute", "relative_key", "relative_key_query", "unheard of"],
    "embedding_size": [8],
    "hidden_dropout_prob": [0.5],
    "classifier_dropout": [0.5],
    "sinusoidal_pos_embds": [True],
    "activation": ACTIVATIONS,
    "dim": [32, *SIZES],
    "hidden_dim": [32, *SIZES],
    "n_layers": [3, *SIZES],
    "n_heads": [8, 3, *SIZES],
}
TOO_SMALL = [("vocab_size", 1), ("max_position_embeddings", 0), ("max_position_embeddings", 1)]
TOGETHER: dict[str, list[dict[str, Any]]] = {  # changes of several keys
    "all decoders": [
        {"rope_scaling": LINEAR, "rope_parameters": LLAMA3},
        {"rope_scaling": LINEAR, "rope_theta": 1000.0},
        {"rope_parameters": LINEAR | {"rope_theta": 1000.0}, "rope_theta": 10.0},
        {"rope_scaling": LLAMA3, "original_max_position_embeddings": 32},
        {"rope_scaling": LINEAR, "partial_rotary_factor": 0.5},
        {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 4},
        {"is_causal": False, "sliding_window": None, "use_sliding_window": False},
        {"is_causal": False, "sliding_window": 63},
        {"is_causal": False, "sliding_window": 64},
        {"layer_types": [FULL] * 3, "sliding_window": None, "use_sliding_window": False},
        {"layer_types": [FULL] * 3, "sliding_window": 3, "use_sliding_window": False},
        {"layer_types": [SLIDING, FULL, SLIDING], "sliding_window": 3},
        {"layer_types": [SLIDING] * 3, "use_sliding_window": False},
        {"layer_types": [SLIDING] * 3, "sliding_window": None},
        {"attention_chunk_size": 4, "sliding_window": None},
    ],
    "qwen2": [{"use_sliding_window": False, "max_window_layers": 0}],
    "qwen3": [{"use_sliding_window": False, "max_window_layers": 0}],
    "roberta": [{"pad_token_id": 7}, {"pad_token_id": 23}, {"pad_token_id": 30}],
}


def variants(family: str) -> list[dict[str, Any]]:
    """The changes that are tried; a key with the value ``MISSING`` is left out."""
    decoder = family in FAMILIES
    changes: list[dict[str, Any]] = [{}]
    table = COMMON | (DECODERS if decoder else ENCODERS)
    if family.startswith("gemma"):
        table |= GEMMAS | {"rope_parameters": [*ROPES, *GEMMA_ROPES]}
    for key, values in table.items():
        changes += [
            {key: value}
            for value in (MISSING, None, False, 0, 1, *values)
            if (key, value) not in TOO_SMALL
        ]
    if family in ("gemma2", "gemma3_text"):
        changes.remove({"num_hidden_layers": MISSING})  # 26 random layers are never steady
    return changes + TOGETHER["all decoders"] * decoder + TOGETHER.get(family, [])


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The values of a tensor; tests/models/test_config_keys.py makes the same."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).integers(-99, 100, shape) / 99
    if name.endswith("bias"):
        return noise.astype(np.float32)
    if "norm" in name.lower():
        return (1 + 0.3 * noise).astype(np.float32)
    gain = 1.0 if "embed" in name else 3.0 * shape[-1] ** -0.5
    return (gain * noise).astype(np.float32)


def shapes_of(model: Any, tied: bool) -> dict[str, tuple[int, ...]]:
    """The tensors that hidden states and logits are made of, named as talu names them."""
    shapes = {
        name: tuple(value.shape)
        for name, value in model.named_parameters(remove_duplicate=False)
        if "pooler." not in name
    }
    if tied:
        shapes.pop("lm_head.weight", None)
    return shapes


@torch.no_grad()
def outcome(config: dict[str, Any]) -> Any:
    """``"refused"``, ``"unsteady"``, or shapes and hidden states."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        try:
            read = transformers.AutoConfig.from_pretrained(folder)
            decoder = config["model_type"] in FAMILIES
            kind = transformers.AutoModelForCausalLM if decoder else transformers.AutoModel
            with torch.device("meta"):
                model = kind.from_config(read, attn_implementation="eager", dtype=torch.float32)
            shapes = shapes_of(model, decoder and read.tie_word_embeddings)
            text = json.dumps(sorted((name, list(shape)) for name, shape in shapes.items()))
            digest = hashlib.sha256(text.encode()).hexdigest()[:12]
            if sum(int(np.prod(shape)) for shape in shapes.values()) > LARGE:
                return {"shapes": digest}
            model = kind.from_config(read, attn_implementation="eager", dtype=torch.float32).eval()
            for name, value in model.named_parameters():
                value.data = torch.from_numpy(tensor(name, tuple(value.shape)))
            base = model.model if decoder else model
            states = base(input_ids=torch.tensor([PROMPT])).last_hidden_state[0]
            if decoder and getattr(read, "is_causal", True) and not steady(base, states):
                return "unsteady"
        except Exception as error:  # noqa: BLE001 - whatever the class or the network raises
            print(f"    {type(error).__name__}: {str(error).strip().splitlines()[0][:110]}")
            return "refused"
    shown = states[SHOWN, :COLUMNS].numpy()
    if not np.isfinite(states.numpy()).all():
        return "refused"
    return {"shapes": digest, "states": [round(float(x), 4) for x in shown.ravel()]}


def steady(base: Any, states: Any) -> bool:
    """Whether token after token through the cache gives the states of the whole prompt."""
    cache = transformers.DynamicCache(config=base.config)
    rows = [
        base(input_ids=torch.tensor([[token]]), cache=cache, use_cache=True).last_hidden_state[0, 0]
        for token in PROMPT
    ]
    return bool(torch.allclose(torch.stack(rows), states, atol=1e-4))


def main() -> None:
    """Write the file."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity(50)
    torch.set_num_threads(1)
    recorded: dict[str, Any] = json.loads(TARGET.read_text())
    for family in sys.argv[1:] or BASES:
        base = BASES[family]
        outcomes: list[Any] = []
        cases = []
        for change in variants(family):
            config = {"model_type": family} | base | change
            config = {key: value for key, value in config.items() if value != MISSING}
            print(family, json.dumps(change))
            result = outcome(config)
            if result not in outcomes:
                outcomes.append(result)
            cases.append([change, outcomes.index(result)])
        recorded[family] = {"base": base, "outcomes": outcomes, "cases": cases}
    TARGET.write_text(as_text({family: recorded[family] for family in BASES}))


def as_text(recorded: dict[str, Any]) -> str:
    """JSON with a line for each case."""
    families = []
    for family, parts in recorded.items():
        lists = [
            f'  "{name}": [\n' + ",\n".join(f"   {json.dumps(x)}" for x in parts[name]) + "\n  ]"
            for name in ("outcomes", "cases")
        ]
        base = f'  "base": {json.dumps(parts["base"])}'
        families.append(f' "{family}": {{\n' + ",\n".join([base, *lists]) + "\n }")
    return "{\n" + ",\n".join(families) + "\n}\n"


if __name__ == "__main__":
    main()
