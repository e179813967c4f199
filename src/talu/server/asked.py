"""What a request asks for in talu's terms, whatever its protocol. This module is pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from talu.types import Request

__all__ = ["Asked"]


@dataclass(frozen=True)
class Asked:
    """One or more answers to a question.

    Attributes:
        model: the name of the model.
        requests: one for each answer.
        stream: send the pieces of the answers as they come.
        names: see ``failures.failure_of``.
    """

    model: str
    requests: tuple[Request, ...]
    stream: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
