"""Records how transformers tokenizes with small made tokenizers: the expectations of the tests.

    python tools/golden/make_tokenizers.py tests/tokenizer/golden

Each case is a checkpoint folder: one of a few tokenizers, with other files beside it. It needs
transformers, but not torch.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import transformers
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

CORPUS = [
    "The quick brown fox jumps over the lazy dog. 2 + 2 = 4, isn't it? 1234 12 34",
    "  Indented lines\n\tand tabs, naïve café, Straße, 今日は良い天気です。 Über",
    "She sells sea shells by the sea shore; tool pad end im image special think",
] * 4
TEXTS = [
    "The quick brown fox",
    " the  fox\n\tjumps ",
    "Über naïve CAFÉ 今日は",
    "a<|tool|>b <|tool|> c<s>d</s> e",
    "a <think> b</think>c <mask> d",
    "<|endoftext|>the [SEP] [PAD]<pad> q</q>",
    "é e\u0301 đem ĐEM",
    "",
    "a ½ cup, x² and Ⅷ, 1234.5 12 3",
    "a\u00a0b\u3000c  \u200b d\r\n\r\n e ",
    "Åse A\u030a 한 각 ﬁ ㎏ it's IT'S",
    "a" * 101 + " 今日は12天気",
]
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TOOL = {"content": "<|tool|>", "special": True}


def byte_level(
    prefix: bool = False, splits_as_qwen: bool = False, splits_digits: bool = False
) -> Tokenizer:
    """What GPT-2 and RoBERTa have; Qwen and SmolLM2 have other ways to split words."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    if splits_digits:
        digits = pre_tokenizers.Digits(individual_digits=True)
        made.pre_tokenizer = pre_tokenizers.Sequence([digits, made.pre_tokenizer])
    if splits_as_qwen:
        made.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated")
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)
        made.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator([*CORPUS, *[" £ ¿"] * 8 * splits_digits], trainer)
    return made


def byte_fallback() -> Tokenizer:
    """What Llama 2 and the first Mistral have."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>"]
    each_byte = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=[*special, *each_byte], show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    content = json.loads(made.to_str())
    content["added_tokens"] = content["added_tokens"][: len(special)]
    made = Tokenizer.from_str(json.dumps(content))
    made.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A"], special_tokens=[("<s>", 1)]
    )
    return made


def unigram(splits_at_spaces: bool = True) -> Tokenizer:
    """What XLM-RoBERTa has; some files leave out the splitting at white space."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    if splits_at_spaces:
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), made.pre_tokenizer]
        )
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=140,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        unk_token="<unk>",
        show_progress=False,
    )
    made.train_from_iterator(CORPUS, trainer)
    made.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A", "</s>"], special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return made


def word_piece(lowercase: bool = True, longest: int = 100) -> Tokenizer:
    """What BERT has."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=longest))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    made.train_from_iterator([*CORPUS, "Über CAFÉ naïve NAÏVE"], trainer)
    made.post_processor = processors.TemplateProcessing(
        single=["[CLS]", "$A", "[SEP]"], special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


BASES = {
    "byte_level": byte_level,
    "byte_level_prefix": lambda: byte_level(prefix=True),
    "qwen": lambda: byte_level(splits_as_qwen=True),
    "qwen_prefix": lambda: byte_level(prefix=True, splits_as_qwen=True),
    "digits": lambda: byte_level(splits_digits=True),
    "byte_fallback": byte_fallback,
    "unigram": unigram,
    "unigram_with_spaces": lambda: unigram(splits_at_spaces=False),
    "word_piece": word_piece,
    "word_piece_of_long_words": lambda: word_piece(longest=200),
    "word_piece_cased": lambda: word_piece(lowercase=False),
}
FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}


def case(base: str, model_type: str, config: dict[str, Any], **files: Any) -> dict[str, Any]:
    """One folder: a tokenizer, and the content of the other files."""
    contents = {f"{name}.json": content for name, content in files.items()}
    contents["config.json"] = {"model_type": model_type}
    contents["tokenizer_config.json"] = config
    return {"base": base, "files": contents}


def added(**tokens: Any) -> dict[str, Any]:
    """``added_tokens_decoder`` by id."""
    return {"added_tokens_decoder": {number[1:]: token for number, token in tokens.items()}}


CASES = {
    "plain": case("byte_level", "llama", FAST),
    "no_config": case("byte_level", "llama", {}),
    "added_token": case("byte_level", "llama", FAST | added(_400=TOOL)),
    "added_token_with_spaces": case(
        "byte_level", "llama", FAST | added(_400=TOOL | {"lstrip": True, "rstrip": True})
    ),
    "added_token_as_a_word": case(
        "byte_level", "llama", FAST | added(_400=TOOL | {"content": "q", "single_word": True})
    ),
    "added_token_that_is_text": case(
        "byte_level", "llama", FAST | added(_400={"content": "<think>", "special": False})
    ),
    "added_token_with_other_flags": case(
        "byte_level",
        "llama",
        FAST | added(_4={"content": "<mask>", "lstrip": True, "special": True}),
    ),
    "added_token_at_a_wrong_id": case("byte_level", "llama", FAST | added(_4000=TOOL)),
    "added_token_with_accents": case(
        "byte_level", "llama", FAST | added(_400={"content": "đem", "special": False})
    ),
    "added_token_normalized": case(
        "word_piece",
        "bert",
        FAST | added(_300={"content": "ĐEM", "normalized": True, "special": False}),
    ),
    "added_token_not_normalized": case(
        "word_piece",
        "bert",
        FAST | added(_300={"content": "ĐEM", "normalized": False, "special": False}),
    ),
    "added_tokens_file": case(
        "byte_level", "llama", FAST, added_tokens={"<|tool|>": 400, "</q>": 401}
    ),
    "added_tokens_file_special": case(
        "byte_level", "llama", FAST | {"eos_token": "</q>"}, added_tokens={"</q>": 400}
    ),
    "added_tokens_file_beside_the_configuration": case(
        "byte_level", "llama", FAST | added(_400=TOOL), added_tokens={"</q>": 401}
    ),
    "special_tokens_map_wins": case(
        "byte_level",
        "llama",
        FAST | {"eos_token": "<|endoftext|>"},
        special_tokens_map={"eos_token": "</s>", "bos_token": {"content": "<s>"}},
    ),
    "special_tokens_map_beside_added_tokens": case(
        "byte_level",
        "llama",
        FAST | {"eos_token": "<|endoftext|>"} | added(_400=TOOL),
        special_tokens_map={"eos_token": "</s>"},
    ),
    "special_tokens_map_with_flags": case(
        "byte_level",
        "llama",
        FAST,
        special_tokens_map={"mask_token": {"content": "<|tool|>", "lstrip": True}},
    ),
    "special_tokens_map_with_more_tokens": case(
        "byte_level", "llama", FAST, special_tokens_map={"additional_special_tokens": ["</q>"]}
    ),
    "additional_special_tokens": case(
        "byte_level", "llama", FAST | {"additional_special_tokens": ["<|tool|>", "</q>"]}
    ),
    "extra_special_tokens": case(
        "byte_level", "llama", FAST | {"extra_special_tokens": ["<|tool|>"]}
    ),
    "extra_special_tokens_by_name": case(
        "byte_level", "llama", FAST | {"extra_special_tokens": {"tool_token": "<|tool|>"}}
    ),
    "own_name": case("byte_level", "llama", FAST | {"image_token": "<|tool|>"}),
    "padding_token": case("byte_level", "llama", FAST | {"pad_token": "[PAD]"}),
    "null_tokens": case("byte_level", "llama", FAST | {"bos_token": None, "eos_token": None}),
    "split_special_tokens": case(
        "byte_level", "llama", FAST | {"split_special_tokens": True, "eos_token": "</s>"}
    ),
    "add_bos_and_eos": case(
        "byte_level",
        "llama",
        FAST
        | {"add_bos_token": True, "add_eos_token": True, "bos_token": "<s>", "eos_token": "</s>"},
    ),
    "prefix_space_of_the_general_class": case(
        "byte_level", "llama", FAST | {"add_prefix_space": True}
    ),
    "gpt2": case("byte_level", "llama", {"tokenizer_class": "GPT2Tokenizer"}),
    "gpt2_prefix_space": case(
        "byte_level", "llama", {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True}
    ),
    "gpt2_of_other_words": case("digits", "llama", {"tokenizer_class": "GPT2Tokenizer"}),
    "qwen": case("qwen", "qwen3", {"tokenizer_class": "Qwen2Tokenizer"}),
    "qwen_without_prefix_space": case(
        "qwen_prefix", "qwen3", {"tokenizer_class": "Qwen2Tokenizer"}
    ),
    "qwen_of_other_words": case("byte_level", "qwen3", {"tokenizer_class": "Qwen2Tokenizer"}),
    "qwen2_of_another_class": case("qwen_prefix", "qwen2", FAST),
    "qwen3_of_another_class": case("byte_level_prefix", "qwen3", FAST),
    "qwen2_of_the_llama_class": case(
        "qwen_prefix", "qwen2", {"tokenizer_class": "LlamaTokenizerFast"}
    ),
    "qwen3_of_the_llama_class": case(
        "qwen", "qwen3", {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": False}
    ),
    "qwen3_prefix_of_the_llama_class": case(
        "qwen_prefix", "qwen3", {"tokenizer_class": "LlamaTokenizer"}
    ),
    "qwen3_byte_fallback_of_the_llama_class": case(
        "byte_fallback", "qwen3", {"tokenizer_class": "LlamaTokenizer"}
    ),
    "mistral_byte_level": case(
        "byte_level_prefix", "mistral", {"tokenizer_class": "LlamaTokenizerFast"}
    ),
    "roberta_of_the_llama_class": case(
        "byte_level_prefix", "roberta", {"tokenizer_class": "LlamaTokenizer"}
    ),
    "llama_byte_level": case(
        "byte_level_prefix", "llama", {"tokenizer_class": "LlamaTokenizerFast"}
    ),
    "llama": case("byte_fallback", "llama", {"tokenizer_class": "LlamaTokenizer"}),
    "llama_legacy": case(
        "byte_fallback", "llama", {"tokenizer_class": "LlamaTokenizer", "legacy": True}
    ),
    "llama_without_prefix_space": case(
        "byte_fallback", "llama", {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False}
    ),
    "llama_of_the_general_class": case(
        "byte_fallback", "llama", FAST | {"add_prefix_space": False, "legacy": False}
    ),
    "mistral": case(
        "byte_fallback", "mistral", {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False}
    ),
    "bert": case("word_piece", "bert", {"tokenizer_class": "BertTokenizer"}),
    "bert_without_config": case("word_piece_cased", "bert", {}),
    "bert_cased": case(
        "word_piece", "bert", {"tokenizer_class": "BertTokenizerFast", "do_lower_case": False}
    ),
    "bert_with_accents": case(
        "word_piece", "bert", {"tokenizer_class": "BertTokenizer", "strip_accents": False}
    ),
    "bert_without_chinese_characters": case(
        "word_piece",
        "bert",
        {"tokenizer_class": "BertTokenizer", "tokenize_chinese_chars": False},
    ),
    "bert_of_the_general_class": case("word_piece_cased", "bert", FAST | {"do_lower_case": True}),
    "bert_of_long_words": case(
        "word_piece_of_long_words", "bert", {"tokenizer_class": "BertTokenizer"}
    ),
    "distilbert": case(
        "word_piece_cased", "distilbert", {"tokenizer_class": "DistilBertTokenizer"}
    ),
    "roberta": case("byte_level", "roberta", {"tokenizer_class": "RobertaTokenizer"}),
    "roberta_prefix_space": case(
        "byte_level", "roberta", {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True}
    ),
    "roberta_of_other_words": case("qwen", "roberta", {"tokenizer_class": "RobertaTokenizer"}),
    "xlm_roberta": case("unigram", "xlm-roberta", {"tokenizer_class": "XLMRobertaTokenizer"}),
    "xlm_roberta_of_bert": case("unigram", "bert", {"tokenizer_class": "XLMRobertaTokenizerFast"}),
    "xlm_roberta_without_prefix_space": case(
        "unigram",
        "xlm-roberta",
        {"tokenizer_class": "XLMRobertaTokenizer", "add_prefix_space": False},
    ),
    "xlm_roberta_of_other_words": case(
        "unigram_with_spaces", "xlm-roberta", {"tokenizer_class": "XLMRobertaTokenizer"}
    ),
    "xlm_roberta_with_other_ends": case(
        "unigram", "xlm-roberta", {"tokenizer_class": "XLMRobertaTokenizer", "eos_token": "<mask>"}
    ),
}


def recorded(made: dict[str, Any], bases: dict[str, str]) -> dict[str, Any]:
    """A case with what transformers makes of it."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        (folder / "tokenizer.json").write_text(bases[made["base"]], encoding="utf-8")
        for name, content in made["files"].items():
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        return made | {
            "ids": [tokenizer(text).input_ids for text in TEXTS],
            "plain_ids": [tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS],
            "names": tokenizer.special_tokens_map,
        }


def main() -> None:
    """Write the tokenizers, and one file with all cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    bases = {name: json.dumps(json.loads(make().to_str())) for name, make in BASES.items()}
    for name, text in bases.items():
        (out / f"{name}.tokenizer.json").write_text(text + "\n", encoding="utf-8")
    cases = {name: recorded(made, bases) for name, made in CASES.items()}
    lines = [f"{json.dumps(name)}: {json.dumps(made)}" for name, made in cases.items()]
    head = json.dumps({"transformers": transformers.__version__, "texts": TEXTS})[:-1]
    content = head + ', "cases": {\n' + ",\n".join(lines) + "\n}}\n"
    (out / "cases.json").write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
