"""The paths that compare texts."""

from fastapi import APIRouter, Request, Response

from talu.server.failures import naming
from talu.server.refusals import OPENAI_ERRORS
from talu.server.reranking import (
    Prompts,
    RerankBody,
    ScoreBody,
    rerank_body,
    score_body,
    similarities,
)
from talu.server.responses import Json
from talu.server.service import Service
from talu.threads import beside_loop

__all__ = ["ROUTER"]

ROUTER = APIRouter(prefix="/v1", tags=["Reranking"], responses=OPENAI_ERRORS)


@ROUTER.post("/rerank")
async def rerank(body: RerankBody, request: Request) -> Response:
    """Order documents by their similarity to a query."""
    scores, tokens = await _scores(request, body.model, body, [body.query], body.texts)
    return Json(rerank_body(body, scores, tokens))


@ROUTER.post("/score")
async def score(body: ScoreBody, request: Request) -> Response:
    """Compare pairs of texts."""
    scores, tokens = await _scores(request, body.model, body, *body.pairs)
    return Json(score_body(body, scores, tokens))


async def _scores(
    request: Request, model: str, prompts: Prompts, first: list[str], second: list[str]
) -> tuple[list[float], int | None]:
    """The similarity of each pair, and how many tokens all texts have."""
    service: Service = request.app.state.service
    vectors, counts = [], []
    for texts, field in ((first, "query_prompt_name"), (second, "document_prompt_name")):
        with naming({"prompt_name": field}):
            found, count = await service.embeddings(
                model,
                texts,
                truncate=bool(prompts.truncate),
                prompt_name=getattr(prompts, field),
            )
        vectors.append(found)
        counts.append(count)
    known = [count for count in counts if count is not None]
    scores = await beside_loop(similarities, *vectors)
    return scores, sum(known) if len(known) == len(counts) else None
