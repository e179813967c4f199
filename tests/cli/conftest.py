"""Fixtures that run the command line as a user does, in this process or in another one."""

import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from talu.backends.scripted import ScriptedModel, Step
from talu.cli import options
from talu.cli.main import run
from talu.client import Client
from talu.router.spec import ModelSpec


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


Talu = Callable[..., Outcome]


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def talu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Talu:
    """Run the command line here: ``talu("ask", "hi", stdin="…")``, None is a terminal."""
    monkeypatch.delenv("TALU_MODEL", raising=False)

    def call(*arguments: str, stdin: str | bytes | None = None) -> Outcome:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        stream = Terminal() if data is None else io.TextIOWrapper(io.BytesIO(data))
        monkeypatch.setattr(sys, "stdin", stream)
        status = run(arguments)
        return Outcome(status, *capsys.readouterr())

    return call


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ScriptedModel]:
    """Make the command line use a scripted model."""

    def install(*script: Step, more: Sequence[list[Step]] = ()) -> ScriptedModel:
        model = ScriptedModel(list(script), *more, model="scripted")
        spec = ModelSpec("scripted", model)
        monkeypatch.setattr(options, "Client", lambda _, profile: Client(spec, profile=profile))
        return model

    return install


@pytest.fixture
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m talu`` in a separate process."""

    def call(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "talu", *arguments]
        options = {"stdin": subprocess.DEVNULL, "timeout": 60} | options
        if "input" in options:
            del options["stdin"]
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)

    return call
