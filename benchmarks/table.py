"""The table of one network in several formats: prefill, decode and memory of talu and its peers.

    python benchmarks/table.py [--threads 2] [--rounds 5] [--long-rounds 3] [--bits 4 8 16]
        [--plot FILE] [--json]

The network has the shape of Qwen3-0.6B and random weights. Engines with about the same number of
bits run in turn, each in a process of its own, and so does a probe of what the machine reads and
multiplies at most. talu's own format, ``q4``, is compared with the Q4_0 of llama.cpp and with the
fastest format of ik_llama.cpp, which takes part if ``ik-llama-cpp-python`` is installed. Memory is
that of a new process after a prompt that nearly fills a context of 2,048.
"""

import importlib
import importlib.util
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from command import Report, in_turn, options, spread
from files import quantised
from gguf_files import agreement
from make_checkpoint import CONFIG, default_folder, tensor_shapes
from peers import IkLlamaCpp, Talu, llama_cpp
from workers import Maker, Worker

from talu import _native
from talu.engine.profiling import CEILINGS, measure_ceilings
from talu.types import WeightFormat

PREFILL, DECODE = 512, 24
LONG = 4_096
MEMORY = 2_048
CONTEXT = LONG + 64
OWN = ("q4",)
WEIGHTS = {4: ("q4", "Q4_0", "Q4_K_M"), 8: ("Q8_0",), 16: ("bf16",)}  # by bits
NATIVE = {4: "q4_0", 8: "q8_0", 16: "bf16"}  # a native format, which tells what is multiplied
LONG_WEIGHTS = ("q4", "Q4_0")
TALU, LLAMA, IK = "talu", "llama.cpp", "ik_llama.cpp"
MATRICES = sum(prod(shape) for name, shape in tensor_shapes().items() if "_proj" in name)
KV_BYTES = 2 * 2 * CONFIG["num_hidden_layers"] * CONFIG["num_key_value_heads"] * CONFIG["head_dim"]


def talu(file: Path, threads: int, context: int, *, weight_format: WeightFormat) -> Talu:
    """talu; it plans its cache by itself."""
    del context
    return Talu(file, threads, weight_format)


class Probe:
    """Measures what the machine can do at most."""

    name = "the machine"

    def __init__(self, file: Path, threads: int) -> None:
        del file
        self._threads = threads

    def limits(self, numbers: str) -> tuple[float, float]:
        """Bytes that are read, and numbers that are multiplied, in a second."""
        found = measure_ceilings(self._threads)
        return found.bytes_per_second, found.operations_per_second[numbers]

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class Entry:
    """An engine with weights in a format, and its process."""

    library: str
    weights: str
    worker: Worker

    @property
    def compared(self) -> str:
        """The weights of other engines that it is compared with."""
        return "Q4_0" if self.weights in OWN else self.weights


@dataclass
class Row:
    """What the engines reached in one test, a figure for each round.

    Attributes:
        test: what was measured.
        weights: talu's.
        others: the weights of each other library, where they differ.
        figures: by library.
        share: of the limit of the machine that talu reaches.
    """

    test: str
    weights: str
    others: dict[str, str] = field(default_factory=dict)
    figures: dict[str, list[float]] = field(default_factory=dict)
    share: str = ""

    def cells(self) -> Iterator[str]:
        """The cells of its line."""
        ours = self.figures[TALU]
        yield f"{self.test}, {self.weights}"
        yield spread(ours)
        yield self.share
        for library in (LLAMA, IK):
            theirs = self.figures.get(library)
            name = self.others.get(library, self.weights)
            note = "" if name == self.weights else f" {name}"
            yield spread(theirs) + note if theirs else ""
            yield f"{statistics.median(ours) / statistics.median(theirs):.2f}" if theirs else ""


def entries(bits: int, threads: int, context: int, *, with_ik: bool = True) -> Iterator[Entry]:
    """Open every engine with every format of so many bits."""
    for weights in WEIGHTS[bits]:
        own = weights in OWN
        file = default_folder() if own else quantised(weights)
        engine = partial(talu, weight_format=weights if own else "auto")
        makers: dict[str, Maker] = {TALU: engine}
        if not own:
            makers[LLAMA] = llama_cpp()
            if with_ik and importlib.util.find_spec("ik_llama_cpp"):
                makers[IK] = IkLlamaCpp
        for library, maker in makers.items():
            yield Entry(library, weights, Worker(maker, file, threads, context))


def rows_of(test: str, all_entries: Sequence[Entry], figures: Sequence[list[float]]) -> list[Row]:
    """Compare each format of talu with the others: a format of its own with their fastest ones."""
    found = dict(zip(((each.library, each.weights) for each in all_entries), figures, strict=True))
    rows = []
    for entry in all_entries:
        if entry.library != TALU:
            continue
        row = Row(test, entry.weights, figures={TALU: found[TALU, entry.weights]})
        peers = {LLAMA: entry.compared, IK: entry.compared}
        if entry.weights in OWN:
            rates = {w: statistics.median(f) for (library, w), f in found.items() if library == IK}
            peers[IK] = max(rates, key=lambda weights: rates[weights], default="")
        for library, weights in peers.items():
            if (library, weights) in found:
                row.figures[library] = found[library, weights]
                row.others[library] = weights
        rows.append(row)
    return rows


def measure(bits: int, given: Any, report: Report) -> tuple[list[Row], dict[str, Any]]:
    """All tests of the formats with so many bits, and the limits of the machine."""
    all_entries = list(entries(bits, given.threads, CONTEXT))
    probe = Worker(Probe, default_folder(), given.threads)
    numbers = CEILINGS.get(_native.activation_format(NATIVE[bits]), "i8")
    try:
        for entry in all_entries:
            same = agreement(all_entries[0].worker, entry.worker)
            report.line(f"{entry.weights}: {entry.worker.name}: {same}")
        answers: list[Any] = [
            partial(entry.worker.ask, "answer", PREFILL, DECODE) for entry in all_entries
        ]
        *pairs, limits = in_turn([*answers, lambda _: probe.ask("limits", numbers)], given.rounds)
        prefill, decode = ([[p[i] for p in each] for each in pairs] for i in (0, 1))
        reads, multiplies = (max(each) for each in zip(*limits, strict=True))
        rows = rows_of(f"prefill of {PREFILL}", all_entries, prefill)
        of_decode = rows_of(f"decode of {DECODE} after {PREFILL}", all_entries, decode)
        if bits == 4 and given.long_rounds:
            some = [each for each in all_entries if each.weights in LONG_WEIGHTS]
            asked = [partial(each.worker.ask, "prefill", LONG) for each in some]
            rates = in_turn(asked, given.long_rounds, warm=True)
            rows += rows_of(f"prefill of {LONG}", some, rates)
        for row in rows:
            share = MATRICES * statistics.median(row.figures[TALU]) / multiplies
            row.share = f"{share:.0%} of {numbers}"
        sizes = {e.weights: e.worker.ask("weight_bytes") for e in all_entries if e.library == TALU}
        for row in of_decode:
            read = sizes[row.weights] + KV_BYTES * (PREFILL + DECODE // 2)
            row.share = f"{read * statistics.median(row.figures[TALU]) / reads:.0%} of reading"
        return rows + of_decode, {"bytes_per_second": reads, f"{numbers}_per_second": multiplies}
    finally:
        for worker in (probe, *(each.worker for each in all_entries)):
            worker.close()


def memory(threads: int) -> list[Row]:
    """Megabytes of new processes."""
    found, measured = [], []
    for entry in entries(4, threads, MEMORY, with_ik=False):
        entry.worker.ask("answer", MEMORY - 2 * DECODE, DECODE, 0)
        found.append(entry)
        measured.append([entry.worker.resident()])
        entry.worker.close()
    return rows_of(f"resident MB at {MEMORY}", found, measured)


def write(report: Report, rows: Sequence[Row]) -> None:
    """Write a table."""
    report.line("\n| | talu | of the limit | llama.cpp | ratio | ik_llama.cpp | ratio |")
    report.line("|---|--:|--:|--:|--:|--:|--:|")
    for row in rows:
        report.line(f"| {' | '.join(row.cells())} |")
    report.line()


def draw(path: Path, title: str, rows: Sequence[Row]) -> None:
    """Draw the rates as bars."""
    pyplot = importlib.import_module("matplotlib.figure")
    figure = pyplot.Figure(figsize=(10, 4.5), dpi=150, layout="constrained")
    tests = [test for test in dict.fromkeys(row.test for row in rows) if "MB" not in test]
    for axes, test in zip(figure.subplots(1, len(tests)), tests, strict=True):
        some = [row for row in rows if row.test == test]
        for place, library in enumerate((TALU, LLAMA, IK)):
            rates = [statistics.median(row.figures.get(library, [0.0])) for row in some]
            axes.bar([i + 0.27 * place for i in range(len(some))], rates, 0.25, label=library)
        axes.set_xticks([i + 0.27 for i in range(len(some))], [row.weights for row in some])
        axes.set_title(f"{test}, tokens/s", fontsize="medium")
    axes.legend(fontsize="small")
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path)


def main() -> None:
    """Command line."""
    parser = options(__doc__, rounds=5)
    parser.add_argument("--long-rounds", type=int, default=3, help=f"of {LONG} tokens; 0 for none")
    parser.add_argument("--bits", type=int, nargs="+", choices=WEIGHTS, default=list(WEIGHTS))
    parser.add_argument("--plot", type=Path, help="draw the rates in a .png or .svg file")
    given = parser.parse_args()
    report = Report(given, "0.6B, tokens per second: median (minimum to maximum)")
    rows, limits = [], {}
    for bits in given.bits:
        found, values = measure(bits, given, report)
        rates = ", ".join(f"{value / 1e9:.1f} · 10⁹ {key}" for key, value in values.items())
        report.line(f"limits beside {bits} bits: {rates.replace('_', ' ')}")
        write(report, found)
        rows += found
        limits[f"{bits} bits"] = values
    if 4 in given.bits:
        found = memory(given.threads)
        write(report, found)
        rows += found
    if given.plot:
        draw(given.plot, report.machine, rows)
    report.end({"limits": limits, "rows": rows})


if __name__ == "__main__":
    main()
