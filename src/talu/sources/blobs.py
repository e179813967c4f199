"""Downloads large files into the hub's cache: resumed, verified, and once for all processes.

The hub's client loses what it has of a file when its process ends, and compares only the size of a
complete file. docs/decisions/0026-downloads.md
"""

import hashlib
import importlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO
from urllib.parse import quote

from talu.error_text import shown
from talu.exceptions import IOError as TaluIOError
from talu.sources.hub_cache import PARTIAL
from talu.threads import thread_starts

__all__ = ["DownloadStoppedError", "RemoteFile", "discard", "download", "missing_bytes"]

LONGEST_NAME = 120  # characters
CONNECTIONS = 4
WAIT_S = 0.5  # between two looks at the download of another process


class DownloadStoppedError(Exception):
    """Another file of the same download failed, or the download was interrupted."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a hub repository.

    Attributes:
        size: its bytes; 0 if they are not known.
        sha256: of its content, for files in large file storage; None for others.
        blob_id: the name of its content in git, for other files.
    """

    name: str
    size: int
    sha256: str | None
    blob_id: str | None

    def problem(self, path: Path, bar: Any = None) -> str | None:
        """What is wrong with a copy of the file; None if nothing is, or no checksum is known.

        Args:
            path: the copy.
            bar: a progress bar to update with the bytes that were read.
        """
        size = path.stat().st_size
        if self.size and size != self.size:
            return f"it has {size} bytes, expected {self.size}"
        if self.sha256 is not None:
            kind, expected, digest = "SHA-256", self.sha256, hashlib.sha256()
        elif self.blob_id is not None:
            kind, expected, digest = "git checksum", self.blob_id, hashlib.sha1(b"blob %d\0" % size)
        else:
            return None
        with path.open("rb") as file:
            while data := file.read(1 << 22):
                digest.update(data)
                if bar is not None:
                    bar.update(len(data))
        found = digest.hexdigest()
        return None if found == expected else f"its {kind} is {found}, expected {shown(expected)}"


def missing_bytes(files: Iterable[RemoteFile], home: Path) -> int:
    """How many bytes of the files are not in the cache.

    Args:
        files: with a SHA-256.
        home: the folder of the repository in the cache.
    """
    return sum(file.size - _present(file, home) for file in files)


def download(
    files: Sequence[RemoteFile], model_id: str, revision: str, home: Path, bars: Any
) -> None:
    """Download those files whose content is not in the cache yet.

    What is downloaded stays in the cache if the download is interrupted, and is continued by the
    next one. While another process downloads a file, its progress is shown.

    Args:
        files: with a SHA-256.
        model_id: the repository.
        revision: its version.
        home: its folder in the cache.
        bars: the class of the progress bars.

    Raises:
        IOError: a file is not what the repository says.
        OSError: the cache cannot be written.
        Exception: any error of the hub's client.
    """
    hub = importlib.import_module("huggingface_hub")
    wanted = {file.sha256: file for file in files if not _target(file, home).exists()}
    waiting: SimpleQueue[RemoteFile] = SimpleQueue()
    for file in wanted.values():
        waiting.put(file)
    outcomes: SimpleQueue[BaseException | None] = SimpleQueue()
    stop = threading.Event()

    def work() -> None:
        try:
            while not stop.is_set():
                file = waiting.get_nowait()
                url = hub.hf_hub_url(model_id, file.name, revision=revision)
                _fetch(file, url, home, bars, stop)
        except Empty:
            outcomes.put(None)
        except BaseException as error:  # noqa: BLE001 - raised below
            outcomes.put(error)

    # Threads that nobody waits for: one that waits for the network cannot be interrupted.
    workers = min(CONNECTIONS, len(wanted))
    try:
        for _ in range(workers):
            with thread_starts():
                threading.Thread(target=work, name="talu-download", daemon=True).start()
        for _ in range(workers):
            if (failure := outcomes.get()) is not None:
                raise failure
    finally:
        stop.set()


def discard(path: Path, home: Path) -> None:
    """Remove a damaged file from a repository in the cache: its link and its content.

    What a link outside of the repository refers to is left alone.
    """
    with suppress(OSError):
        blob = Path(os.path.normpath(path.parent / os.readlink(path)))
        if blob.parent == home / "blobs":
            blob.unlink()
    path.unlink(missing_ok=True)


class _Stoppable:
    """A file that refuses to be written once the download has been stopped."""

    def __init__(self, file: BinaryIO, stop: threading.Event) -> None:
        self._file = file
        self._stop = stop
        self.tell = file.tell
        self.seek = file.seek
        self.truncate = file.truncate

    def write(self, data: bytes) -> None:
        """Write, and leave nothing in a buffer that a killed process would lose."""
        if self._stop.is_set():
            raise DownloadStoppedError
        self._file.write(data)
        self._file.flush()


def _present(file: RemoteFile, home: Path) -> int:
    """How many bytes of a file are in the cache."""
    target = _target(file, home)
    if target.exists():
        return file.size
    try:
        return min(_partial(file, home).stat().st_size, file.size)
    except OSError:
        return 0


def _target(file: RemoteFile, home: Path) -> Path:
    return home / "blobs" / str(file.sha256)


def _partial(file: RemoteFile, home: Path) -> Path:
    """What there is of a file; its name says which one it is."""
    target = _target(file, home)
    name = quote(file.name.rpartition("/")[2], safe="")[-LONGEST_NAME:]
    return target.with_name(f"{target.name}.{name}{PARTIAL}")


def _fetch(file: RemoteFile, url: str, home: Path, bars: Any, stop: threading.Event) -> None:
    """Download one file to its place, unless another process does so."""
    client = importlib.import_module("huggingface_hub.file_download")
    target = _target(file, home)
    partial = _partial(file, home)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(file, home, bars, stop):
        if target.exists():
            return
        with partial.open("ab") as out:
            if out.tell() > file.size:
                out.truncate(0)
            client.http_get(
                url,
                _Stoppable(out, stop),
                resume_size=out.tell(),
                headers=client.build_hf_headers(library_name="talu"),
                expected_size=file.size,
                displayed_filename=file.name.rpartition("/")[2],
                tqdm_class=bars,
            )
            os.fsync(out.fileno())
        if problem := file.problem(partial):
            partial.unlink()
            raise TaluIOError(
                f"the download of {shown(file.name)} is damaged and was removed: {problem}; "
                "try again",
                code="IO_NETWORK_FAILED",
            )
        partial.replace(target)


@contextmanager
def _locked(file: RemoteFile, home: Path, bars: Any, stop: threading.Event) -> Iterator[None]:
    """Hold the lock under which the hub's client downloads this file too.

    While another process holds it, its progress is shown.
    """
    utils = importlib.import_module("huggingface_hub.utils")
    timeout = importlib.import_module("filelock").Timeout
    path = home.parent / ".locks" / home.name / f"{file.sha256}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        bar = None
        while True:
            try:
                stack.enter_context(utils.WeakFileLock(path, timeout=WAIT_S))
                break
            except timeout:
                if stop.is_set():
                    raise DownloadStoppedError from None
                if bar is None:
                    bar = bars(
                        total=file.size, unit="B", unit_scale=True,
                        desc="another process downloads " + file.name.rpartition("/")[2],
                    )  # fmt: skip
                with suppress(OSError):
                    bar.update(_partial(file, home).stat().st_size - bar.n)
        if bar is not None:
            bar.close()
        yield
