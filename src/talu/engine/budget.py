"""Plans the size of a model's KV cache and its context from the available memory.

Available memory is what the kernel, the control groups and the address space of the process leave.
docs/decisions/0004-scheduling-and-cache.md
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from talu import _native
from talu.exceptions import ResourceError, ValidationError

__all__ = ["BLOCK_SIZE", "CachePlan", "available_memory", "cache_bytes", "plan_cache"]

BLOCK_SIZE = 16  # positions
SHARE = 4  # the cache takes at most 1 / SHARE of the available memory
FULL_CONTEXTS = 16  # maximum size of the cache, in full contexts
LEAST_CONTEXT = 256  # tokens; the minimum, unless the model's context is shorter
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
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
    layers: Sequence[tuple[int, int]],
    context_length: int,
    kv_dtype: str,
    available: int,
    budget: int = 0,
) -> CachePlan:
    """Size the cache: ``budget``, or a quarter of ``available``, but at most 16 full contexts.

    A context that does not fit is shortened.

    Args:
        layers: (KV heads, head size) of each attention layer, from ``Graph.layers``.
        context_length: tokens that the model was trained for.
        kv_dtype: format of keys and values, one of ``_native.kv_dtypes()``.
        available: bytes of free memory.
        budget: the most bytes that the cache may take, as the user wants it; 0 for a quarter of
            ``available``.

    Raises:
        ResourceError: there is too little memory for 256 tokens, or for the full context if that is
            shorter; or less than the budget.
        ValidationError: the budget is too little for that.
    """
    block = _native.kv_block_bytes(layers, BLOCK_SIZE, kv_dtype)
    position = block // BLOCK_SIZE
    whole = -(-context_length // BLOCK_SIZE)
    # In the smallest models, a block's bookkeeping takes more memory than its keys and values.
    room = budget // block if budget else available // SHARE // max(block, RECORD_BYTES)
    blocks = min(room, FULL_CONTEXTS * whole)
    fits = min(context_length, blocks * BLOCK_SIZE)
    least = min(context_length, LEAST_CONTEXT)
    if budget and fits < least:
        needed = cache_bytes(layers, least, kv_dtype)
        raise ValidationError(
            f"kv_cache_bytes={budget:,} is too little: keys and values of {least} tokens, the "
            f"shortest context, take {needed:,} bytes with this model",
            details={"param": "kv_cache_bytes", "value": budget},
        )
    if blocks * block > available:
        raise ResourceError(
            f"kv_cache_bytes={budget:,} is more than the {available >> 20} MiB of memory that are "
            "free",
            details={"param": "kv_cache_bytes", "available": available},
        )
    if fits < least:
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
    """Bytes that the machine, the process's control groups and its address space have left."""
    fields = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
    machine = int(fields["MemAvailable"].split()[0]) * 1024
    own = proc / "self"
    return min([machine, *_left_in_groups(own / "cgroup", groups), *_left_of_addresses(own)])


def _left_of_addresses(process: Path) -> Iterator[int]:
    """Bytes left within a limit of the address space, as ``ulimit -v`` sets it."""
    try:
        limits = (process / "limits").read_text().splitlines()
        line = next(line for line in limits if line.startswith("Max address space"))
        most = int(line.split()[3])
        pages = int((process / "statm").read_text().split()[0])
    except (OSError, StopIteration, ValueError):  # unknown, or "unlimited"
        return
    yield max(0, most - pages * PAGE_BYTES)


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
