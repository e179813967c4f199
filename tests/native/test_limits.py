"""Extreme sizes, threads and arrays cause an error or a fallback, never a crash."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest

from talu import _native
from talu.exceptions import ResourceError, ValidationError
from talu.graph.native_executor import NativeExecutor
from talu.graph.record import Graph

# No thread can be started after this. Root has no limit of processes, so the test changes its user.
NO_THREADS = """
import os, resource
import numpy as np
from talu import _native
source = np.arange(1 << 20, dtype=np.float32).reshape(4096, 256)
packed = np.zeros(_native.packed_bytes("f32", *source.shape) + 64, np.uint8)
packed = packed[-packed.ctypes.data % 64 :][: len(packed) - 64]
if os.getuid() == 0:
    os.setresuid(65534, 65534, 65534)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
_native.pack("f32", source, packed)
print((_native.unpack("f32", packed, *source.shape) == source).all())
"""


def test_the_caller_works_alone_if_no_thread_can_be_started() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_THREADS], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def attention(kv_heads: int, head_size: int) -> Graph:
    """A graph whose cache has one layer of this size; it reads no weights of it."""
    graph = Graph()
    graph.output(graph.output_rows(graph.embed("table", 4, 16)))
    graph.layers = [(kv_heads, head_size)]
    return graph


@pytest.mark.parametrize(
    "layer", [(2**40, 2**40), (1, 2**62), (2**62, 1), (2**31, 2**31), (2**63, 64)]
)
def test_a_cache_larger_than_any_memory_is_refused(
    layer: tuple[int, int], pack: Callable[..., object]
) -> None:
    table = pack(np.zeros((4, 16), np.float32), "f32")
    with pytest.raises(ResourceError, match="not enough memory for a cache"):
        NativeExecutor(attention(*layer), {"table": table}, blocks=4, block_size=16)


@pytest.mark.parametrize("number_format", _native.formats())
@pytest.mark.parametrize("shape", [(2**40, 0), (0, 2**40), (0, 0)])
def test_empty_matrices_of_giant_shapes_are_packed_immediately(
    number_format: str, shape: tuple[int, int]
) -> None:
    kind = np.float32 if number_format in ("f32", "i16") else np.uint16
    nothing = np.empty(0, np.uint8)
    _native.pack(number_format, np.empty(shape, kind), nothing)
    assert _native.unpack(number_format, nothing, *shape).shape == shape


def test_arrays_that_another_thread_changes_during_a_step_are_harmless(
    network: tuple, pair: Callable
) -> None:
    executor = pair(*network).native
    count = 60
    rows = np.arange(count, dtype=np.int32)
    starts, outputs = np.array([0, count], np.int32), np.array([count - 1], np.int32)
    tables = np.arange(4, dtype=np.int32)[None]
    expected = executor.step(rows, rows, starts, tables, outputs)
    tokens, positions = rows.copy(), rows.copy()
    ended = threading.Event()

    def spoil() -> None:
        while not ended.is_set():
            for array, good in ((tokens, rows), (positions, rows)):
                array[:] = 2**30
                array[:] = good

    spoiler = threading.Thread(target=spoil)
    spoiler.start()
    try:
        for _ in range(200):
            with contextlib.suppress(ValidationError):  # refused as a whole is right as well
                found = executor.step(tokens, positions, starts, tables, outputs)
                np.testing.assert_array_equal(found, expected)
    finally:
        ended.set()
        spoiler.join()
