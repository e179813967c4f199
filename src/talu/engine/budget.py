"""Plans the size of a model's cache, and its context, from the memory that is available.

Available memory is what the kernel and the control groups of the process report; nothing is
allocated here. docs/decisions/0004-scheduling-and-cache.md
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from talu.exceptions import ResourceError

__all__ = ["BLOCK_SIZE", "CachePlan", "available_memory", "plan_cache"]

BLOCK_SIZE = 16  # positions
SHARE = 4  # the cache takes at most one part in so many of the available memory
FULL_CONTEXTS = 16  # more sequences of the whole context than this are not planned for
LEAST_CONTEXT = 256  # a model that was made for more is not opened with less
RECORD_BYTES = 1024  # what the bookkeeping of a block in use takes, with its tokens; generous
NUMBER_BYTES = {"f32": 4, "f16": 2, "bf16": 2}


@dataclass(frozen=True, slots=True)
class CachePlan:
    """The size of a paged cache.

    Attributes:
        blocks: how many, each of ``block_size`` positions.
        context_length: tokens that one sequence may have; it fits into the cache.
        bytes: of keys and values in all layers.
        reduced_from: the context that the model was made for, where memory did not allow it.
    """

    blocks: int
    block_size: int
    kv_format: str
    context_length: int
    bytes: int
    reduced_from: int | None = None


def plan_cache(
    layers: Sequence[tuple[int, int]], context_length: int, kv_format: str, available: int
) -> CachePlan:
    """Size the cache: a quarter of ``available`` bytes, but at most 16 full contexts.

    A context that does not fit into that is shortened to what does.

    Args:
        layers: (KV heads, head size) of each attention layer, as ``Graph.layers`` has them.
        context_length: tokens that the model was made for.
        kv_format: ``"f32"``, ``"f16"`` or ``"bf16"``.
        available: bytes of memory that are free.

    Raises:
        ResourceError: there is too little memory for 256 tokens, or for the whole of a shorter
            context.
    """
    position = 2 * sum(heads * size for heads, size in layers) * NUMBER_BYTES[kv_format]
    block = position * BLOCK_SIZE
    whole = -(-context_length // BLOCK_SIZE)
    # The smallest models need more memory for the records of a block than for its keys and values.
    blocks = min(available // SHARE // max(block, RECORD_BYTES), FULL_CONTEXTS * whole)
    fits = min(context_length, blocks * BLOCK_SIZE)
    if fits < min(context_length, LEAST_CONTEXT):
        raise ResourceError(
            f"too little memory: the cache may take a quarter of the {available >> 20} MiB that "
            f"are free, which holds {fits} tokens of {position} bytes; free some memory, or take "
            "a smaller model",
            details={"available": available, "bytes_per_token": position},
        )
    reduced = context_length if fits < context_length else None
    return CachePlan(blocks, BLOCK_SIZE, kv_format, fits, blocks * block, reduced)


def available_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process can still use: of the machine, and of each of its control groups."""
    fields = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
    machine = int(fields["MemAvailable"].split()[0]) * 1024
    return min([machine, *_left_in_groups(proc / "self" / "cgroup", groups)])


def _left_in_groups(membership: Path, root: Path) -> Iterator[int]:
    """What the limits of the process's groups leave, in version 2 and version 1 of cgroups.

    A container often sees its own group at the root; so all groups up to there are looked at.
    """
    lines = membership.read_text().splitlines() if membership.is_file() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = top / path.lstrip("/")
        for folder in [group, *group.parents]:
            if folder.is_relative_to(top):
                yield from _left(folder, *names)


def _left(folder: Path, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    try:
        most = int((folder / limit).read_text())
        used = int((folder / usage).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # not there, or "max": no limit
        return
    yield max(0, most - used + int(stat.get(reclaimable, 0)))
