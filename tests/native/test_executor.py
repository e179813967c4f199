"""The executor gives a row the same result in any step, and checks all of its input."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from tests.threads import in_threads

from talu import _native
from talu.exceptions import ModelError, ResourceError, StateError, ValidationError
from talu.graph.native_executor import NativeExecutor

TARGETS = _native.targets()
FORMATS = _native.formats()

per_target = pytest.mark.parametrize("target", TARGETS)
per_format = pytest.mark.parametrize("number_format", FORMATS)

PROMPT = [int(t) for t in np.random.default_rng(1).integers(0, 67, 61)]
OTHERS = [[int(t) for t in np.random.default_rng(s).integers(0, 67, 9 + s)] for s in range(64)]


@per_target
@per_format
@pytest.mark.parametrize("kv_dtype", ["f32", "f16", "bf16"])
def test_a_network_computes_the_results_of_numpy(
    target: str, number_format: str, kv_dtype: str, network: tuple, pair: Callable, rows: type
) -> None:
    both = pair(*network, number_format=number_format, kv_dtype=kv_dtype, target=target)
    # A value of the network that lies on the edge between two numbers of a narrow format may be
    # rounded to either; f32 has no such edges.
    rounds = _native.activation_format(number_format, target) != "f32" or kv_dtype != "f32"
    tolerance = 4e-3 if rounds else 3e-6
    both.compare(rows(PROMPT), rows(OTHERS[3], blocks=[9]), tolerance=tolerance)
    both.compare(rows([3], start=61), rows([5, 6], start=12, blocks=[9]), tolerance=tolerance)


@per_target
@per_format
def test_a_row_is_bit_identical_alone_and_in_a_batch_of_64(
    target: str, number_format: str, network: tuple, pair: Callable, rows: type, run: Callable
) -> None:
    options = {"number_format": number_format, "kv_dtype": "f16", "target": target}
    alone = pair(*network, **options, num_threads=1).native
    batch = pair(*network, **options, blocks=400, num_threads=2).native
    expected = [run(alone, rows(PROMPT)), run(alone, rows([7], start=61))]
    others = [rows(t, blocks=range(6 + 5 * i, 11 + 5 * i)) for i, t in enumerate(OTHERS)]
    found = run(batch, *others[:40], rows(PROMPT), *others[40:])
    start = sum(len(t) for t in OTHERS[:40])
    np.testing.assert_array_equal(found[start : start + len(PROMPT)], expected[0])
    more = [rows([1], start=len(o.tokens), blocks=o.blocks) for o in others]
    found = run(batch, *more[:63], rows([7], start=61))
    np.testing.assert_array_equal(found[63:], expected[1])


@per_target
@per_format
@pytest.mark.parametrize("chunks", [[60], [1, 2, 3, 16, 40], list(range(1, 61)), [17, 33]])
def test_a_row_is_bit_identical_however_the_prompt_is_chunked(
    target: str,
    number_format: str,
    chunks: list[int],
    network: tuple,
    pair: Callable,
    rows: type,
    run: Callable,
) -> None:
    executor = pair(*network, number_format=number_format, kv_dtype="f16", target=target).native
    whole = run(executor, rows(PROMPT, blocks=[4, 5, 6, 7]))
    borders = [0, *chunks, len(PROMPT)]
    parts = [run(executor, rows(PROMPT[a:b], start=a)) for a, b in pairwise(borders) if a < b]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@per_target
def test_the_number_of_threads_does_not_change_a_bit(
    target: str, network: tuple, pair: Callable, rows: type, run: Callable
) -> None:
    found = [
        run(pair(*network, target=target, num_threads=n).native, rows(PROMPT)) for n in (1, 2, 0)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_an_output_row_does_not_depend_on_which_rows_are_requested(
    network: tuple, pair: Callable, rows: type, run: Callable
) -> None:
    executor = pair(*network).native
    whole = run(executor, rows(PROMPT))
    np.testing.assert_array_equal(run(executor, rows(PROMPT, wanted=[2, 60])), whole[[2, 60]])
    assert run(executor, rows(PROMPT, wanted=[])).shape == (0, 67)


def test_the_old_contents_of_a_block_do_not_affect_results(
    network: tuple, pair: Callable, rows: type, run: Callable
) -> None:
    fresh, used = pair(*network).native, pair(*network).native
    graph, weights = network
    broken = {**weights, "embed": np.full_like(weights["embed"], np.nan)}
    spoiled = pair(graph, broken).native
    assert np.isnan(run(spoiled, rows(PROMPT))).all()  # and nothing worse happens
    run(used, rows(PROMPT))
    np.testing.assert_array_equal(run(used, rows([5, 4])), run(fresh, rows([5, 4])))


def test_infinite_weights_give_logits_that_are_not_finite_and_no_crash(
    network: tuple, pair: Callable, rows: type, run: Callable
) -> None:
    graph, weights = network
    weights["0.v"] = np.full_like(weights["0.v"], np.inf)
    for kv_dtype in _native.kv_dtypes():
        assert not np.isfinite(
            run(pair(graph, weights, kv_dtype=kv_dtype).native, rows(PROMPT))
        ).all()


def integers(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


GOOD = {
    "tokens": integers(1, 2, 3),
    "positions": integers(0, 1, 0),
    "row_starts": integers(0, 2, 3),
    "block_tables": np.array([[0], [1]], np.int32),
    "outputs": integers(1, 2),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": integers(1, 2, 67)}, "token 67 is not in the vocabulary"),
        ({"tokens": integers(1, -1, 3)}, "token -1 is not in the vocabulary"),
        ({"tokens": integers(1, 2)}, "differ in length"),
        ({"tokens": integers(1, 2, 3).astype(np.int64)}, "incompatible function arguments"),
        ({"positions": integers(0, 2, 0)}, "sequence 0: positions must be consecutive"),
        ({"positions": integers(-1, 0, 0)}, "sequence 0: positions must be consecutive"),
        ({"positions": integers(0, 1, 16)}, "sequence 1: its block table is too short"),
        ({"positions": integers(0, 1, 2**31 - 1)}, "sequence 1: its block table is too short"),
        ({"row_starts": integers(0, 3)}, "one number more than block_tables has rows"),
        ({"row_starts": integers(0, 2, 2)}, "end with the number of rows"),
        ({"row_starts": integers(1, 2, 3)}, "begin with 0"),
        ({"row_starts": integers(0, 4, 3)}, "must be ascending"),
        ({"row_starts": integers(0, -1, 3)}, "must be ascending"),
        ({"block_tables": np.array([[0], [16]], np.int32)}, "there is no cache block 16"),
        ({"block_tables": np.array([[0], [-1]], np.int32)}, "there is no cache block -1"),
        ({"block_tables": np.empty((2, 0), np.int32)}, "block table is too short"),
        ({"outputs": integers(0, 3)}, "outputs must be ascending numbers of rows"),
        ({"outputs": integers(-1)}, "outputs must be ascending numbers of rows"),
        ({"outputs": integers(2, 1)}, "outputs must be ascending numbers of rows"),
        ({"outputs": integers(1, 1)}, "outputs must be ascending numbers of rows"),
        ({"outputs": integers(*range(9))}, "9 outputs of 3 rows"),
    ],
)
def test_an_inconsistent_step_is_refused(
    change: dict, message: str, network: tuple, pair: Callable
) -> None:
    executor = pair(*network).native
    expected = executor.step(**GOOD)
    with pytest.raises(ValidationError, match=message):
        executor.step(**{**GOOD, **change})
    np.testing.assert_array_equal(executor.step(**GOOD), expected)


def test_a_step_without_rows_has_no_logits(
    network: tuple, pair: Callable, run: Callable, rows: type
) -> None:
    executor = pair(*network).native
    assert run(executor).shape == (0, 67)
    assert run(executor, rows([])).shape == (0, 67)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_size": 24}, "block_size must be a multiple of 16, not 24"),
        ({"block_size": 0}, "block_size must be a multiple of 16"),
        ({"blocks": -1}, "must not be negative"),
        ({"num_threads": -1}, "must not be negative"),
        ({"kv_dtype": "q4"}, "kv_dtype 'q4' is unknown; known: f16, bf16, f32, q8"),
        ({"target": "mmx"}, "'mmx' is unknown; supported here: .*generic"),
    ],
)
def test_options_out_of_range_are_refused(
    options: dict, message: str, network: tuple, pack: Callable
) -> None:
    graph, weights = network
    tensors = {n: pack(w, "f32") for n, w in weights.items()}
    with pytest.raises(ValidationError, match=message):
        NativeExecutor(graph, tensors, **{"blocks": 4, "block_size": 16, **options})


@pytest.mark.parametrize("blocks", [2**40, 2**62, 2**63 - 1])
def test_a_cache_larger_than_any_memory_is_refused(
    network: tuple, pack: Callable, blocks: int
) -> None:
    graph, weights = network
    tensors = {name: pack(weight, "f32") for name, weight in weights.items()}
    with pytest.raises(ResourceError, match="not enough memory"):
        NativeExecutor(graph, tensors, blocks=blocks, block_size=16)


def test_a_missing_or_misshapen_tensor_is_named(network: tuple, pack: Callable) -> None:
    graph, weights = network
    tensors = {n: pack(w, "f32") for n, w in weights.items() if n != "1.up"}
    with pytest.raises(ModelError, match=r"'1.up': the network reads \(41, 24\), there is None"):
        NativeExecutor(graph, tensors, blocks=4, block_size=16)
    tensors["1.up"] = pack(weights["1.up"][:-1], "f32")
    with pytest.raises(ModelError, match=r"there is \(40, 24\)"):
        NativeExecutor(graph, tensors, blocks=4, block_size=16)


RMS = {"eps": 1e-6, "size": 4, "offset": 0.0}
NORM = ("rms_norm", [0], [("vector", (4,), np.ones(4, np.float32))], 4, RMS)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, 7, "operation 0: its kind is 7, not a name"),
        (1, [0.5], r"rms_norm \(operation 0\): inputs is \[0.5\], not numbers of operations"),
        (1, [-(2**40)], "inputs is .*, not numbers of operations"),
        (2, None, "weights is None, not a list"),
        (2, ["w"], "a weight is 'w', not a tuple"),
        (2, [("vector", (4,))], "a weight has 2 parts, not 3: format, shape, data"),
        (2, [(32, (4,), NORM[2][0][2])], "a weight: its format is 32, not a name"),
        (2, [("vector", (-4,), NORM[2][0][2])], r"a weight: its shape is \(-4,\), not sizes"),
        (2, [("vector", (4,), np.ones(4))], "its data is .*, not a float32 vector"),
        (2, [("f32", (4, 4), np.ones(4))], "its data is .*, not packed bytes"),
        (3, -1, "width is -1, not a size"),
        (4, None, "parameters is None, not a dictionary"),
        (4, {3: 1.0}, "a parameter is 3, not a name"),
        (4, {"eps": None}, r"\(operation 0\): eps is None, not a number, a name or a float32"),
        (4, {"eps": 10**400}, "eps is 1000*, not a number that a double holds"),
        (4, {"frequencies": np.ones((2, 2), np.float32)}, "(?s)frequencies is .*float32 vector"),
    ],
)
def test_a_field_of_an_operation_with_a_wrong_type_is_named(
    place: int, value: object, message: str
) -> None:
    operation = (*NORM[:place], value, *NORM[place + 1 :])
    with pytest.raises(TypeError, match=message):
        _native.Executor([operation], [], 0, 4, 16)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"size": 4, "offset": 0.0}, "rms_norm has no parameter 'eps'"),
        ({**RMS, "eps": "small"}, "eps is not a number"),
        ({**RMS, "epsilon": 1e-6}, "the parameter 'epsilon' is unknown"),
        ({**RMS, "size": -1}, "size is -1.0*, expected 0 to 999999999"),
    ],
)
def test_parameters_that_an_operation_does_not_know_or_cannot_read_are_refused(
    parameters: dict, message: str
) -> None:
    table = np.zeros(_native.packed_bytes("f32", 3, 4) + 64, np.uint8)
    table = table[-table.ctypes.data % 64 :][: len(table) - 64]
    embed = ("embed", [], [("f32", (3, 4), table)], 4, {})
    with pytest.raises(ValueError, match=message):
        _native.Executor([embed, (*NORM[:4], parameters)], [], 1, 4, 16)


@pytest.mark.parametrize("operation", [(), NORM[:4], (*NORM, 1), None, "rms_norm"])
def test_a_value_that_is_not_an_operation_is_refused(operation: object) -> None:
    with pytest.raises(TypeError, match=r"operation 0 (has . parts|is .*, not a tuple)"):
        _native.Executor([operation], [], 0, 4, 16)


def test_a_step_after_close_is_an_error(
    network: tuple, pair: Callable, rows: type, run: Callable
) -> None:
    executor = pair(*network).native
    executor.close()
    executor.close()
    with pytest.raises(StateError, match="closed"):
        run(executor, rows(PROMPT))


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_the_cache_takes_memory_when_used_and_close_frees_it(
    network: tuple, pack: Callable, rows: type, run: Callable
) -> None:
    graph, weights = network
    tensors = {n: pack(w, "f32") for n, w in weights.items()}
    before = resident_bytes()
    executor = NativeExecutor(graph, tensors, blocks=40_000, block_size=16)  # 290 MB if used
    assert resident_bytes() - before < 10_000_000
    for first in range(0, 8000, 100):
        run(executor, *(rows([1], blocks=[b]) for b in range(first, first + 100)))
    used = resident_bytes() - before
    assert used > 20_000_000
    executor.close()
    gc.collect()
    assert resident_bytes() - before < used - 15_000_000


def test_executors_may_step_from_several_threads(
    network: tuple, pair: Callable, rows: type, run: Callable
) -> None:
    executors = [pair(*network).native for _ in range(2)]
    expected = run(executors[0], rows(PROMPT))

    def agree(number: int) -> bool:
        blocks = [range(4), range(4, 8)][number // 2]  # two threads share each executor
        found = [run(executors[number % 2], rows(PROMPT, blocks=blocks)) for _ in range(30)]
        return all(np.array_equal(logits, expected) for logits in found)

    assert all(in_threads(agree, range(4)))


def test_a_forked_process_starts_its_own_threads() -> None:
    program = """
import os
import numpy as np
from talu import _native
source = np.ones((4096, 64), np.float32)
packed = np.empty(source.nbytes + 64, np.uint8)
packed = packed[-packed.ctypes.data % 64:][:source.nbytes]
_native.pack("f32", source, packed, 2)
child = os.fork()
packed[:] = 0
_native.pack("f32", source, packed, 2)
assert (packed.view(np.float32) == 1).all()
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == 0


def test_copied_blocks_have_the_keys_and_values_of_the_tokens_that_ran(
    network: tuple, pair: Callable, rows: type, run: Callable
) -> None:
    first = pair(*network, kv_dtype="f16").native
    run(first, rows(PROMPT[:48]))
    expected = run(first, rows(PROMPT[48:], start=48))
    second = pair(*network, kv_dtype="f16").native
    moved = np.array([0, 1, 2], np.int32)
    second.write_blocks(np.array([5, 4, 3], np.int32), first.read_blocks(moved))
    found = run(second, rows(PROMPT[48:], start=48, blocks=[5, 4, 3, 6]))
    assert found.tobytes() == expected.tobytes()


def test_a_block_that_does_not_exist_is_neither_read_nor_written(
    network: tuple, pair: Callable
) -> None:
    native = pair(*network, blocks=16).native
    content = native.read_blocks(np.array([15], np.int32))
    assert content.shape == (1, native.block_bytes)
    for number in (-1, 16):
        block = np.array([number], np.int32)
        with pytest.raises(ValueError, match=f"there is no cache block {number}"):
            native.read_blocks(block)
        with pytest.raises(ValueError, match=f"there is no cache block {number}"):
            native.write_blocks(block, content)
    with pytest.raises(ValueError, match="expected 2 blocks of"):
        native.write_blocks(np.array([1, 2], np.int32), content)
    native.close()
    with pytest.raises(StateError, match="closed"):
        native.read_blocks(np.array([1], np.int32))
