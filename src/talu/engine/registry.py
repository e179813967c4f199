"""Who has which model open: every model once, closed when the last one lets go.

Counts leases by resolved folder and options. It knows nothing of what an engine does.
"""

import atexit
import os
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from talu._native import return_free_memory
from talu.engine.engine import Engine
from talu.engine.loading import load_model
from talu.exceptions import StateError
from talu.models import load_architecture
from talu.types import WeightFormat
from talu.weights.resolve import resolve

__all__ = ["EngineLease", "acquire"]


@dataclass(frozen=True, slots=True)
class _Key:
    folder: Path
    use_mmap: bool
    num_threads: int
    weight_format: WeightFormat


@dataclass(eq=False, slots=True)
class _Entry:
    leases: int = 0
    opened: Future[Engine] = field(default_factory=Future)


_changed = threading.Condition()  # guards what follows; notified when an engine has closed
_entries: dict[_Key, _Entry] = {}


class EngineLease:
    """A share in an open engine. Release it when it is no longer needed.

    A lease that was released holds nothing of the model, whoever still holds the lease.

    Attributes:
        folder: what was opened.
    """

    def __init__(self, key: _Key, entry: _Entry) -> None:
        self.folder = key.folder
        self._engine: Engine | None = entry.opened.result()
        self._key = key
        self._entry: _Entry | None = entry

    @property
    def engine(self) -> Engine:
        """The engine, shared with others; ``StateError`` once the share was given back."""
        engine = self._engine
        if engine is None:
            raise StateError("the model is closed; open it again", "STATE_CLOSED")
        return engine

    def release(self) -> None:
        """Give the share back; the last one closes the engine and frees its memory. Idempotent."""
        with _changed:
            entry, self._entry = self._entry, None
            self._engine = None
        if entry is None or not _release(self._key, entry):
            return
        del entry  # the model's tables go with it
        return_free_memory()


def acquire(
    ref: str,
    *,
    use_mmap: bool = True,
    num_threads: int = 0,
    weight_format: WeightFormat = "auto",
    offline: bool = False,
) -> EngineLease:
    """A share in the engine of a model, which is opened if nobody has it open.

    Threads that ask at once wait for one opening, and for one closing before it. An error of that
    opening reaches all of them; the next to ask tries again. A forked process opens its own.

    Raises:
        TaluError: what ``resolve`` and ``load_model`` raise.
    """
    folder = resolve(ref, offline=offline, check=load_architecture).resolve()
    key = _Key(folder, use_mmap, num_threads, weight_format)
    with _changed:
        while (entry := _entries.get(key)) is not None and entry.leases == 0:
            _changed.wait()
        first = entry is None
        if entry is None:
            entry = _entries[key] = _Entry()
        entry.leases += 1
    if first:
        _open(key, entry)
    return EngineLease(key, entry)


def _open(key: _Key, entry: _Entry) -> None:
    try:
        model = load_model(
            key.folder,
            use_mmap=key.use_mmap,
            num_threads=key.num_threads,
            weight_format=key.weight_format,
        )
        entry.opened.set_result(Engine(model))
    except BaseException as error:
        _drop(key, entry)
        entry.opened.set_exception(error)
        raise


def _drop(key: _Key, entry: _Entry) -> None:
    with _changed:
        if _entries.get(key) is entry:  # after a fork it may be another
            del _entries[key]
        _changed.notify_all()


def _release(key: _Key, entry: _Entry) -> bool:
    """Whether it was the last share, and the engine has been closed."""
    with _changed:
        entry.leases -= 1
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
