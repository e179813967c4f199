"""What the tests of several protocols ask with, and get."""

from typing import Any

from openai import OpenAI

from talu.types import ReasoningDelta, ToolCallDelta, ToolCallEvent

__all__ = ["CALLS", "CITY", "openai_client"]

CITY: Any = {  # the arguments of a tool
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
CALLS = [  # an answer with two calls, whose pieces are mixed
    ReasoningDelta("Two cities. "),
    "Let me see.",
    ToolCallDelta("a", "weather", '{"city": '),
    ToolCallDelta("b", "weather", '{"city":'),
    ToolCallDelta("a", "weather", '"Rome"}'),
    ToolCallDelta("b", "weather", ' "Oslo"}'),
    ToolCallEvent("a", "weather", '{"city": "Rome"}'),
    ToolCallEvent("b", "weather", '{"city": "Oslo"}'),
]


def openai_client(server: Any, **options: Any) -> OpenAI:
    """OpenAI's client of a server."""
    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, **options)
