"""Prepares how the text of an answer is decoded and read."""

from typing import TYPE_CHECKING

from talu.backends.local.prompt import Prompt
from talu.backends.reply import ChatReply, RawReply
from talu.engine.engine import Engine
from talu.engine.stops import ReplyForm
from talu.first_use import loaded
from talu.tokenizer.decoding import TAG_MARK
from talu.tool_formats.description import HARMONY_REASONING
from talu.tool_formats.reader import Reader
from talu.types import Request

if TYPE_CHECKING:  # loaded for models that write it
    from talu.tool_formats.harmony import HarmonyReader

__all__ = ["reply_of"]


def reply_of(
    request: Request, prompt: Prompt, engine: Engine
) -> tuple[ReplyForm, ChatReply | RawReply]:
    """What the engine has to know of the text, and what reads it."""
    if request.messages is None:
        return ReplyForm(continues=True), RawReply()
    tags = None
    form, tools = prompt.calls, {}
    if form is not None:
        literals = loaded("talu.tool_formats.description", "literals")
        parameters_of = loaded("talu.tool_formats.schemas", "parameters_of")
        tags = engine.tokenizer.tags_in([*literals(form), *(prompt.reasoning or ())])
        tools = {tool.get("function", tool)["name"]: parameters_of(tool) for tool in request.tools}
    elif prompt.reasoning is not None:
        tags = engine.tokenizer.tags_in(prompt.reasoning)
    if request.tool_choice == "none":
        form = None
    reader: Reader | HarmonyReader
    if prompt.reasoning == HARMONY_REASONING:
        harmony, tokens = (
            loaded("talu.tool_formats.harmony", name) for name in ("HarmonyReader", "TOKENS")
        )
        tags = engine.tokenizer.tags_in(tokens)
        reader = harmony(
            with_tools=form is not None,
            mark_tags=lambda text: engine.tokenizer.mark_tags(text, tags),
            mark=TAG_MARK,
        )
        return ReplyForm(has_regions=True, tags=tags), ChatReply(reader)
    reader = Reader(
        form,
        tools,
        reasoning=prompt.reasoning,
        in_reasoning=prompt.in_reasoning,
        mark_tags=lambda text: engine.tokenizer.mark_tags(text, tags),
        mark=TAG_MARK,
    )
    shape = ReplyForm(has_regions=True, in_reasoning=prompt.in_reasoning, tags=tags)
    if prompt.reasoning is not None:
        opening, closing = prompt.reasoning
        shape = shape._replace(opening=opening, closings=(closing, *shape.closings[1:]))
    return shape, ChatReply(reader)
