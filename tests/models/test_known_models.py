"""Published models: config.json is accepted, and the network has the published parameter count."""

import json
from pathlib import Path
from typing import Any

import pytest

from talu.models import load_architecture
from talu.sources.folder import FolderSource

SAVED = {
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
}
QWEN2 = SAVED | {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "max_position_embeddings": 32768,
    "max_window_layers": 24,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "use_mrope": False,
    "use_sliding_window": False,
}
LLAMA = SAVED | {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "tie_word_embeddings": False,
}
LLAMA3 = LLAMA | {
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "vocab_size": 128256,
}


GEMMA = SAVED | {
    "architectures": ["GemmaForCausalLM"],
    "model_type": "gemma",
    "attention_bias": False,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "head_dim": 256,
    "hidden_act": "gelu",
    "hidden_activation": None,
    "max_position_embeddings": 8192,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "vocab_size": 256000,
}
GEMMA2 = GEMMA | {
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "attn_logit_softcapping": 50.0,
    "cache_implementation": "hybrid",
    "final_logit_softcapping": 30.0,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
GEMMA3 = {key: value for key, value in GEMMA2.items() if key != "hidden_act"} | {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "max_position_embeddings": 32768,
    "rope_local_base_freq": 10000.0,
    "rope_theta": 1000000.0,
    "sliding_window": 512,
    "vocab_size": 262144,
}


def sizes(width: int, inner: int, layers: int, heads: int, kv_heads: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
    }


def llama3_scaling(factor: float) -> dict[str, Any]:
    return {
        "rope_scaling": {
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        }
    }


MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "Qwen2.5-0.5B": (
        QWEN2 | sizes(896, 4864, 24, 14, 2) | {"tie_word_embeddings": True, "vocab_size": 151936},
        494_032_768,
    ),
    "Qwen2.5-7B": (
        QWEN2
        | sizes(3584, 18944, 28, 28, 4)
        | {"tie_word_embeddings": False, "vocab_size": 152064},
        7_615_616_512,
    ),
    "Qwen3-0.6B": (
        QWEN2
        | sizes(1024, 3072, 28, 16, 8)
        | {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "attention_bias": False,
            "head_dim": 128,
            "max_position_embeddings": 40960,
            "rope_scaling": None,
            "sliding_window": None,
            "tie_word_embeddings": True,
            "vocab_size": 151936,
        },
        596_049_920,
    ),
    "Llama-2-7B": (
        LLAMA
        | sizes(4096, 11008, 32, 32, 32)
        | {"max_position_embeddings": 4096, "pad_token_id": 0, "vocab_size": 32000},
        6_738_415_616,
    ),
    "TinyLlama-1.1B": (
        LLAMA
        | sizes(2048, 5632, 22, 32, 4)
        | {"max_position_embeddings": 2048, "rope_theta": 10000.0, "vocab_size": 32000},
        1_100_048_384,
    ),
    "Llama-3.1-8B": (
        LLAMA3 | sizes(4096, 14336, 32, 32, 8) | llama3_scaling(8.0),
        8_030_261_248,
    ),
    "Llama-3.2-1B": (
        LLAMA3
        | sizes(2048, 8192, 16, 32, 8)
        | llama3_scaling(32.0)
        | {"head_dim": 64, "tie_word_embeddings": True},
        1_235_814_400,
    ),
    "Gemma-2B": (GEMMA | sizes(2048, 16384, 18, 8, 1), 2_506_172_416),
    "Gemma-2-2B": (GEMMA2 | sizes(2304, 9216, 26, 8, 4), 2_614_341_888),
    "Gemma-3-270M": (
        GEMMA3
        | sizes(640, 2048, 18, 4, 1)
        | {
            "_sliding_window_pattern": 6,
            "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3,
            "use_bidirectional_attention": False,
        },
        268_098_176,
    ),
    "Gemma-3-1B": (
        GEMMA3 | sizes(1152, 6912, 26, 4, 1) | {"sliding_window_pattern": 6},
        999_885_952,
    ),
    "Mistral-7B-v0.1": (
        SAVED
        | sizes(4096, 14336, 32, 32, 8)
        | {
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "sliding_window": 4096,
            "tie_word_embeddings": False,
            "vocab_size": 32000,
        },
        7_241_732_096,
    ),
}


@pytest.mark.parametrize(("config", "parameters"), MODELS.values(), ids=MODELS)
def test_a_published_model_has_its_number_of_parameters(
    tmp_path: Path, config: dict[str, Any], parameters: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    architecture = load_architecture(FolderSource(tmp_path))
    assert architecture.parameter_count == parameters
    assert architecture.notes == ()
