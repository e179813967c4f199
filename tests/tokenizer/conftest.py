import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from talu.tokenizer import loading
from talu.tokenizer.tokenizer import Tokenizer

CORPUS = [
    "The quick brown fox jumps over the lazy dog. 2 + 2 = 4, isn't it?",
    "  Indented lines\n\tand tabs, naïve café, Straße, 今日は良い天気です。 안녕하세요 👍🏽 é",
    "She sells sea shells by the sea shore; the shells she sells are sea shells, I'm sure.",
] * 4
SPECIAL = ["<unk>", "<s>", "</s>"]
SENTENCEPIECE = decoders.Sequence(
    [
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ]
)


def byte_level() -> Backend:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def byte_fallback() -> Backend:
    """As in Llama 2: pieces with a mark for spaces, and bytes where there is no piece."""
    backend = Backend(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = SENTENCEPIECE
    every_byte = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=[*SPECIAL, *every_byte], show_progress=False
    )
    backend.train_from_iterator(
        (line.encode("ascii", "ignore").decode() for line in CORPUS), trainer
    )
    content = json.loads(backend.to_str())  # bytes are ordinary tokens in real files
    content["added_tokens"] = content["added_tokens"][: len(SPECIAL)]
    return Backend.from_str(json.dumps(content))


def metaspace() -> Backend:
    backend = Backend(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def words() -> Backend:
    backend = Backend(models.WordLevel(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    return backend


BACKENDS: dict[str, Callable[[], Backend]] = {
    "byte_level": byte_level,
    "byte_fallback": byte_fallback,
    "metaspace": metaspace,
    "words": words,
}
CONFIG = {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>"}


@pytest.fixture(scope="session")
def tokenizers_by_kind(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    made = {}
    for kind, make in BACKENDS.items():
        backend = make()
        backend.add_tokens([AddedToken("<think>", special=False, normalized=False)])
        made[kind] = load(tmp_path_factory.mktemp(kind), backend)
    return made


def load(folder: Path, backend: Backend, **config: Any) -> Tokenizer:
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(CONFIG | config))
    return Tokenizer(loading.load(folder))


@pytest.fixture(params=[*BACKENDS])
def tokenizer(
    request: pytest.FixtureRequest, tokenizers_by_kind: dict[str, Tokenizer]
) -> Tokenizer:
    return tokenizers_by_kind[request.param]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint folder with the tokenizer's files only."""
    load(tmp_path, byte_level())
    return tmp_path
