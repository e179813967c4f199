"""The paths that show how a model reads text: tokens and prompts.

They take the fields of vLLM's server, and of llama.cpp's where those have other names.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from talu.chat.requests import chat_request
from talu.config import GenerationConfig
from talu.router.abilities import renderer
from talu.server.bodies import MAX_MESSAGES, Body, without_unset
from talu.server.failures import invalid, naming
from talu.server.openai_chat import Message
from talu.server.openai_fields import FunctionTool, tools_of
from talu.server.refusals import OPENAI_ERRORS
from talu.server.responses import Json
from talu.server.service import Service
from talu.threads import beside_loop

__all__ = ["ROUTER"]

ROUTER = APIRouter(tags=["Tokens"], responses=OPENAI_ERRORS)
NAMES = {"ids": "tokens", "text": "prompt", "extra_context": "chat_template_kwargs"}


class TokenizeBody(Body):
    """A text, as ``prompt`` or as ``content``."""

    model: str | None = None
    prompt: str | None = None
    content: str | None = None
    add_special_tokens: bool = True


class DetokenizeBody(Body):
    """Token ids."""

    model: str | None = None
    tokens: list[int]


class TemplateBody(Body):
    """A conversation, and the tools that the model is shown."""

    model: str | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    tools: list[FunctionTool] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


@ROUTER.post("/tokenize")
async def tokenize(body: TokenizeBody, request: Request) -> Response:
    """Divide a text into tokens; add_special_tokens adds those at its ends."""
    service: Service = request.app.state.service
    text = body.content if body.prompt is None else body.prompt
    if text is None or (body.prompt is not None and body.content is not None):
        raise invalid("prompt", "give either prompt or content")
    name = service.models.name_of(body.model)
    with service.admitted(), naming(NAMES):
        async with service.models.use(name) as client:
            ids = await client.tokenize(text, name, special_tokens=body.add_special_tokens)
            backend = await client.router.abackend(name)
    length = backend.max_context_length
    return Json({"tokens": ids, "count": len(ids), "max_model_len": length})


@ROUTER.post("/detokenize")
async def detokenize(body: DetokenizeBody, request: Request) -> Response:
    """Join tokens to a text, special tokens included."""
    service: Service = request.app.state.service
    name = service.models.name_of(body.model)
    with service.admitted(), naming(NAMES):
        async with service.models.use(name) as client:
            text = await client.detokenize(body.tokens, name, skip_special_tokens=False)
    return Json({"prompt": text, "content": text})


@ROUTER.post("/apply-template")
async def apply_template(body: TemplateBody, request: Request) -> Response:
    """Render a conversation into the prompt that the model reads."""
    service: Service = request.app.state.service
    name = service.models.name_of(body.model)
    with service.admitted(), naming(NAMES):
        config = GenerationConfig(extra_context=body.chat_template_kwargs)
        tools = tools_of([tool.function for tool in body.tools or ()])
        messages = [without_unset(message) for message in body.messages]
        wanted = chat_request(messages, config, tools=tools)
        async with service.models.use(name) as client:
            backend = renderer(await client.router.abackend(name))
            text, ids = await beside_loop(backend.render, wanted)
    return Json({"prompt": text, "count": len(ids)})
