"""Asks a backend for what not every backend can do."""

from typing import Generic, NamedTuple, TypeVar, cast

from talu.error_text import shown
from talu.exceptions import GenerationError, TaluError, ValidationError
from talu.protocols import Backend, Counter, Embedder, Renderer, Scorer, Vocabulary
from talu.types import Request

__all__ = [
    "Ability",
    "check_settings",
    "counter",
    "embedder",
    "ignored_settings",
    "renderer",
    "scorer",
    "vocabulary",
]

T = TypeVar("T")


class Ability(NamedTuple, Generic[T]):
    """Something that some backends can do. Call it with a backend to get that backend as a ``T``.

    Attributes:
        methods: a backend that can do it has these methods.
        missing: what a model without them lacks, and what that means: the end of the error message.
        error: class of the error.
        code: code of the error; None for that of its class.
    """

    methods: tuple[str, ...]
    missing: str
    error: type[TaluError] = ValidationError
    code: str | None = None

    def __call__(self, backend: Backend) -> T:
        """The backend; raises ``error`` if it cannot do this."""
        if all(callable(getattr(backend, name, None)) for name in self.methods):
            return cast("T", backend)
        details = {"param": "model", "value": backend.model}
        wrong = f"model {shown(backend.model)} {self.missing}"
        if names := getattr(backend, "choices", ()):
            wrong += f"; it is a policy: name one of its models, as in model={shown(names[0])}"
        raise self.error(wrong, self.code, details)


embedder: Ability[Embedder] = Ability(
    ("embed", "aembed"),
    "has no embeddings: use one that has",
    GenerationError,
    "GENERATION_UNSUPPORTED",
)
scorer: Ability[Scorer] = Ability(
    ("score", "ascore"),
    "does not rank documents: use one that does",
    GenerationError,
    "GENERATION_UNSUPPORTED",
)
renderer: Ability[Renderer] = Ability(
    ("render",), "does not say how it renders a conversation: its prompt cannot be shown"
)
counter: Ability[Counter] = Ability(
    ("count",), "does not say how it divides text into tokens: they cannot be counted"
)
vocabulary: Ability[Vocabulary] = Ability(
    ("tokenize", "detokenize"),
    "does not say what its tokens are: text cannot be tokenized for it",
)


def check_settings(backend: Backend, request: Request) -> None:
    """Refuse settings that the backend would ignore.

    Raises:
        ValidationError: some are set; the message names all of them.
    """
    if ignored := ignored_settings(backend, request):
        raise ValidationError(
            f"model {shown(backend.model)} has no {' and no '.join(ignored)}: leave "
            f"{'it' if len(ignored) == 1 else 'them'} out, or use another model",
            details={"param": ignored[0], "settings": ignored, "model": backend.model},
        )


def ignored_settings(backend: Backend, request: Request) -> list[str]:
    """Names of the settings that are set and that the backend would ignore."""
    return [name for name in request.settings if name not in backend.settings]
