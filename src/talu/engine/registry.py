"""Shares open engines: one for each folder, state of its files and options, closed by the last.

It knows nothing of what an engine does.
"""

import atexit
import gc
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from talu._native import return_free_memory
from talu.engine.engine import Engine
from talu.engine.loading import load_model
from talu.exceptions import ModelError, StateError
from talu.models import load_architecture
from talu.types import LocalBackend
from talu.weights.resolve import resolve

__all__ = ["EngineLease", "acquire"]

READ = (".jinja", ".json", ".safetensors")  # suffixes of the files that a model is made of


@dataclass(frozen=True, slots=True)
class _Key:
    folder: Path
    files: tuple[tuple[str, int, int, int], ...]
    options: LocalBackend


@dataclass(eq=False, slots=True)
class _Entry:
    """An engine that is opening, open or closing.

    Attributes:
        busy: the thread that opens or closes it.
    """

    leases: int = 0
    opened: Future[Engine] = field(default_factory=Future)
    busy: int = field(default_factory=threading.get_ident)

    @property
    def failed(self) -> bool:
        """Whether its engine was closed by a failure, so that nobody can use it."""
        done = self.opened.done() and self.opened.exception() is None
        return done and self.opened.result().failed


_changed = threading.Condition()  # guards what follows; notified when an engine has closed
_entries: dict[_Key, _Entry] = {}


class EngineLease:
    """A share in an open engine. Release it when it is no longer needed.

    A released lease keeps nothing of the model in memory.

    Attributes:
        folder: what was opened.
    """

    def __init__(self, key: _Key, entry: _Entry) -> None:
        self.folder = key.folder
        self._engine: Engine | None = entry.opened.result()
        self._key = key
        self._entry: _Entry | None = entry
        self._process = os.getpid()

    @property
    def engine(self) -> Engine:
        """The engine, shared with others; ``StateError`` once the share was given back."""
        engine = self._engine
        if engine is None:
            raise StateError("the model is closed; open it again", "STATE_CLOSED")
        return engine

    @property
    def valid(self) -> bool:
        """Whether this process took it; a forked child has no share in its parent's engines."""
        return self._process == os.getpid()

    def release(self) -> None:
        """Give the share back; the last one closes the engine and frees its memory. Idempotent.

        In a forked child this does nothing.
        """
        if not self.valid:
            return
        with _changed:
            entry, self._entry = self._entry, None
            self._engine = None
        if entry is None or not _release(self._key, entry):
            return
        del entry  # the model's tables go with it
        return_free_memory()


def acquire(ref: str, options: LocalBackend | None = None, *, offline: bool = False) -> EngineLease:
    """A share in the engine of a model, which is opened first if necessary.

    Threads that ask at the same time wait for one opening, and for a closing before it. An error
    reaches all of them; the next call tries again. A new engine is opened in a forked child, for a
    folder whose files have changed, and after the engine of the model has failed.

    Raises:
        TaluError: what ``resolve`` and ``load_model`` raise.
        StateError: this call interrupts the opening or closing of the same model, as a signal
            handler may (code ``STATE_BUSY``).
    """
    folder = _real(resolve(ref, offline=offline, check=load_architecture))
    key = _Key(folder, tuple(sorted(_files(folder))), options or LocalBackend())
    with _changed:
        while (entry := _entries.get(key)) is not None and entry.leases == 0:
            _check_not_interrupted(entry, "closed")
            _changed.wait()
        if entry is not None and entry.failed:
            del _entries[key]
            entry = None
        first = entry is None
        if entry is None:
            entry = _entries[key] = _Entry()
        elif not entry.opened.done():
            _check_not_interrupted(entry, "opened")
        entry.leases += 1
    if first:
        _open(key, entry)
    return EngineLease(key, entry)


def _real(folder: Path) -> Path:
    """The folder without links."""
    try:
        return folder.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{folder} cannot be opened: {error}") from error


def _files(folder: Path, *, inner: bool = False) -> Iterator[tuple[str, int, int, int]]:
    """Name, size, time and inode of the files that the model may be made of.

    They lie in the folder and in the inner folders of sentence embeddings, such as ``1_Pooling``.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(READ):
                with suppress(OSError):  # a broken link: loading says what is missing
                    status = entry.stat()
                    known = (status.st_size, status.st_mtime_ns, status.st_ino)
                    yield (entry.path, *known)
            elif not inner and entry.name[:1].isdigit() and entry.is_dir():
                yield from _files(Path(entry.path), inner=True)


def _check_not_interrupted(entry: _Entry, doing: str) -> None:
    if entry.busy == threading.get_ident():
        raise StateError(
            f"this call interrupts the code by which the model is being {doing}; ask once that "
            "code has ended",
            "STATE_BUSY",
        )


def _open(key: _Key, entry: _Entry) -> None:
    try:
        if len(_entries) > 1:  # some may be of clients that are garbage but were not collected yet
            gc.collect()
        entry.opened.set_result(Engine(load_model(key.folder, key.options)))
    except BaseException as error:
        _drop(key, entry)
        entry.opened.set_exception(error)
        raise


def _drop(key: _Key, entry: _Entry) -> None:
    with _changed:
        if _entries.get(key) is entry:  # after a failure it may be another
            del _entries[key]
        _changed.notify_all()


def _release(key: _Key, entry: _Entry) -> bool:
    """Whether it was the last share, and the engine has been closed."""
    with _changed:
        entry.leases -= 1
        entry.busy = threading.get_ident()
        last = entry.leases == 0
    if last:
        try:
            entry.opened.result().close()
        finally:  # Ctrl-C may end the waiting; who opens the model next must not wait for ever
            _drop(key, entry)
    return last


def _close_all() -> None:
    """At exit: end the threads before the interpreter that they run on goes away."""
    for entry in list(_entries.values()):
        if entry.opened.done() and entry.opened.exception() is None:
            entry.opened.result().close()


def _forget() -> None:
    """In a forked child: the engines' threads stayed in the parent."""
    global _changed
    _changed = threading.Condition()
    _entries.clear()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget)
