"""OpenAI's embeddings. https://platform.openai.com/docs/api-reference/embeddings."""

import base64
import struct
from typing import Annotated, Any, Literal

from pydantic import Field

from talu.server.bodies import Body
from talu.types import Embeddings

__all__ = ["EmbeddingBody", "embeddings_body"]

MAX_TEXTS = 2_048


class EmbeddingBody(Body):
    """The body of an embedding request; texts only, no token ids. ``user`` has no effect.

    ``truncate`` and ``prompt_name`` are extensions; see ``Client.embed_batch``.
    """

    model: str
    input: str | Annotated[list[str], Field(min_length=1, max_length=MAX_TEXTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    truncate: bool | None = None
    prompt_name: str | None = None
    user: str | None = None

    @property
    def texts(self) -> list[str]:
        """The texts to embed."""
        return [self.input] if isinstance(self.input, str) else self.input


def embeddings_body(body: EmbeddingBody, vectors: Embeddings, tokens: int | None) -> dict[str, Any]:
    """The body of an answer.

    Args:
        body: of the request.
        vectors: one for each text.
        tokens: of all texts; None if that is not known.
    """
    encoded: list[Any] = list(vectors)
    if body.encoding_format == "base64":
        encoded = [_base64(vector) for vector in vectors]
    data = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(encoded)
    ]
    return {
        "object": "list",
        "data": data,
        "model": body.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "talu": {"truncated": vectors.truncated, "notes": list(vectors.notes)},
    }


def _base64(vector: list[float]) -> str:
    """The numbers as 32-bit floats, the lowest byte first."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
