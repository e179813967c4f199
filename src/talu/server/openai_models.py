"""Lists of models, for the clients of OpenAI's and of Anthropic's API at once."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from talu.server.models import ModelState

__all__ = ["model_body", "models_body"]


def model_body(model: ModelState, created: int) -> dict[str, Any]:
    """A model; ``created`` is when the server was started, in seconds since 1970."""
    return {
        "id": model.name,
        "object": "model",
        "created": created,
        "owned_by": "talu",
        "type": "model",
        "display_name": model.name,
        "created_at": datetime.fromtimestamp(created, UTC).isoformat(),
        "talu": {"kind": model.kind, "state": model.state, "running": model.running},
    }


def models_body(models: Sequence[ModelState], created: int) -> dict[str, Any]:
    """All models, which are on one page."""
    return {
        "object": "list",
        "data": [model_body(each, created) for each in models],
        "has_more": False,
        "first_id": models[0].name,
        "last_id": models[-1].name,
    }
