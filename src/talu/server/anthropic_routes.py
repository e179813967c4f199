"""The paths of Anthropic's API."""

from fastapi import APIRouter, Request, Response

from talu.router.abilities import counter
from talu.server.anthropic_body import NAMES, CountBody, MessagesBody, asked, request_of
from talu.server.anthropic_messages import MessagesEncoder
from talu.server.failures import naming
from talu.server.guard import namespace_of
from talu.server.refusals import ANTHROPIC_ERRORS
from talu.server.responses import STREAMED, Json, new_head, respond
from talu.server.service import Service
from talu.threads import beside_loop

__all__ = ["ROUTER"]

ROUTER = APIRouter(prefix="/v1/messages", tags=["Anthropic"], responses=ANTHROPIC_ERRORS)


@ROUTER.post("", responses=STREAMED)
async def messages(body: MessagesBody, request: Request) -> Response:
    """Answer a conversation."""
    service: Service = request.app.state.service
    service.models.check(body.model)
    wanted = asked(body, service.deadline(), namespace_of(request.scope))
    encoder = MessagesEncoder(body.max_tokens, new_head(body.model))
    return await respond(service, wanted, encoder)


@ROUTER.post("/count_tokens")
async def count_tokens(body: CountBody, request: Request) -> Response:
    """Count the tokens of the prompt that a conversation and its tools make."""
    service: Service = request.app.state.service
    service.models.check(body.model)
    wanted = request_of(body, service.deadline(), {})
    with service.admitted(), naming(NAMES):
        async with service.models.use(body.model) as client:
            backend = counter(await client.router.abackend(body.model))
            return Json({"input_tokens": await beside_loop(backend.count, wanted)})
