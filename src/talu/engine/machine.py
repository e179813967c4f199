"""Describes the machine that models run on: processor, threads, memory, folders of files."""

import mmap
import os
import platform
import re
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from talu import _native
from talu.engine.budget import available_memory
from talu.engine.prefix_files import prefix_folder
from talu.first_use import loaded
from talu.sources.hub_cache import cache_folder as hub_folder
from talu.weights.cache import cache_folder as packed_folder

__all__ = ["Folder", "Machine", "folder_at", "machine", "model_folders", "processor"]

NETWORKS = re.compile(r"nfs|cifs|smb|fuse\.|9p|ceph|lustre|glusterfs")
MISSING = "0 kB"
SAMPLE = 64 << 20  # bytes that are read to measure a disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine, as this process sees it.

    Attributes:
        processor: its name, or the architecture if the system does not know the name.
        processors: those of the machine.
        allowed: those that the affinity of the process allows.
        threads: those that models run in: what the affinity and the control groups allow.
        targets: instruction sets that the processor supports, best first.
        target: the one that models use; None if ``TALU_CPU`` names another one.
        memory, free_memory: bytes of the machine, and what is left for this process.
        swap, used_swap: bytes.
        load: average number of running processes in the last minute.
    """

    processor: str
    processors: int
    allowed: int
    threads: int
    targets: tuple[str, ...]
    target: str | None
    memory: int
    free_memory: int
    swap: int
    used_swap: int
    load: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder in which talu keeps files.

    Attributes:
        path: it need not exist.
        bytes: of all files in it.
        free: bytes on its disk.
        writable: whether this process can write files there.
        network: the kind of its file system if that is reached by a network, else None.
        read_rate: bytes that the disk reads in a second, from its largest file; None if there is
            no large file, or the file system only reads through the memory of the system.
    """

    path: str
    bytes: int
    free: int
    writable: bool
    network: str | None
    read_rate: float | None


def machine(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> Machine:
    """What the system says about this machine."""
    memory = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
    swap, free_swap = (_bytes(memory, name) for name in ("SwapTotal", "SwapFree"))
    try:
        target = _native.target()
    except ValueError:
        target = None
    return Machine(
        processor=processor(proc / "cpuinfo"),
        processors=os.cpu_count() or 1,
        allowed=len(os.sched_getaffinity(0)),
        threads=_native.available_threads(str(proc), str(groups)),
        targets=tuple(_native.targets()),
        target=target,
        memory=_bytes(memory, "MemTotal"),
        free_memory=available_memory(proc, groups),
        swap=swap,
        used_swap=swap - free_swap,
        load=os.getloadavg()[0],
    )


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The name of the processor, or its architecture if the system does not know the name."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()


def model_folders() -> dict[str, Path]:
    """The folders of the hub's cache, of packed weights and of beginnings of chats, by name.

    Raises:
        OSError: the user has no home folder, and no environment variable names a folder.
    """
    return {
        "hub cache": hub_folder(),
        "packed weights": packed_folder(),
        "prefix cache": prefix_folder(),
    }


def folder_at(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> Folder:
    """What is known of a folder, or of the nearest one above it that exists."""
    there = next(each for each in (path, *path.parents) if each.exists())
    sizes = _sizes(path)
    return Folder(
        path=str(path),
        bytes=sum(sizes.values()),
        free=loaded("shutil", "disk_usage")(there).free,
        writable=os.access(there, os.W_OK | os.X_OK),
        network=_network(there.resolve(), mounts),
        read_rate=_read_rate(max(sizes, key=sizes.__getitem__, default=None)),
    )


def _bytes(memory: Mapping[str, str], name: str) -> int:
    return int(memory.get(name, MISSING).split()[0]) * 1024


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file in a folder; links are left out, and a file with two names is one."""
    seen: set[tuple[int, int]] = set()
    sizes: dict[str, int] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            try:
                status = os.lstat(path)
            except OSError:  # removed in the meantime
                continue
            if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                sizes[path] = status.st_size
    return sizes


def _network(there: Path, mounts: Path) -> str | None:
    """The kind of the file system if it is one of a network."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return None
    kinds = {line.split()[4]: line.partition(" - ")[2].split()[0] for line in lines}
    kind = next((kinds[str(each)] for each in (there, *there.parents) if str(each) in kinds), "")
    return kind if NETWORKS.match(kind) else None


def _read_rate(path: str | None) -> float | None:
    """Bytes a second at which a large file is read from the disk, not from the page cache."""
    if path is None or os.path.getsize(path) < SAMPLE:
        return None
    try:
        file = os.open(path, os.O_RDONLY | os.O_DIRECT)
        with os.fdopen(file, "rb", buffering=0) as opened, mmap.mmap(-1, SAMPLE) as memory:
            begin = time.perf_counter()
            count = opened.readinto(memory) or 0
            return count / max(time.perf_counter() - begin, 1e-9)
    except OSError:
        return None
