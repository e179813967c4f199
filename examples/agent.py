"""An agent that calls functions until it can answer: python agent.py [MODEL WITH TOOLS]."""

import sys
from typing import Literal

from talu import Client, ModelSpec, ScriptedModel
from talu.chat import ToolRunPiece
from talu.tools import tool
from talu.types import ToolCallEvent

SCRIPT = [
    ["I look. ", ToolCallEvent("c1", "find", '{"kind": "note"}')],
    [ToolCallEvent(n, "delete", f'{{"name": "{n}"}}') for n in ("old", "x")],
    "The old note is gone; the other one does not exist.",
]
NOTES = {"old": "note", "plan": "note", "photo": "image"}


def find(kind: Literal["note", "image"]) -> list[str]:
    """List the files of a kind."""
    return [name for name, its in NOTES.items() if its == kind]


@tool(needs_approval=True)
def delete(name: str) -> str:
    """Delete a file."""
    return f"deleted the {NOTES.pop(name)}"


model = sys.argv[1] if sys.argv[1:] else ModelSpec("scripted", ScriptedModel(*SCRIPT))
with Client(model) as client:
    chat = client.chat("Keep the folder tidy.", tools=[find, delete], max_rounds=8)
    for piece in chat("Delete old notes.", approve=lambda call: "photo" not in call.arguments):
        if isinstance(piece, ToolRunPiece):
            print(f"\n{piece.run.name} {piece.run.call.arguments} -> {piece.run.output}")
        print(piece, end="")
    print(f"\nleft: {', '.join(NOTES)}, {len(chat.last_response.tool_runs)} calls")
