"""The paths that rank documents."""

import asyncio

from fastapi import APIRouter, Request, Response

from talu.server.failures import naming
from talu.server.refusals import OPENAI_ERRORS
from talu.server.reranking import RerankBody, ScoreBody, rerank_body, score_body
from talu.server.responses import Json
from talu.server.service import Service

__all__ = ["ROUTER"]

ROUTER = APIRouter(prefix="/v1", tags=["Reranking"], responses=OPENAI_ERRORS)


@ROUTER.post("/rerank")
async def rerank(body: RerankBody, request: Request) -> Response:
    """Order documents by how well they answer a query."""
    service: Service = request.app.state.service
    with service.admitted(), naming({}):
        async with service.models.use(body.model) as client:
            ranking = await client.arerank(
                body.query,
                body.texts,
                body.model,
                top_n=body.top_n,
                pooling=body.pooling,
                truncate=body.truncate,
                timeout=service.options.timeout,
            )
    return Json(rerank_body(body, ranking))


@ROUTER.post("/score")
async def score(body: ScoreBody, request: Request) -> Response:
    """Tell for pairs of texts how well the second answers the first."""
    service: Service = request.app.state.service
    questions = body.questions
    with service.admitted(), naming({"query": "text_1", "documents": "text_2"}):
        async with service.models.use(body.model) as client:
            scores = [
                client.ascore(
                    query,
                    documents,
                    body.model,
                    pooling=body.pooling,
                    truncate=body.truncate,
                    timeout=service.options.timeout,
                )
                for query, documents in questions
            ]
            found = await asyncio.gather(*scores)
    return Json(score_body(body, found))
