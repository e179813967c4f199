"""Runs engines in processes of their own, where they sleep while another one works."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Maker = Callable[..., Any]


class Worker:
    """An engine with a file open, in a process of its own."""

    def __init__(self, make: Maker, file: Path, threads: int, *more: object) -> None:
        """Call ``make`` with the other arguments in a new process."""
        start = multiprocessing.get_context("spawn")
        self._pipe, other = start.Pipe()
        self._process = start.Process(target=serve, args=(other, make, file, threads, *more))
        self._process.start()
        other.close()
        self.name: str = self._pipe.recv()

    def ask(self, method: str, *arguments: object) -> Any:
        """Call a method of the engine."""
        self._pipe.send((method, arguments))
        return self._pipe.recv()

    def resident(self) -> float:
        """Megabytes of the process that are in memory."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join()


def serve(pipe: Connection, make: Maker, *arguments: object) -> None:
    """Call methods of an engine until told to end. Runs in the process of the engine."""
    engine = make(*arguments)
    pipe.send(engine.name)
    while (call := pipe.recv()) is not None:
        method, given = call
        pipe.send(getattr(engine, method)(*given))
    engine.close()
