"""What a conversation is, and how it becomes text: knows ChatML and none of the subjects."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

START, END = "<|im_start|>", "<|im_end|>"
TOOL_CALL = re.compile(r"<tool_call>\n(.*?)\n</tool_call>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer.

    `expect` is what a right answer contains. A `fresh` question makes sense without
    what came before, so it can be held out by its own text.
    """

    user: str
    assistant: str
    expect: str = ""
    fresh: bool = True
    role: str = "user"


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns under one system prompt; `sums` are the pairs of numbers that are added in it."""

    skill: str
    turns: tuple[Turn, ...]
    system: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    sums: tuple[tuple[int, int], ...] = field(default=())


def system_block(system: str, tools: tuple[Mapping[str, Any], ...]) -> str:
    """Return the text of the system turn, empty when there is nothing to say."""
    if not tools:
        return system
    listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    head = f"{system}\n\n" if system else ""
    return (
        f"{head}# Tools\n\n<tools>\n{listed}\n</tools>\n\n"
        'To call a tool, answer with\n<tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>'
    )


def pieces(conversation: Conversation) -> list[tuple[str, bool]]:
    """Return the text in order, each piece with whether the model has to learn to write it."""
    out: list[tuple[str, bool]] = []
    system = system_block(conversation.system, conversation.tools)
    if system:
        out.append((f"{START}system\n{system}{END}\n", False))
    for turn in conversation.turns:
        text = turn.user
        if turn.role == "tool":
            text = f"<tool_response>\n{text}\n</tool_response>"
        out.append((f"{START}user\n{text}{END}\n{START}assistant\n", False))
        out.append((f"{turn.assistant}{END}", True))
        out.append(("\n", False))
    return out


def text_of(conversation: Conversation) -> str:
    """Return the whole conversation as the chat template renders it."""
    return "".join(text for text, _ in pieces(conversation))


def messages(conversation: Conversation) -> list[dict[str, object]]:
    """Return OpenAI-style messages up to, and without, the last answer."""
    out: list[dict[str, object]] = []
    if conversation.system:
        out.append({"role": "system", "content": conversation.system})
    for index, turn in enumerate(conversation.turns):
        out.append(_asked(turn, index))
        out.append(_answered(turn, index))
    return out[:-1]


def _asked(turn: Turn, index: int) -> dict[str, object]:
    if turn.role == "tool":
        return {"role": "tool", "tool_call_id": f"call_{index - 1}", "content": turn.user}
    return {"role": "user", "content": turn.user}


def _answered(turn: Turn, index: int) -> dict[str, object]:
    found = TOOL_CALL.search(turn.assistant)
    if found is None:
        return {"role": "assistant", "content": turn.assistant}
    call = json.loads(found.group(1))
    function = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": f"call_{index}", "type": "function", "function": function}],
    }
