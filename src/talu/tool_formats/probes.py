"""Renders small conversations with a chat template, to see what it writes around what it is given.

What is given are words that no template contains.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from talu.exceptions import TemplateError
from talu.template.render import traits
from talu.template.sandbox import run_template

__all__ = ["CONTENT", "IDS", "KEY", "NAMES", "OTHER", "REASON", "VALUE", "Arguments", "Probe"]

USER, CONTENT, REASON = "Zq7user", "Zq7content", "Zq7reason"
KEY, OTHER, VALUE = "Zq7key", "Zq7other", "Zq7value"
NAMES = ("Zq7first", "Zq7second")
IDS = ("Zq7idaaaa", "Zq7idbbbb")  # nine letters and digits, as Mistral's templates demand
LONG_ID = "call_Zq7idaaaa"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "d",
            "parameters": {
                "type": "object",
                "properties": {
                    KEY: {"type": "string", "description": "d"},
                    OTHER: {"type": "string", "description": "d"},
                },
                "required": [],
            },
        },
    }
    for name in NAMES
]

Arguments = Mapping[str, Any]


class Probe:
    """Renders conversations of one question and one answer.

    Attributes:
        problem: what the template said when it failed last.
    """

    def __init__(self, source: str) -> None:
        """Prepare for a template."""
        self._source = source
        self._as_objects = traits(source).arguments
        self._as_text = traits(source).text
        self.problem = ""

    def question(self) -> str | None:
        """What follows the question when the model is asked to answer; None if rendering fails."""
        return self._after([], prompt=True)

    def answer(
        self,
        *calls: tuple[str, Arguments],
        content: str = "",
        reasoning: str | None = None,
        ids: Sequence[str] = IDS,
    ) -> str | None:
        """What follows the question in a conversation with this answer; None if rendering fails."""
        message: dict[str, Any] = {"role": "assistant", "content": self._content(content)}
        if reasoning is not None:
            message |= {"reasoning_content": reasoning, "thinking": reasoning}
        if calls:
            message["tool_calls"] = [
                self._call(id, *each) for id, each in zip(ids, calls, strict=False)
            ]
        return self._after([message])

    def _call(self, id: str, name: str, arguments: Arguments) -> dict[str, Any]:
        given = dict(arguments) if self._as_objects else json.dumps(arguments, ensure_ascii=False)
        return {"id": id, "type": "function", "function": {"name": name, "arguments": given}}

    def _content(self, text: str) -> object:
        return text if self._as_text else [{"type": "text", "text": text}]

    def _after(self, answer: list[dict[str, Any]], *, prompt: bool = False) -> str | None:
        question = {"role": "user", "content": self._content(USER)}
        variables = {
            "messages": [question, *answer],
            "tools": TOOLS,
            "documents": None,
            "add_generation_prompt": prompt,
            "bos_token": "<BOS>",
            "eos_token": "<EOS>",
        }
        try:
            rendered = run_template(self._source, variables)
        except TemplateError as error:
            if error.code == "TEMPLATE_LIMIT_EXCEEDED":
                raise
            self.problem = str(error)
            return None
        _, found, after = rendered.rpartition(USER)
        return after if found else None
