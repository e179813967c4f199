from pathlib import Path

import pytest

from talu.engine.budget import PAGE_BYTES, RECORD_BYTES, available_memory, plan_cache
from talu.exceptions import ResourceError, ValidationError

LAYERS = [(2, 32)] * 4  # 1,024 bytes a position in f16
MIB = 1 << 20


def test_a_small_model_gets_room_for_sixteen_full_contexts() -> None:
    plan = plan_cache(LAYERS, 1000, "f16", 1 << 34)
    assert (plan.blocks, plan.context_length, plan.reduced_from) == (16 * 63, 1000, None)
    assert plan.bytes == 16 * 63 * 16 * 1024


def test_the_cache_takes_at_most_a_quarter_of_the_memory() -> None:
    plan = plan_cache(LAYERS, 4096, "f16", 64 * MIB)
    assert (plan.bytes, plan.context_length) == (16 * MIB, 4096)


def test_a_context_that_does_not_fit_is_shortened_and_says_so() -> None:
    plan = plan_cache(LAYERS, 32768, "f16", 64 * MIB)
    assert (plan.context_length, plan.reduced_from) == (16384, 32768)
    assert plan.blocks * plan.block_size == 16384


def test_f32_takes_twice_the_room() -> None:
    assert plan_cache(LAYERS, 64, "f32", 1 << 34).bytes == 16 * 64 * 2048


@pytest.mark.parametrize(("context", "bytes_available"), [(4096, MIB - 1), (64, 4 * 65535)])
def test_too_little_memory_for_a_useful_context_is_an_error(
    context: int, bytes_available: int
) -> None:
    with pytest.raises(ResourceError, match="1024 bytes"):
        plan_cache(LAYERS, context, "f16", bytes_available)


def test_a_budget_takes_the_place_of_the_quarter() -> None:
    plan = plan_cache(LAYERS, 4096, "f16", 64 * MIB, 40 * MIB)
    assert (plan.bytes, plan.context_length, plan.reduced_from) == (40 * MIB, 4096, None)
    plan = plan_cache(LAYERS, 4096, "f16", 64 * MIB, MIB)
    assert (plan.bytes, plan.context_length, plan.reduced_from) == (MIB, 1024, 4096)


def test_a_budget_for_less_than_the_shortest_context_is_an_error() -> None:
    with pytest.raises(ValidationError, match="256 tokens, the shortest context, take 262,144"):
        plan_cache(LAYERS, 4096, "f16", 64 * MIB, 262143)


def test_a_budget_above_the_free_memory_is_an_error() -> None:
    with pytest.raises(ResourceError, match="more than the 8 MiB of memory that are free"):
        plan_cache(LAYERS, 4096, "f16", 8 * MIB, 16 * MIB)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with 1000 kB to spare and no control groups."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   1000 kB\n")
    return tmp_path


def group(folder: Path, *names: str, limit: str, usage: int, reclaimable: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{reclaimable}\n")


def available(machine: Path) -> int:
    return available_memory(machine / "proc", machine / "cgroup")


def test_without_groups_the_machine_decides(machine: Path) -> None:
    assert available(machine) == 1_024_000


V2 = ("memory.max", "memory.current")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def test_a_limit_of_the_address_space_counts(machine: Path) -> None:
    process = machine / "proc" / "self"
    (process / "statm").write_text("30 20 10 5 0 9 0\n")
    line = "Max address space         {}               unlimited            bytes\n"
    (process / "limits").write_text("Limit Soft Hard Units\n" + line.format(50 * PAGE_BYTES))
    assert available(machine) == 20 * PAGE_BYTES
    (process / "limits").write_text("Limit Soft Hard Units\n" + line.format("unlimited"))
    assert available(machine) == 1000 * 1024


def test_the_tightest_group_on_the_way_up_decides(machine: Path) -> None:
    (machine / "proc" / "self" / "cgroup").write_text("0::/outer/inner\n")
    root = machine / "cgroup"
    group(root / "outer", *V2, limit="9000", usage=4000, reclaimable="inactive_file 500")
    group(root / "outer" / "inner", *V2, limit="max", usage=4000, reclaimable="inactive_file 0")
    assert available(machine) == 5500


def test_the_limit_of_a_container_whose_group_is_at_the_root_applies(machine: Path) -> None:
    (machine / "proc" / "self" / "cgroup").write_text("0::/elsewhere/container\n")
    group(machine / "cgroup", *V2, limit="700", usage=100, reclaimable="inactive_file 0")
    assert available(machine) == 600


def test_groups_of_version_1_count(machine: Path) -> None:
    (machine / "proc" / "self" / "cgroup").write_text("5:cpu:/x\n4:memory:/x\n")
    folder = machine / "cgroup" / "memory" / "x"
    group(folder, *V1, limit="800", usage=900, reclaimable="total_inactive_file 300")
    assert available(machine) == 200


def test_this_machine_has_some_memory() -> None:
    assert available_memory() > MIB


def test_the_bookkeeping_of_the_smallest_models_is_counted() -> None:
    plan = plan_cache([(1, 2)], 2**27, "f16", 64 * MIB)  # 8 bytes a position, 128 a block
    assert plan.blocks == 16 * MIB // RECORD_BYTES
