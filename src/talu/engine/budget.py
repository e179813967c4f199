"""Plans the size of a model's KV cache and its context from the available memory.

Available memory is what the kernel and the control groups of the process report.
docs/decisions/0004-scheduling-and-cache.md
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from talu import _native
from talu.exceptions import ResourceError

__all__ = ["BLOCK_SIZE", "CachePlan", "available_memory", "cache_bytes", "plan_cache"]

BLOCK_SIZE = 16  # positions
SHARE = 4  # the cache takes at most 1 / SHARE of the available memory
FULL_CONTEXTS = 16  # maximum size of the cache, in full contexts
LEAST_CONTEXT = 256  # tokens; the minimum, unless the model's context is shorter
RECORD_BYTES = 1024  # upper bound for the bookkeeping of a block in use, with its tokens


class CachePlan(NamedTuple):
    """The size of a paged cache.

    Attributes:
        blocks: number of blocks of ``block_size`` positions.
        context_length: maximum tokens of a sequence; fits into the cache.
        bytes: size of keys and values in all layers.
        reduced_from: the context of the model if memory did not allow it.
    """

    blocks: int
    block_size: int
    kv_dtype: str
    context_length: int
    bytes: int
    reduced_from: int | None = None


def plan_cache(
    layers: Sequence[tuple[int, int]], context_length: int, kv_dtype: str, available: int
) -> CachePlan:
    """Size the cache: a quarter of ``available`` bytes, but at most 16 full contexts.

    A context that does not fit is shortened.

    Args:
        layers: (KV heads, head size) of each attention layer, from ``Graph.layers``.
        context_length: tokens that the model was trained for.
        kv_dtype: format of keys and values, one of ``_native.kv_dtypes()``.
        available: bytes of free memory.

    Raises:
        ResourceError: there is too little memory for 256 tokens, or for the full context if that is
            shorter.
    """
    block = _native.kv_block_bytes(layers, BLOCK_SIZE, kv_dtype)
    position = block // BLOCK_SIZE
    whole = -(-context_length // BLOCK_SIZE)
    # In the smallest models, a block's bookkeeping takes more memory than its keys and values.
    blocks = min(available // SHARE // max(block, RECORD_BYTES), FULL_CONTEXTS * whole)
    fits = min(context_length, blocks * BLOCK_SIZE)
    if fits < min(context_length, LEAST_CONTEXT):
        raise ResourceError(
            f"too little memory: the cache may take a quarter of the {available >> 20} MiB that "
            f"are free, which holds {fits} tokens of {position} bytes; free some memory, or use "
            "a smaller model",
            details={"available": available, "bytes_per_token": position},
        )
    reduced = context_length if fits < context_length else None
    return CachePlan(blocks, BLOCK_SIZE, kv_dtype, fits, blocks * block, reduced)


def cache_bytes(layers: Sequence[tuple[int, int]], tokens: int, kv_dtype: str) -> int:
    """Bytes of the keys and values of a number of tokens; see ``plan_cache``."""
    blocks = -(-tokens // BLOCK_SIZE)
    return blocks * _native.kv_block_bytes(layers, BLOCK_SIZE, kv_dtype)


def available_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that the machine and the process's control groups have left."""
    fields = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
    machine = int(fields["MemAvailable"].split()[0]) * 1024
    return min([machine, *_left_in_groups(proc / "self" / "cgroup", groups)])


def _left_in_groups(membership: Path, root: Path) -> Iterator[int]:
    """Bytes left within the limits of the process's control groups, versions 1 and 2.

    A container often sees its group at the root, so all groups up to the root are read.
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
    except (OSError, ValueError):  # missing, or "max": no limit
        return
    yield max(0, most - used + int(stat.get(reclaimable, 0)))
