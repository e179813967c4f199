"""Keeps blocks of the KV cache in files, for later processes.

A file has the keys and values of one block. Its name is a digest of the model, the namespace and
all tokens up to the end of the block, so that chats with a common beginning share files.
docs/decisions/0033-prefix-cache-on-disk.md
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import stat
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talu import _native
from talu.exceptions import ModelError
from talu.weights.cache import cache_folder
from talu.weights.files import OpenFile, version_of

__all__ = ["PrefixFiles", "build", "file_bytes", "prefix_folder"]

VERSION = str(import_module("talu").__version__)

MAGIC = b"talu kv\x01"
HEADER = len(MAGIC) + 32 + 32  # name and checksum as bytes
SUFFIX = ".block"
TEMPORARY = ".part"
SPARE_BYTES = 1 << 30  # of disk space that the files leave free
STALE_S = 3600  # age of a temporary file that nobody writes any more

Content = NDArray[np.uint8]

logger = logging.getLogger("talu.engine")
_numbers = count()


def prefix_folder() -> Path:
    """The folder of the files; it need not exist.

    Raises:
        OSError: the user has no home folder, and no environment variable names a folder.
    """
    return cache_folder().parent / "prefixes"


def build() -> list[str | int]:
    """Identifies the code that computes keys and values: another build may round differently."""
    return [VERSION, *version_of(Path(_native.__file__))[1:3]]


def file_bytes(block_bytes: int) -> int:
    """Size of the file of a block."""
    return HEADER + block_bytes


class PrefixFiles:
    """The files of one model. Several processes may use a folder at the same time.

    A file that is damaged, or is not what its name says, is removed when it is read. All files of
    the folder, whatever their model, share the budget; those used longest ago are removed first.

    Attributes:
        most_blocks: how many blocks of one sequence fit into the budget.
    """

    def __init__(self, folder: Path, model: list[Any], *, block_bytes: int, budget: int) -> None:
        """Create the folder if it is missing.

        Args:
            folder: where the files are.
            model: identifies everything that the content depends on, in JSON types.
            block_bytes: size of a block.
            budget: maximum bytes of all files in the folder.

        Raises:
            OSError: the folder cannot be written, or other users can write it.
        """
        self._folder = folder
        self._root = hashlib.sha256(json.dumps(model, sort_keys=True).encode()).digest()
        self._block_bytes = block_bytes
        self._budget = budget
        self._total = budget  # bytes of all files when they were last counted, and written since
        self._written = 0  # bytes since then
        # Of one chat: what is written next must not take the room of what came before.
        self.most_blocks = max(1, (budget - budget // 10) // file_bytes(block_bytes) - 1)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise OSError(f"other users may write to {folder}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OSError(f"{folder} is not writable")

    def names(self, tokens: Sequence[int], block_size: int, namespace: str) -> list[str]:
        """The names of the full blocks of a sequence."""
        digest = hashlib.sha256(self._root + namespace.encode()).digest()
        names = []
        for start in range(0, len(tokens) - block_size + 1, block_size):
            part = array("i", tokens[start : start + block_size])
            digest = hashlib.sha256(digest + part.tobytes()).digest()
            names.append(digest.hex())
        return names

    def touch(self, names: Sequence[str]) -> None:
        """Record that these blocks of one sequence are used; the first ones are removed last."""
        now = time.time_ns()
        for index, name in enumerate(names):
            with contextlib.suppress(OSError):
                os.utime(self._path(name), ns=(now, now - 1000 * index))

    def __contains__(self, name: str) -> bool:
        return self._path(name).is_file()

    def read(self, name: str) -> Content | None:
        """The content of a block; None if there is no usable file of it."""
        path = self._path(name)
        try:
            file = OpenFile(path, use_mmap=False)
        except ModelError:  # there is none
            return None
        with closing(file), contextlib.suppress(ModelError):
            if file.size == HEADER + self._block_bytes:
                whole = file.read(0, file.size)
                content: Content = whole[HEADER:]
                if whole[:HEADER].tobytes() == self._header(name, content):
                    return content
        logger.warning("%s is damaged and is removed", path)
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    def write(self, name: str, content: Content) -> None:
        """Store the content of a block, completely or not at all.

        Raises:
            OSError: it cannot be written, or the disk is almost full.
        """
        size = HEADER + len(content)
        self._folder.mkdir(mode=0o700, exist_ok=True)  # users delete it to forget their prompts
        self._make_room(size)
        if shutil.disk_usage(self._folder).free < size + SPARE_BYTES:
            raise OSError("less than 1 GiB of the disk is free")
        part = self._folder / f"{os.getpid()}-{next(_numbers)}{TEMPORARY}"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(part, flags, 0o600), "wb") as file:
                file.write(self._header(name, content))
                file.write(content.data)
            part.replace(self._path(name))
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
        self._total += size
        self._written += size

    def _header(self, name: str, content: Content) -> bytes:
        return MAGIC + bytes.fromhex(name) + hashlib.sha256(content.data).digest()

    def _path(self, name: str) -> Path:
        return self._folder / (name + SUFFIX)

    def _make_room(self, size: int) -> None:
        """Remove the files used longest ago until another one fits into the budget."""
        part = self._budget // 10
        if self._total + size <= self._budget and self._written < part:
            return
        files = sorted(self._files())  # other processes write, too
        self._total, self._written = sum(used for _, used, _ in files), 0
        if self._total + size <= self._budget:
            return
        goal = self._budget - part - size  # so that not every file takes this long
        for _, used, path in files:
            if self._total <= goal:
                break
            path.unlink(missing_ok=True)
            self._total -= used

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """Time of the last use, bytes and path of each file; removes stale temporary files."""
        for entry in os.scandir(self._folder):
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if entry.name.endswith(SUFFIX):
                    yield status.st_mtime_ns, status.st_size, Path(entry.path)
                elif entry.name.endswith(TEMPORARY) and time.time() - status.st_mtime > STALE_S:
                    os.unlink(entry.path)
