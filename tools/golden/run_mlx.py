"""Answers a prompt with models of mlx-lm; ``tests/conversion/mlx_models.py`` starts it.

Standard input has a JSON object with the token ids of the ``prompt``, ``folders`` of models,
``texts``, and folders of ``tokenizers``. Standard output gets, for each model, the first logits
after the prompt, and the tokens that are chosen greedily, with the distances of their
log-probabilities to those of the next likeliest tokens, computed in float32; and for each
tokenizer the SHA-256 of the ids of the texts. Needs ``mlx-lm``.
"""

import hashlib
import json
import sys
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm import load
from mlx_lm.generate import generate_step
from transformers import AutoTokenizer

TOKENS, LOGITS = 24, 48


def in_float32(array: Any) -> Any:
    """An array whose floats are float32; codes stay as they are."""
    return array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array


def answer(folder: str, prompt: list[int]) -> dict[str, Any]:
    """The answer of one model."""
    model, tokenizer = load(folder)
    assert tokenizer.encode("The capital of France is")
    model.update(tree_map(in_float32, model.parameters()))
    logits = model(mx.array([prompt]))[0, -1, :LOGITS]
    tokens, margins = [], []
    for token, logarithms in generate_step(mx.array(prompt), model, max_tokens=TOKENS):
        likely = mx.sort(logarithms)
        tokens.append(int(token))
        margins.append(round(float(likely[-1] - likely[-2]), 6))
    return {
        "logits": [round(float(x), 6) for x in logits],
        "tokens": tokens,
        "margins": margins,
    }


def digest(folder: str, texts: list[str]) -> str:
    """Identifies the token ids of texts."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(text)["input_ids"] for text in texts]
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def main() -> None:
    """Answer with all models."""
    asked = json.load(sys.stdin)
    answers = {name: answer(f, asked["prompt"]) for name, f in asked["folders"].items()}
    digests = {name: digest(f, asked["texts"]) for name, f in asked["tokenizers"].items()}
    json.dump({"models": answers, "tokenizers": digests}, sys.stdout)


if __name__ == "__main__":
    main()
