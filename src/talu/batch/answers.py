"""Answers a row of a batch with the models, through the protocols that the server speaks."""

import time
import uuid
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError as BodyError

from talu.batch.rows import EMBEDDINGS, Row
from talu.server import openai_chat, openai_completions, openai_responses_body
from talu.server.asked import Asked
from talu.server.bodies import body_failure
from talu.server.encoders import Encoder, Head
from talu.server.failures import Failure, failure_of, naming, openai_error
from talu.server.openai_chat import ChatBody, ChatEncoder
from talu.server.openai_completions import CompletionBody, CompletionEncoder
from talu.server.openai_embeddings import EmbeddingBody, embeddings_body
from talu.server.openai_responses import ResponseEncoder
from talu.server.openai_responses_body import ResponseBody
from talu.server.service import Service

__all__ = ["answer", "failed", "result_of"]

PROTOCOLS: dict[str, tuple[Any, Any, Any]] = {
    "/v1/chat/completions": (ChatBody, openai_chat.asked, ChatEncoder),
    "/v1/completions": (CompletionBody, openai_completions.asked, CompletionEncoder),
    "/v1/responses": (ResponseBody, openai_responses_body.asked, ResponseEncoder),
}


async def answer(row: Row, service: Service, model: str | None) -> dict[str, Any]:
    """The body of the answer to a row.

    Args:
        row: the row.
        service: has the models.
        model: answers instead of the model that the row names; None for that.

    Raises:
        Failure: the row is not valid, or could not be answered.
    """
    if row.problem is not None:
        raise Failure(400, "INVALID_ARGUMENT", row.problem)
    try:
        own = row.body.get("model", service.models.name_of(None))
        body = {**row.body, "model": own if model is None else model}
        if row.url == EMBEDDINGS:
            return await _embedded(_read(EmbeddingBody, body), service)
        kind, ask, encoder = PROTOCOLS[row.url]
        read = _read(kind, body)
        service.models.check(read.model)
        asked: Asked = ask(read, service.deadline(), None)
        if asked.stream:
            raise Failure(400, "INVALID_ARGUMENT", "a row has no stream", param="stream")
        with naming(asked.names):
            answers = await service.answers(asked)
        head = Head(uuid.uuid4().hex, int(time.time()), read.model)
        encodes: Encoder = encoder(read, head)
        return encodes.whole(answers)
    except Exception as error:
        raise failure_of(error) from error


def _read(kind: Any, body: Mapping[str, Any]) -> Any:
    try:
        return kind.model_validate(body)
    except BodyError as error:
        raise body_failure(error.errors(), body) from error


async def _embedded(body: EmbeddingBody, service: Service) -> dict[str, Any]:
    with naming({"texts": "input", "text": "input"}):
        vectors, tokens = await service.embeddings(
            body.model, body.texts, truncate=bool(body.truncate), prompt_name=body.prompt_name
        )
    return embeddings_body(body, vectors, tokens)


def result_of(row: Row, body: Mapping[str, Any]) -> dict[str, Any]:
    """The line of a row that was answered."""
    if row.is_short:
        return {"id": row.id, **_shortened(row, body), "error": None}
    response = {"status_code": 200, "request_id": uuid.uuid4().hex, "body": body}
    return _line(row, response, None)


def failed(row: Row, failure: Failure) -> dict[str, Any]:
    """The line of a row that was not answered."""
    if row.is_short:
        return {"id": row.id, "error": {"code": failure.code, "message": str(failure)}}
    response = {
        "status_code": failure.status,
        "request_id": uuid.uuid4().hex,
        "body": openai_error(failure),
    }
    return _line(row, response, {"code": failure.code, "message": str(failure)})


def _line(row: Row, response: dict[str, Any], error: dict[str, str] | None) -> dict[str, Any]:
    return {
        "id": f"batch_req_{uuid.uuid4().hex}",
        "custom_id": row.id,
        "response": response,
        "error": error,
    }


def _shortened(row: Row, body: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a short row."""
    if row.url == EMBEDDINGS:
        vectors = [entry["embedding"] for entry in body["data"]]
        several = isinstance(row.body["input"], list)
        found = {"embeddings": vectors} if several else {"embedding": vectors[0]}
        return {**found, "usage": body["usage"], "notes": body["talu"]["notes"]}
    choices = [_choice(choice) for choice in body["choices"]]
    found = choices[0] if len(choices) == 1 else {"choices": choices}
    return {**found, "usage": body["usage"]}


def _choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    message = choice["message"]
    more = ("reasoning_content", "tool_calls")
    return {
        "text": message["content"],
        **{name: message[name] for name in more if name in message},
        "finish_reason": choice["finish_reason"],
        "notes": choice["talu"]["notes"],
    }
