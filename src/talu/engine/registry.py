"""Shares open engines, one for each model, version of its files, device and options."""

import atexit
import gc
import os
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

from talu._native import return_free_memory
from talu.engine.devices import device_for
from talu.engine.engine import Engine
from talu.engine.loading import load_model
from talu.exceptions import StateError
from talu.models import load_architecture
from talu.sources import ModelSource, open_model
from talu.types import LocalBackend
from talu.weights.files import FileVersion

__all__ = ["EngineLease", "acquire"]


class _Key(NamedTuple):
    location: str
    files: tuple[FileVersion, ...]
    device: str
    options: LocalBackend


@dataclass(eq=False, slots=True)
class _Entry:
    """An engine that is opening, open or closing.

    Attributes:
        busy: the thread that is opening or closing it.
    """

    leases: int = 0
    opened: Future[Engine] = field(default_factory=Future)
    busy: int = field(default_factory=threading.get_ident)

    @property
    def failed(self) -> bool:
        """Whether a failure closed its engine, which is then unusable."""
        done = self.opened.done() and self.opened.exception() is None
        return done and self.opened.result().failed


_changed = threading.Condition()  # guards the globals below; notified when an engine has closed
_entries: dict[_Key, _Entry] = {}


class EngineLease:
    """A lease on a shared open engine. Release it when it is no longer needed.

    A released lease does not keep the model in memory.

    Attributes:
        location: the folder or file of the model.
        info: describes the model; the notes say what was chosen because the reference leaves it
            open.
    """

    def __init__(self, key: _Key, entry: _Entry, note: str | None) -> None:
        self.location = key.location
        self._engine: Engine | None = entry.opened.result()
        info = self._engine.info
        self.info = info if note is None else info._replace(notes=(note, *info.notes))
        self._key = key
        self._entry: _Entry | None = entry
        self._process = os.getpid()

    @property
    def engine(self) -> Engine:
        """The shared engine; raises ``StateError`` after ``release``."""
        engine = self._engine
        if engine is None:
            raise StateError("the model is closed; open it again", "STATE_CLOSED")
        return engine

    @property
    def valid(self) -> bool:
        """Whether this process acquired it; leases are not valid in a forked child."""
        return self._process == os.getpid()

    def release(self) -> None:
        """Release the lease; the last one closes the engine and frees its memory. Idempotent.

        In a forked child this does nothing.
        """
        if not self.valid:
            return
        with _changed:
            entry, self._entry = self._entry, None
            self._engine = None
        if entry is None or not _release(self._key, entry):
            return
        del entry  # frees the model's tables
        return_free_memory()


def acquire(ref: str, options: LocalBackend | None = None, *, offline: bool = False) -> EngineLease:
    """Acquire a lease on the engine of a model, which is opened first if necessary.

    Concurrent callers wait for a single open, and for a close in progress before it. All of them
    get its error; the next call tries again. A new engine is opened in a forked child, for a model
    whose files have changed, and after the engine of the model has failed.

    Raises:
        TaluError: any error of ``open_model`` and ``load_model``.
        StateError: this call interrupts the opening or closing of the same model, as a signal
            handler may (code ``STATE_BUSY``).
    """
    source, note = open_model(ref, offline=offline, check=load_architecture)
    options = options or LocalBackend()
    key = _Key(source.location, source.files, device_for(options).name, options)
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
        _open(key, entry, source)
    return EngineLease(key, entry, note)


def _check_not_interrupted(entry: _Entry, doing: str) -> None:
    if entry.busy == threading.get_ident():
        raise StateError(
            f"this call interrupts code in which the model is being {doing}; call again after "
            "that code has ended",
            "STATE_BUSY",
        )


def _open(key: _Key, entry: _Entry, source: ModelSource) -> None:
    try:
        if len(_entries) > 1:  # some may belong to clients that are garbage but not collected yet
            gc.collect()
        entry.opened.set_result(Engine(load_model(source, key.options)))
    except BaseException as error:
        _drop(key, entry)
        entry.opened.set_exception(error)
        raise


def _drop(key: _Key, entry: _Entry) -> None:
    with _changed:
        if _entries.get(key) is entry:  # after a failure it may be another entry
            del _entries[key]
        _changed.notify_all()


def _release(key: _Key, entry: _Entry) -> bool:
    """Release a lease; True if it was the last one, so that the engine was closed."""
    with _changed:
        entry.leases -= 1
        entry.busy = threading.get_ident()
        last = entry.leases == 0
    if last:
        try:
            entry.opened.result().close()
        finally:  # even if Ctrl-C ends the wait, so that the next open does not wait for ever
            _drop(key, entry)
    return last


def _close_all() -> None:
    """Close all engines at exit, before the interpreter is finalized."""
    for entry in list(_entries.values()):
        if entry.opened.done() and entry.opened.exception() is None:
            entry.opened.result().close()


def _forget() -> None:
    """Forget all engines in a forked child, which lacks their threads."""
    global _changed
    _changed = threading.Condition()
    _entries.clear()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget)
