"""The paths of OpenAI's API."""

from fastapi import APIRouter, Request, Response

from talu.server import openai_chat, openai_completions, openai_responses_body
from talu.server.failures import invalid, naming
from talu.server.guard import namespace_of
from talu.server.openai_chat import ChatBody, ChatEncoder
from talu.server.openai_completions import CompletionBody, CompletionEncoder
from talu.server.openai_embeddings import EmbeddingBody, embeddings_body
from talu.server.openai_models import model_body, models_body
from talu.server.openai_responses import ResponseEncoder
from talu.server.openai_responses_body import ResponseBody
from talu.server.refusals import OPENAI_ERRORS
from talu.server.responses import STREAMED, Json, new_head, respond
from talu.server.service import Service

__all__ = ["ROUTER"]

ROUTER = APIRouter(prefix="/v1", tags=["OpenAI"], responses=OPENAI_ERRORS)


@ROUTER.post("/chat/completions", responses=STREAMED)
async def chat_completions(body: ChatBody, request: Request) -> Response:
    """Answer a conversation."""
    service: Service = request.app.state.service
    service.models.check(body.model)
    wanted = openai_chat.asked(body, service.deadline(), namespace_of(request.scope))
    return await respond(service, wanted, ChatEncoder(body, new_head(body.model)))


@ROUTER.post("/responses", responses=STREAMED)
async def responses(body: ResponseBody, request: Request) -> Response:
    """Answer a conversation with items; nothing is stored."""
    service: Service = request.app.state.service
    service.models.check(body.model)
    wanted = openai_responses_body.asked(body, service.deadline(), namespace_of(request.scope))
    return await respond(service, wanted, ResponseEncoder(body, new_head(body.model)))


@ROUTER.post("/completions", responses=STREAMED)
async def completions(body: CompletionBody, request: Request) -> Response:
    """Continue a text, without a chat template."""
    service: Service = request.app.state.service
    service.models.check(body.model)
    wanted = openai_completions.asked(body, service.deadline(), namespace_of(request.scope))
    return await respond(service, wanted, CompletionEncoder(body, new_head(body.model)))


@ROUTER.post("/embeddings")
async def embeddings(body: EmbeddingBody, request: Request) -> Response:
    """Embed texts."""
    service: Service = request.app.state.service
    with naming({"texts": "input", "text": "input"}):
        vectors, tokens = await service.embeddings(
            body.model, body.texts, truncate=bool(body.truncate), prompt_name=body.prompt_name
        )
    if body.dimensions not in (None, len(vectors[0])):
        text = f"dimensions can only be {len(vectors[0])}, that of the model"
        raise invalid("dimensions", text)
    return Json(embeddings_body(body, vectors, tokens))


@ROUTER.get("/models")
async def models(request: Request) -> Response:
    """List the models and their states."""
    service: Service = request.app.state.service
    states = [service.models.state(name) for name in service.models.names]
    return Json(models_body(states, service.started))


@ROUTER.get("/models/{name:path}")
async def model(name: str, request: Request) -> Response:
    """Describe one of the models."""
    service: Service = request.app.state.service
    return Json(model_body(service.models.state(name), service.started))
