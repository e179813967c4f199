"""Train the tokenizer of `talu/pocket`: byte-level BPE in which every digit is a token of its own.

python tokenizer.py OUT_FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from corpus.conversation import END, START, text_of
from corpus.mixture import training
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 2048
CONVERSATIONS = 60_000
SEED = 7
SPECIAL = ("<|endoftext|>", START, END)
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def train() -> Tokenizer:
    """Return a tokenizer that was trained on the corpus."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(MARKS),
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(map(text_of, training(SEED, CONVERSATIONS)), trainer)
    tokenizer.add_tokens([_mark(text) for text in MARKS])
    return tokenizer


def _mark(text: str) -> AddedToken:
    return AddedToken(text, special=False, normalized=False)


def config() -> dict[str, object]:
    """Return what stands in `tokenizer_config.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": END,
        "pad_token": SPECIAL[0],
        "unk_token": None,
        "additional_special_tokens": [START, END],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1024,
        "chat_template": TEMPLATE.read_text(encoding="utf-8"),
    }


def main(folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    train().save(str(folder / "tokenizer.json"), pretty=False)
    text = json.dumps(config(), indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
