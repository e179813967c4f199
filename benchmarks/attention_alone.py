"""The attention operation alone, beside what the processor multiplies and reads at most.

    python benchmarks/attention_alone.py [--threads 1] [--rounds 5] [--depths 1024 8192 32768]
        [--rows 512 1] [--kv f16 q8] [--heads 16 --kv-heads 8 --columns 128] [--json]

A network of nothing but attention takes its queries, keys and values from tables of random numbers.
The cache is filled with copies of one prompt of 512 tokens. Rates are 10⁹ multiplications in a
second, or 10⁹ bytes for a single row, which exceed the memory's while the processor's caches hold
the keys and values.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from command import Report, in_turn, options, spread

from talu import _native
from talu.engine.profiling import measure_ceilings
from talu.graph.native_executor import NativeExecutor
from talu.graph.record import Graph
from talu.protocols import PackedTensor

BLOCK, PROMPT = 16, 512


def table(rows: int, columns: int, seed: int) -> PackedTensor:
    """Random numbers in tiles."""
    numbers = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    memory = np.empty(_native.packed_bytes("f32", rows, columns) + 64, np.uint8)
    data = memory[-memory.ctypes.data % 64 :][: len(memory) - 64]
    _native.pack("f32", numbers, data)
    return PackedTensor("f32", numbers.shape, data)


class Attention:
    """One operation over a full cache."""

    def __init__(self, given: Any, kv_dtype: str) -> None:
        self._given = given
        self._graph = Graph()
        counts = {"q": given.heads, "k": given.kv_heads, "v": given.kv_heads}
        widths = {name: count * given.columns for name, count in counts.items()}
        q, k, v = (self._graph.embed(name, PROMPT, width) for name, width in widths.items())
        scale = given.columns**-0.5
        result = self._graph.attention(q, k, v, given.columns, scale=scale)
        self._graph.output(self._graph.output_rows(result))
        self._blocks = max(given.depths) // BLOCK
        self._executor = NativeExecutor(
            self._graph,
            {name: table(PROMPT, width, n) for n, (name, width) in enumerate(widths.items())},
            blocks=self._blocks,
            block_size=BLOCK,
            num_threads=given.threads,
            kv_dtype=kv_dtype,
        )
        self._step(0, PROMPT)
        first = np.arange(PROMPT // BLOCK, dtype=np.int32)
        content = self._executor.read_blocks(first)
        for start in range(len(first), self._blocks, len(first)):
            some = np.arange(start, min(start + len(first), self._blocks), dtype=np.int32)
            self._executor.write_blocks(some, content[: len(some)])

    def _step(self, start: int, rows: int) -> None:
        positions = np.arange(start, start + rows, dtype=np.int32)
        blocks = np.arange(self._blocks, dtype=np.int32)[None]
        ends, outputs = np.array([0, rows], np.int32), np.array([rows - 1], np.int32)
        self._executor.step(positions % PROMPT, positions, ends, blocks, outputs)

    def seconds(self, depth: int, rows: int, number: int) -> float:
        """The operation for the last rows of a sequence."""
        del number
        self._executor.start_timing()
        self._step(depth - rows, rows)
        kinds = {op: each.kind for op, each in enumerate(self._graph.ops)}
        times = self._executor.times()
        return sum(seconds for ops, seconds in times if kinds[ops[0]] == "attention")

    def amount(self, depth: int, rows: int) -> float:
        """Multiplications of such a step, or bytes that a single row reads."""
        if rows == 1:
            return depth * self._executor.block_bytes / BLOCK
        seen = rows * depth - rows * (rows - 1) // 2
        return 2 * seen * self._given.heads * self._given.columns


def cases(given: Any) -> Iterator[tuple[str, int, int]]:
    """Format, depth and rows of each test."""
    for depth in given.depths:
        for rows in given.rows:
            for kv_dtype in given.kv:
                yield kv_dtype, depth, rows


def main() -> None:
    """Command line."""
    parser = options(__doc__, rounds=5, threads=1)
    parser.add_argument("--depths", type=int, nargs="+", default=[1024, 8192, 32768])
    parser.add_argument("--rows", type=int, nargs="+", default=[512, 1])
    parser.add_argument("--kv", nargs="+", choices=_native.kv_dtypes(), default=["f16", "q8"])
    parser.add_argument("--heads", type=int, default=16, help="of queries")
    parser.add_argument("--kv-heads", type=int, default=8)
    parser.add_argument("--columns", type=int, default=128, help="of a head")
    given = parser.parse_args()
    report = Report(given, "attention alone: median (minimum to maximum)", target=_native.target())
    networks = {kv_dtype: Attention(given, kv_dtype) for kv_dtype in given.kv}
    some = list(cases(given))
    measures: list[Any] = [partial(networks[kind].seconds, *sizes) for kind, *sizes in some]
    *times, ceilings = in_turn([*measures, lambda _: measure_ceilings(given.threads)], given.rounds)
    peak = max(each.operations_per_second["f32"] for each in ceilings) / 1e9
    reads = max(each.bytes_per_second for each in ceilings) / 1e9
    report.line(f"at most {peak:.1f} · 10⁹ multiplications in f32, {reads:.1f} GB/s\n")
    report.line("| keys and values | depth | rows | ms | 10⁹ a second | of the limit |")
    report.line("|---|--:|--:|--:|--:|--:|")
    results = []
    for (kind, depth, rows), seconds in zip(some, times, strict=True):
        rates = [networks[kind].amount(depth, rows) / each / 1e9 for each in seconds]
        limit = reads if rows == 1 else peak
        results.append({"kv_dtype": kind, "depth": depth, "rows": rows, "seconds": seconds})
        report.line(
            f"| {kind} | {depth} | {rows} | {spread([1e3 * each for each in seconds], 2)} | "
            f"{spread(rates)} | {sorted(rates)[len(rates) // 2] / limit:.0%} |"
        )
    report.end({"multiplications_per_second": peak, "bytes_per_second": reads, "tests": results})


if __name__ == "__main__":
    main()
