"""Scripted models under names, and what the router tried."""

from typing import Any

from talu.backends.scripted import ScriptedModel, Step
from talu.exceptions import EndpointError


def model(name: str, *scripts: str | list[Step], **arguments: Any) -> ScriptedModel:
    """A model that answers with these scripts."""
    return ScriptedModel(*scripts, model=name, **arguments)


def tried(answer: Any) -> list[tuple[str, str | None]]:
    """The models that were asked, and how each failed."""
    return [(attempt.model, attempt.error) for attempt in answer.attempts]


def down() -> EndpointError:
    """The server cannot be reached now."""
    return EndpointError("it is down", "SERVER_ERROR", transient=True)


def broken() -> EndpointError:
    """The connection broke inside an answer."""
    return EndpointError("it broke", "STREAM_BROKEN", transient=True)
