"""A profile says what each operation of a network costs."""

from collections.abc import Iterator
from math import prod

import pytest

from talu import _native
from talu.engine.loading import load_model
from talu.engine.model import LoadedModel
from talu.engine.profiling import Ceilings, Cost, measure_ceilings, profile
from talu.exceptions import ValidationError
from talu.sources.folder import FolderSource
from talu.sources.resolve import BUNDLED_FOLDER
from talu.types import LocalBackend

PROMPT, STEPS = 100, 4
CEILINGS = Ceilings(1e9, {"f32": 1e9, "bf16": 2e9, "i16": 4e9, "i8": 8e9})


@pytest.fixture(scope="module")
def pocket() -> Iterator[LoadedModel]:
    model = load_model(FolderSource(BUNDLED_FOLDER), LocalBackend(kv_dtype="f16"))
    yield model
    model.executor.close()
    model.weights.close()


@pytest.fixture(scope="module")
def costs(pocket: LoadedModel) -> tuple[dict[str, Cost], dict[str, Cost]]:
    of_prompt, of_tokens = profile(pocket, PROMPT, STEPS)
    return {cost.name: cost for cost in of_prompt}, {cost.name: cost for cost in of_tokens}


def test_products_that_run_together_are_one_operation_of_all_layers(
    costs: tuple[dict[str, Cost], dict[str, Cost]],
) -> None:
    for test in costs:
        layers = {name: cost.calls for name, cost in test.items() if "proj" in name}
        assert layers == {
            "q_proj, k_proj, v_proj": 6,
            "o_proj": 6,
            "gate_proj, up_proj": 6,
            "down_proj": 6,
        }
        assert test["embed_tokens"].calls == 1  # the output head, which is tied


def test_multiplications_are_those_of_the_matrices_times_the_rows(
    costs: tuple[dict[str, Cost], dict[str, Cost]], pocket: LoadedModel
) -> None:
    of_prompt, of_tokens = costs
    shapes = pocket.architecture.graph.weights
    down = [prod(shape) for name, shape in shapes.items() if "down_proj" in name]
    assert of_tokens["down_proj"].operations == sum(down)
    # After its attention, the last layer computes only the row that has an output.
    assert of_prompt["down_proj"].operations == PROMPT * sum(down[1:]) + down[0]
    for test in costs:
        assert test["embed_tokens"].operations == prod(shapes["model.embed_tokens.weight"])


def test_attention_reads_the_keys_and_values_of_all_positions_before(
    costs: tuple[dict[str, Cost], dict[str, Cost]],
) -> None:
    of_prompt, of_tokens = (test["attention"] for test in costs)
    bytes_of_position = 6 * 2 * 2 * 32 * 2  # layers, keys and values, heads, columns, bytes
    assert of_prompt.bytes == PROMPT * bytes_of_position
    assert of_tokens.bytes == (PROMPT + STEPS // 2 + 1) * bytes_of_position
    assert of_prompt.operations == 6 * 2 * 192 * PROMPT * (PROMPT + 1) // 2


def test_every_operation_is_measured_once(
    costs: tuple[dict[str, Cost], dict[str, Cost]], pocket: LoadedModel
) -> None:
    ops = pocket.architecture.graph.ops
    fused = sum(op.kind == "add" for op in ops) + sum(op.kind == "linear" for op in ops)
    groups = 6 * 4 + 1
    for test in costs:
        assert sum(cost.calls for cost in test.values()) == len(ops) - fused + groups
        assert all(cost.seconds > 0 for cost in test.values())


def test_an_operation_takes_at_least_the_time_of_its_bytes_and_of_its_multiplications() -> None:
    assert Cost(name="a", bytes=3_000, operations=10, numbers="i8").least_seconds(CEILINGS) == 3e-6
    assert Cost(name="a", bytes=3, operations=16_000, numbers="i8").least_seconds(CEILINGS) == 2e-6


def test_the_ceilings_have_every_kind_of_numbers_that_a_format_multiplies() -> None:
    ceilings = measure_ceilings(1)
    assert ceilings.bytes_per_second > 0
    assert {*ceilings.operations_per_second} == {"f32", "bf16", "i16", "i8"}
    assert min(ceilings.operations_per_second.values()) > 0
    for name in (*_native.formats(), *_native.block_formats(), *_native.rotated_formats()):
        assert _native.activation_format(name) in ("f32", "bf16", "i15", "i8", "rotated")


def test_a_profile_that_exceeds_the_context_is_refused(pocket: LoadedModel) -> None:
    with pytest.raises(ValidationError, match="do not fit in the context of 1024"):
        profile(pocket, 1000, 25)
