"""Gives damaged files to the readers of model files; see README.md.

python fuzz/readers.py TARGET [options of libFuzzer] FOLDER
"""

import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["talu"]):
    from seeds import write_folder, write_seeds

    from talu import _native
    from talu.exceptions import TaluError
    from talu.models import load_architecture
    from talu.sources.folder import FolderSource
    from talu.sources.gguf import GgufSource
    from talu.sources.source import ModelSource
    from talu.weights.pack import pack_tensor
    from talu.weights.packed_file import aligned
    from talu.weights.tensors import Tensor, as_float32

MAX_NUMBERS = 1 << 18  # of one tensor: a damaged file may promise more than there is time for
PLACE = Path(tempfile.mkdtemp(prefix="talu-fuzz-"))
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e308, float("inf"), float("nan"), 2**31, 2**63,
    10**400, "", "x", "\ud800", [], {}, [0], [[]], {"": None}, [1e9] * 9,
]  # fmt: skip
FORMATS = _native.block_formats()


def use(source: ModelSource) -> None:
    """Read everything that is read when a model is opened."""
    with source.tensors(use_mmap=False) as tensors:
        names = set(tensors.names)
        for name in sorted(names):
            if tensors[name].rows * tensors[name].columns <= MAX_NUMBERS:
                read(tensors[name])
    architecture = load_architecture(source, stored=names)
    if architecture.vocabulary_size < 0:
        raise AssertionError(architecture.vocabulary_size)
    source.chat_templates()
    source.tokenizer().backend.encode("Hello, wörld! 1 2 3\n<|im_end|>")


def read(tensor: Tensor) -> None:
    """Read a tensor as numbers, and pack its blocks."""
    try:
        as_float32(tensor)
    except TaluError:
        return
    own = tensor.encoding.name.lower()
    if own in FORMATS and len(tensor.shape) == 2:
        packed = aligned(_native.packed_bytes(own, *tensor.shape))
        pack_tensor(tensor, own, packed, 1)


def gguf(data: bytes) -> None:
    """A GGUF file."""
    path = PLACE / "model.gguf"
    path.write_bytes(data)
    use(GgufSource(path))


def in_folder(name: str) -> Callable[[bytes], None]:
    """A folder in which one file is damaged."""
    folder = PLACE / name
    write_folder(folder)

    def target(data: bytes) -> None:
        (folder / name).write_bytes(data)
        use(FolderSource(folder))

    return target


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change a value of a JSON document; sometimes, and in other files always, change bytes."""
    draw = random.Random(seed)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not document or draw.random() < 0.2:
        return bytes(atheris.Mutate(data, max_size))
    place: Any = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw.choice(keys)
        inner = place[key]
        if not (isinstance(inner, dict | list) and inner and draw.random() < 0.8):
            break
        place = inner
    if draw.random() < 0.2:
        del place[key]
    else:
        place[key] = deepcopy(draw.choice([*VALUES, *document.values()]))
    return json.dumps(document).encode()[:max_size]


TARGETS: dict[str, Callable[[], Callable[[bytes], None]]] = {
    "gguf": lambda: gguf,
    "safetensors": lambda: in_folder("model.safetensors"),
    "config": lambda: in_folder("config.json"),
    "tokenizer": lambda: in_folder("tokenizer.json"),
}


def main() -> None:
    """Run one target."""
    name, *options = sys.argv[1:]
    if len(options) > 0 and not Path(options[-1]).is_file():
        write_seeds(name, Path(options[-1]))
    target = TARGETS[name]()

    def check(data: bytes) -> None:
        with suppress(TaluError):
            target(data)

    atheris.Setup(
        [sys.argv[0], "-timeout=10", "-rss_limit_mb=2048", *options], check, custom_mutator=mutate
    )
    try:
        atheris.Fuzz()
    finally:
        shutil.rmtree(PLACE)


if __name__ == "__main__":
    main()
