"""Makes the folder and the vectors of tests/test_embedding_folders.py.

Needs torch, transformers and sentence-transformers (none is a dependency of talu)::

    python tools/golden/make_sentences.py

The network is the golden BERT; tokenizer and dense modules are made here. ``variants.json`` lists
changes of the folder's files, calls, and the vectors that sentence-transformers gives then.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer

GOLDEN = Path(__file__).parents[2] / "tests" / "models" / "golden"
FOLDER = GOLDEN / "sentences"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["query", "passage", "hello", "fox", "river", "Paris", "what", "is", "the", ":"]
TEXTS = ["hello fox", "What is Paris?", "", "the river is the fox " * 12, "QUERY: Hello [MASK]"]
TANH, IDENTITY, RELU, GELU, SILU, SIGMOID = (
    f"torch.nn.modules.{name}"
    for name in ("activation.Tanh", "linear.Identity", "activation.ReLU", "activation.GELU",
                 "activation.SiLU", "activation.Sigmoid")
)  # fmt: skip
ROLES = ("pad", "unk", "cls", "sep", "mask")
TOKENIZER: dict[str, Any] = {  # tokenizer_config.json
    f"{role}_token": token for role, token in zip(ROLES, SPECIAL, strict=True)
} | {"model_max_length": 14, "tokenizer_class": "PreTrainedTokenizerFast"}
PROMPTS = {"query": "query: ", "passage": "passage: the "}


def modules(*names: str) -> list[dict[str, Any]]:
    """The content of a modules.json."""
    entries = []
    for number, name in enumerate(["Transformer", *names]):
        path = f"{number}_{name}" if number else ""
        kind = f"sentence_transformers.models.{name}"
        entries.append({"idx": number, "name": str(number), "path": path, "type": kind})
    return entries


def dense(inputs: int, outputs: int, activation: str, **others: Any) -> dict[str, Any]:
    """The content of a dense module's config.json."""
    settings = {"in_features": inputs, "out_features": outputs, "bias": True}
    return settings | {"activation_function": activation} | others


BASE: dict[str, Any] = {  # files of the folder
    "modules.json": modules("Pooling", "Dense", "Normalize"),
    "1_Pooling/config.json": {"word_embedding_dimension": 48, "pooling_mode_mean_tokens": True},
    "2_Dense/config.json": dense(48, 32, TANH),
    "sentence_bert_config.json": {"max_seq_length": 20, "do_lower_case": False},
    "config_sentence_transformers.json": {"prompts": PROMPTS},
}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # changed files, arguments
    "tanh": ({}, {}),
    "prompt by name": ({}, {"prompt_name": "query"}),
    "prompt as text": ({}, {"prompt": "Paris "}),
    "default prompt": (
        {"config_sentence_transformers.json": {"prompts": PROMPTS,
                                               "default_prompt_name": "passage"}},
        {},
    ),
    "prompt that is not pooled": (
        {"1_Pooling/config.json": {"embedding_dimension": 48, "pooling_mode": "mean",
                                   "include_prompt": False}},
        {"prompt_name": "query"},
    ),
    "first token after the prompt": (
        {"1_Pooling/config.json": {"embedding_dimension": 48, "pooling_mode": "cls",
                                   "include_prompt": False}},
        {"prompt_name": "query"},
    ),
    "cls": ({"1_Pooling/config.json": {"embedding_dimension": 48, "pooling_mode": "cls"}}, {}),
    "lasttoken": (
        {"1_Pooling/config.json": {"embedding_dimension": 48, "pooling_mode": ["lasttoken"]}}, {}
    ),
    "no pooling switched on": ({"1_Pooling/config.json": {"word_embedding_dimension": 48}}, {}),
    "identity": ({"2_Dense/config.json": dense(48, 32, IDENTITY)}, {}),
    "length 1 before the dense module": (
        {
            "modules.json": modules("Pooling", "Normalize", "Dense"),
            "3_Dense/config.json": dense(48, 32, RELU),
        },
        {},
    ),
    "two dense modules, one with a projected residual": (
        {
            "modules.json": modules("Pooling", "Dense", "Dense", "Normalize"),
            "2_Dense/config.json": dense(48, 48, TANH, use_residual=True),
            "3_Dense/config.json": dense(48, 32, IDENTITY, use_residual=True),
        },
        {},
    ),
    "vectors cut to 12 numbers": (
        {"config_sentence_transformers.json": {"truncate_dim": 12, "prompts": {}}}, {}
    ),
    "vectors cut after they are scaled to length 1": (
        {"config_sentence_transformers.json": {"truncate_dim": 12, "prompts": {}}},
        {"normalize": False},
    ),
    "predefined empty prompt": (
        {"config_sentence_transformers.json": {"prompts": {"passage": "passage: "}}},
        {"prompt_name": "query"},
    ),
    "predefined default prompt": (
        {"config_sentence_transformers.json": {"prompts": {"document": None},
                                               "default_prompt_name": "document"}},
        {},
    ),
    **{
        name: ({"2_Dense/config.json": dense(48, 32, activation)}, {})
        for name, activation in (("relu", RELU), ("gelu", GELU), ("silu", SILU),
                                 ("sigmoid", SIGMOID))
    },
    "layer norm": (
        {"modules.json": modules("Pooling", "Dense", "LayerNorm"),
         "3_LayerNorm/config.json": {"dimension": 32}},
        {"normalize": False},
    ),
    **{
        f"pooling {' + '.join(modes)}": (
            {"modules.json": modules("Pooling"),
             "1_Pooling/config.json": {"embedding_dimension": 48, "pooling_mode": modes}},
            {"normalize": False},
        )
        for modes in (["max"], ["mean_sqrt_len_tokens"], ["weightedmean"], ["cls", "mean"],
                      ["lasttoken", "max", "cls"])
    },
    "several poolings of what follows the prompt": (
        {"modules.json": modules("Pooling"),
         "1_Pooling/config.json": {"word_embedding_dimension": 48, "include_prompt": False,
                                   "pooling_mode_cls_token": True, "pooling_mode_lasttoken": True,
                                   "pooling_mode_max_tokens": True,
                                   "pooling_mode_mean_sqrt_len_tokens": True,
                                   "pooling_mode_weightedmean_tokens": True}},
        {"prompt_name": "query", "normalize": False},
    ),
    "length in the tokenizer's arguments": (
        {"sentence_bert_config.json": {"max_seq_length": 20,
                                       "tokenizer_args": {"model_max_length": 7}}},
        {},
    ),
    "texts cut at the start": (
        {"sentence_bert_config.json": {"max_seq_length": 9},
         "tokenizer_config.json": TOKENIZER | {"truncation_side": "left"}},
        {},
    ),
    "texts cut at the start by the tokenizer's arguments": (
        {"sentence_bert_config.json": {
            "max_seq_length": 9, "processor_kwargs": {"truncation_side": "left"}}},
        {},
    ),
    "keys without effect": (
        {"sentence_bert_config.json": {
            "max_seq_length": 20, "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward",
                                         "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings", "unpad_inputs": False, "query_length": 3,
            "model_args": {"attn_implementation": "eager"}, "config_args": {},
            "tokenizer_args": {"use_fast": True}, "processing_kwargs": {"image": {}}},
         "config_sentence_transformers.json": {"similarity_fn_name": "dot", "prompts": {},
                                               "__version__": {"transformers": "4.0.0"}}},
        {},
    ),
    "lower case": ({"sentence_bert_config.json": {"max_seq_length": 9, "do_lower_case": True}}, {}),
    "length of the tokenizer": ({"sentence_bert_config.json": {"do_lower_case": False}}, {}),
}  # fmt: skip


def make_folder() -> None:
    """Write everything but variants.json."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / "bert" / name, FOLDER)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("?QUERYHW")
    tokens = dict.fromkeys([*SPECIAL, *WORDS, *letters, *(f"##{letter}" for letter in letters)])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    backend.add_special_tokens(SPECIAL)
    backend.save(str(FOLDER / "tokenizer.json"))
    (FOLDER / "tokenizer_config.json").write_text(json.dumps(TOKENIZER))
    rng = np.random.default_rng(8)

    def numbers(*shape: int) -> Any:
        return (rng.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32)

    for place, outputs in (("2_Dense", (48, 32)), ("3_Dense", (32,))):
        (FOLDER / place).mkdir()
        for count in outputs:
            name = "model.safetensors" if count == 32 else "wide.safetensors"
            weights = {"linear.weight": numbers(count, 48), "linear.bias": numbers(count)}
            if place == "3_Dense":
                weights["residual.weight"] = numbers(count, 48)
            save_file(weights, str(FOLDER / place / name))
    (FOLDER / "1_Pooling").mkdir()
    (FOLDER / "3_LayerNorm").mkdir()
    norm = {"norm.weight": numbers(32), "norm.bias": numbers(32)}
    save_file(norm, str(FOLDER / "3_LayerNorm" / "model.safetensors"))


def write(folder: Path, files: dict[str, Any]) -> None:
    """Write these files as JSON."""
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def answer(changes: dict[str, Any], arguments: dict[str, Any]) -> list[list[float]]:
    """The vectors of the reference for a changed folder."""
    with tempfile.TemporaryDirectory() as place:
        folder = shutil.copytree(FOLDER, Path(place) / "model")
        write(folder, changes)
        if changes.get("2_Dense/config.json", {}).get("out_features") == 48:
            (folder / "2_Dense" / "wide.safetensors").replace(
                folder / "2_Dense" / "model.safetensors"
            )
        plain = "use_residual" not in changes.get("3_Dense/config.json", {})
        if plain and "3_Dense/config.json" in changes:
            drop_residual(folder / "3_Dense" / "model.safetensors")
        for name in ("2_Normalize", "3_Normalize", "4_Normalize"):
            (folder / name).mkdir()
        model = SentenceTransformer(str(folder), device="cpu")
        given = arguments.copy()
        vectors = model.encode(TEXTS, normalize_embeddings=given.pop("normalize", True), **given)
        return [[round(float(number), 7) for number in vector] for vector in vectors]


def drop_residual(path: Path) -> None:
    """The reference wants no tensor that it does not use."""
    weights = load_file(path)
    del weights["residual.weight"]
    save_file(weights, str(path))


def main() -> None:
    """Make the folder, and ask the reference about every variant."""
    make_folder()
    write(FOLDER, BASE)
    variants = [
        {
            "name": name,
            "files": changes,
            "arguments": arguments,
            "texts": TEXTS,
            "vectors": answer(changes, arguments),
        }
        for name, (changes, arguments) in VARIANTS.items()
    ]
    listed = ",\n".join(json.dumps(variant) for variant in variants)
    (FOLDER / "variants.json").write_text(f"[\n{listed}\n]\n")


if __name__ == "__main__":
    main()
