"""Long contexts: memory, prefill and decode after it, of talu and llama.cpp in turn.

    python benchmarks/attention.py [FILE ...] [--threads 2] [--rounds 5] [--lengths 512 4096]

Both run with keys and values in 16 bits and in 8, each in a process of its own, and sleep while
another one works. llama.cpp chooses flash attention by itself. ``--quality`` prints what 8 bits
cost instead: the divergence of the predictions for texts of the guides from those with f32, of
pocket and of SmolLM2 with its weights in f32.
"""

import argparse
import json
import statistics
import tempfile
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from files import default_files
from machine import commit, machine
from peers import LlamaCpp, Talu, random_prompt
from quality import divergences, exact_models, paragraphs, source_of
from workers import Maker, Worker

from talu.engine.loading import load_model
from talu.sampling import SamplingParams
from talu.types import KVDtype, LocalBackend

DECODE = 24
MEMORY_CONTEXT = 2048
TOKENS = 480  # of a text, for the quality
Figures = dict[str, float]


class Resident:
    """An engine in this process."""

    def resident(self) -> float:
        """Megabytes of this process that are in memory."""
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


class LongTalu(Talu, Resident):
    """talu with long prompts."""

    def long(self, length: int, seed: int) -> Figures:
        """Tokens per second of a prompt and of the answer to it."""
        params = SamplingParams(max_tokens=DECODE + 1, temperature=0.0)
        with closing(self._engine.submit(random_prompt(length, seed), params)) as ticket:
            list(ticket)
        assert ticket.result is not None
        times = ticket.result.timings
        assert times.prefill_ms is not None
        assert times.tokens_per_second is not None
        return {
            "prefill": 1000 * length / times.prefill_ms,
            "decode": times.tokens_per_second,
        }


class LongLlamaCpp(LlamaCpp, Resident):
    """llama.cpp with long prompts."""

    def long(self, length: int, seed: int) -> Figures:
        """See ``LongTalu``."""
        times = self.complete(random_prompt(length, seed), DECODE + 1)
        return {
            "prefill": float(times["prompt_per_second"]),
            "decode": 1000 * DECODE / times["predicted_ms"],
        }


def talu(file: Path, threads: int, context: int, *, kv_dtype: KVDtype) -> Talu:
    """talu; it plans its cache by itself."""
    del context
    return LongTalu(file, threads, kv_dtype=kv_dtype)


def llama_cpp(file: Path, threads: int, context: int, *, kv_dtype: KVDtype) -> LlamaCpp:
    """llama.cpp's own server code."""
    return LongLlamaCpp(file, threads, context, kv_dtype=kv_dtype)


def makers() -> list[Maker]:
    """What opens each engine with each format."""
    return [partial(make, kv_dtype=kind) for kind in ("f16", "q8") for make in (talu, llama_cpp)]


@dataclass
class Row:
    """What one engine reached after prompts of one length; a figure for each round."""

    file: str
    engine: str
    length: int
    figures: dict[str, list[float]] = field(default_factory=dict)


def measure(file: Path, lengths: list[int], threads: int, rounds: int) -> list[Row]:
    """Run every engine with the file, in turn in every round."""
    context = max(MEMORY_CONTEXT, max(lengths) + 2 * DECODE)
    workers = [Worker(make, file, threads, context) for make in makers()]
    try:
        rows = []
        for length in lengths:
            here = [Row(file.name, worker.name, length) for worker in workers]
            for number in range(rounds + 1):
                for worker, row in zip(workers, here, strict=True):
                    found = worker.ask("long", length, number)
                    for name, value in found.items() if number > 0 else ():
                        row.figures.setdefault(name, []).append(value)
            rows += here
        return rows
    finally:
        for worker in workers:
            worker.close()


def memory(file: Path, threads: int) -> list[Row]:
    """Memory of a new process after one prompt that nearly fills its context."""
    length = MEMORY_CONTEXT - 2 * DECODE
    rows = []
    for make in makers():
        worker = Worker(make, file, threads, MEMORY_CONTEXT)
        rows.append(Row(file.name, worker.name, length))
        worker.ask("long", length, 0)
        rows[-1].figures["megabytes"] = [worker.ask("resident")]
        worker.close()
    return rows


def report(rows: list[Row]) -> None:
    """Print medians, minimum and maximum, and talu's median with the same bits divided by it."""
    for row in rows:
        bits = row.engine.partition("cache in ")[2]
        ours = next(
            each
            for each in rows
            if each.length == row.length
            and each.engine.startswith("talu")
            and each.engine.endswith(bits)
        )
        cells = []
        for name, values in row.figures.items():
            middle = statistics.median(values)
            ratio = statistics.median(ours.figures[name]) / middle
            cells.append(
                f"{name} {middle:.1f} ({min(values):.1f} to {max(values):.1f}; {ratio:.2f})"
            )
        print(f"{row.file} after {row.length:6}: {row.engine}: " + ", ".join(cells))


def quality(name: str, file: Path) -> None:
    """Print the mean and the 99th percentile of the divergence from keys and values in f32."""
    texts = paragraphs()
    whole = ["\n\n".join(texts[i : i + 12]) for i in range(0, 36, 12)]
    exact: list[Any] = []
    for kind in get_args(KVDtype)[1:]:
        options = LocalBackend(weight_format="stored", kv_dtype=kind)
        model = load_model(source_of(file), options)
        found = []
        for text in whole:
            ids = np.array(model.tokenizer.encode(text)[:TOKENS], np.int32)
            rows = np.arange(len(ids), dtype=np.int32)
            table = np.arange(-(-TOKENS // 16), dtype=np.int32)[None]
            starts = np.array([0, len(ids)], np.int32)
            logits = model.executor.step(ids, rows, starts, table, rows)
            found.append(logits.astype(np.float64))
        if kind == "f32":
            exact = found
        else:
            error = divergences(exact, found)
            print(
                f"{name}, {kind}: {len(error)} tokens, mean {error.mean():.2g}, "
                f"99 % {np.quantile(error, 0.99):.2g}, {model.info.kv_bytes} bytes of cache for "
                f"{model.cache.blocks * model.cache.block_size} tokens",
                flush=True,
            )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 4096, 8000])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quality", action="store_true")
    arguments = parser.parse_args()
    where = {"machine": machine(), "commit": commit(), "threads": arguments.threads}
    if not arguments.json:
        print(*(f"{name}: {value}" for name, value in where.items()), sep="\n")
    if arguments.quality:
        with tempfile.TemporaryDirectory() as folder:
            models = exact_models(Path(folder))
            for name in ("pocket", "smollm2"):
                quality(name, models[name]())
        return
    results = []
    for file in arguments.files or default_files():
        rows = memory(file, arguments.threads)
        rows += measure(file, arguments.lengths, arguments.threads, arguments.rounds)
        results += rows
        if not arguments.json:
            report(rows)
    if arguments.json:
        print(json.dumps(where | {"results": [asdict(row) for row in results]}))


if __name__ == "__main__":
    main()
