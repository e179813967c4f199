"""Measures matrix products and attention with the shapes of Qwen3-0.6B through PyTorch.

These are the rates that a GPU reaches with the vendor's libraries: what prefill can hope for.
"""

import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F

LAYER = [(4096, 1024), (1024, 2048), (6144, 1024), (1024, 3072)]  # rows and columns of weights
COPIES = 28  # of the weights, so that they do not come from the L2 cache


def microseconds(run: Callable[[], object], repeat: int = 15) -> float:
    """The median time of a run."""
    for _ in range(3):
        run()
    times = []
    for _ in range(repeat):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1000)
    return statistics.median(times)


def random(*shape: int) -> torch.Tensor:
    """Normal random numbers in bf16 on the GPU."""
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def product_time(rows: int, out: int, columns: int, copies: int = COPIES) -> float:
    """Microseconds of x · wᵀ for `rows` rows, replayed from a graph."""
    weights = [random(out, columns) for _ in range(copies)]
    x = random(rows, columns)
    _ = x @ weights[0].T  # chooses the kernel
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for w in weights:
            _ = x @ w.T
    return microseconds(graph.replay) / copies


def report(name: str, time: float, flops: float, size: float = 0) -> None:
    """Prints a row: time, rate of arithmetic, rate of reading weights."""
    rate = f", {size / time / 1e6:.2f} TB/s of weights" if size else ""
    print(f"{name}: {time:.1f} us, {flops / time / 1e6:.0f} TFLOP/s{rate}")


def main() -> None:
    """Prints the table."""
    print(torch.__version__, torch.cuda.get_device_name())
    a, b = random(8192, 8192), random(8192, 8192)
    report("8192 x 8192 x 8192", microseconds(lambda: a @ b.T), 2 * 8192**3)
    for rows in (4096, 1024, 64, 16):
        times = [product_time(rows, out, columns) for out, columns in LAYER]
        sizes = [out * columns for out, columns in LAYER]
        for (out, columns), time, size in zip(LAYER, times, sizes, strict=True):
            report(f"{rows} rows, {out} x {columns}", time, 2 * rows * size, 2 * size)
        report(f"{rows} rows, a layer", sum(times), 2 * rows * sum(sizes), 2 * sum(sizes))
    for rows in (64, 1):
        size = 151936 * 1024
        report(f"{rows} rows, head", product_time(rows, 151936, 1024, 2), 2 * rows * size, 2 * size)
    q, k, v = random(1, 16, 4096, 128), random(1, 8, 4096, 128), random(1, 8, 4096, 128)
    time = microseconds(
        lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    )
    report("causal attention, 4096 positions, a layer", time, 2 * 16 * 4096**2 * 128)


if __name__ == "__main__":
    main()
