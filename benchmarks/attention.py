"""Long contexts: prefill and decode at a depth, and memory, of talu and llama.cpp in turn.

    python benchmarks/attention.py [FILE ...] [--threads 2] [--rounds 5] [--lengths 512 1984]
        [--kv f16 q8] [--decode 24] [--json]
    python benchmarks/attention.py --quality [--json]

A prompt of each length is computed once by every engine, which keeps it. The rounds measure the
last 512 tokens of such a prompt, which differ between rounds, and the answer to it; so a prompt of
32,768 tokens can be measured in minutes. Each engine runs with keys and values in 16 bits and in 8,
in a process of its own. llama.cpp chooses flash attention by itself.

``--quality`` prints what the formats cost instead: the divergence of the predictions for texts of
the guides from those with f32, of pocket and of SmolLM2 with its weights in f32.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import numpy as np
from command import Report, in_turn, options, spread
from files import default_files
from peers import LlamaCpp, Talu
from quality import divergences, exact_models, paragraphs, source_of
from workers import Worker

from talu.engine.loading import load_model
from talu.types import KVDtype, LocalBackend

LAST = 512  # tokens of a prompt that the rounds measure
MEMORY_CONTEXT = 2048
TOKENS = 480  # of a text, for the quality


def talu(file: Path, threads: int, context: int, *, kv_dtype: KVDtype) -> Talu:
    """talu; it plans its cache by itself."""
    del context
    return Talu(file, threads, kv_dtype=kv_dtype)


def llama_cpp(file: Path, threads: int, context: int, *, kv_dtype: KVDtype) -> LlamaCpp:
    """llama.cpp's own server code."""
    return LlamaCpp(file, threads, context, kv_dtype=kv_dtype)


@dataclass
class Row:
    """What one engine reached with prompts of one length; a figure for each round.

    Attributes:
        file: the model.
        engine: the name of the engine.
        kv_dtype: format of keys and values.
        length: tokens of the prompt.
        figures: ``"whole"``: tokens per second of what the prompt has beyond that of the length
            before; ``"prefill"``: of its last tokens; ``"decode"``; and ``"megabytes"``.
    """

    file: str
    engine: str
    kv_dtype: str
    length: int
    figures: dict[str, list[float]] = field(default_factory=dict)


def opened(file: Path, given: argparse.Namespace, context: int) -> Iterator[tuple[Worker, KVDtype]]:
    """Every engine with each format, in a new process."""
    for kind in given.kv:
        for make in (talu, llama_cpp):
            yield Worker(partial(make, kv_dtype=kind), file, given.threads, context), kind


def measure(file: Path, given: argparse.Namespace) -> Iterator[list[Row]]:
    """Run every engine with the file, in turn in every round; the rows of each length."""
    context = max(MEMORY_CONTEXT, max(given.lengths) + given.decode + 64)
    workers = list(opened(file, given, context))
    try:
        for length in sorted(given.lengths):
            history = max(0, length - LAST)
            here = [Row(file.name, worker.name, kind, length) for worker, kind in workers]
            if history:
                for row, (worker, _) in zip(here, workers, strict=True):
                    row.figures["whole"] = [worker.ask("answer", history, 0, 0, history)[0]]
            asked: list[Any] = [partial(ask, w, length, given.decode, history) for w, _ in workers]
            for row, pairs in zip(here, in_turn(asked, given.rounds), strict=True):
                row.figures["prefill"], row.figures["decode"] = map(list, zip(*pairs, strict=True))
            yield here
    finally:
        for worker, _ in workers:
            worker.close()


def ask(worker: Worker, length: int, count: int, history: int, number: int) -> Any:
    """The rates of an answer."""
    return worker.ask("answer", length, count, number, history)


def memory(file: Path, given: argparse.Namespace) -> list[Row]:
    """Memory of a new process after one prompt that nearly fills its context."""
    length = MEMORY_CONTEXT - 2 * given.decode
    rows = []
    for worker, kind in opened(file, given, MEMORY_CONTEXT):
        worker.ask("answer", length, given.decode, 0)
        rows.append(Row(file.name, worker.name, kind, length, {"megabytes": [worker.resident()]}))
        worker.close()
    return rows


def lines(rows: list[Row]) -> Iterator[str]:
    """Medians, minimum and maximum, and talu's median with the same format divided by it."""
    for row in rows:
        same = (each for each in rows if (each.length, each.kv_dtype) == (row.length, row.kv_dtype))
        ours = next(each for each in same if each.engine.startswith("talu"))
        cells = []
        for name, values in row.figures.items():
            ratio = statistics.median(ours.figures[name]) / statistics.median(values)
            cells.append(f"{name} {spread(values)}, {ratio:.2f}")
        yield f"{row.file}, {row.length:6} tokens: {row.engine}: " + "; ".join(cells)


def quality(name: str, file: Path) -> Iterator[dict[str, Any]]:
    """The divergence from keys and values in f32."""
    texts = paragraphs()
    whole = ["\n\n".join(texts[i : i + 12]) for i in range(0, 36, 12)]
    exact: list[Any] = []
    for kind in get_args(KVDtype)[1:]:
        model = load_model(source_of(file), LocalBackend(weight_format="stored", kv_dtype=kind))
        found = []
        for text in whole:
            ids = np.array(model.tokenizer.encode(text)[:TOKENS], np.int32)
            rows = np.arange(len(ids), dtype=np.int32)
            table = np.arange(-(-TOKENS // 16), dtype=np.int32)[None]
            starts = np.array([0, len(ids)], np.int32)
            logits = model.executor.step(ids, rows, starts, table, rows)
            found.append(np.array(logits, np.float64))
        if kind == "f32":
            exact = found
            continue
        error = divergences(exact, found)
        bytes_per_token = model.info.kv_bytes / (model.cache.blocks * model.cache.block_size)
        yield {
            "model": name,
            "kv_dtype": kind,
            "tokens": len(error),
            "mean": float(error.mean()),
            "p99": float(np.quantile(error, 0.99)),
            "bytes_per_token": bytes_per_token,
        }


def qualities(report: Report) -> None:
    """Print the table of the formats."""
    results = []
    report.line("| model | keys and values | tokens | mean | 99 % | bytes a token |")
    report.line("|---|---|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        models = exact_models(Path(folder))
        for name in ("pocket", "smollm2"):
            for row in quality(name, models[name]()):
                results.append(row)
                report.line(
                    f"| {name} | {row['kv_dtype']} | {row['tokens']} | {row['mean']:.2g} | "
                    f"{row['p99']:.2g} | {row['bytes_per_token']:,.0f} |"
                )
    report.end(results)


def main() -> None:
    """Command line."""
    parser = options(__doc__, rounds=5)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1984])
    parser.add_argument("--kv", nargs="+", choices=["f16", "q8"], default=["f16", "q8"])
    parser.add_argument("--decode", type=int, default=24, help="tokens of an answer")
    parser.add_argument("--quality", action="store_true")
    given = parser.parse_args()
    if given.quality:
        qualities(Report(given, "divergence from keys and values in f32"))
        return
    given.files = given.files or default_files()[:1]
    title = "tokens per second: median (minimum to maximum), talu's median divided by this one"
    report = Report(given, title)
    results = []
    for file in given.files:
        for rows in chain([memory(file, given)], measure(file, given)):
            results += [asdict(row) for row in rows]
            for line in lines(rows):
                report.line(line)
    report.end(results)


if __name__ == "__main__":
    main()
