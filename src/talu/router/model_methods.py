"""Embeddings and capabilities of a router's models, as methods of the clients.

Checks what can be checked before a model is opened, and turns failures into the errors that are
promised for embeddings.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from talu.config import check_boolean
from talu.exceptions import GenerationError, StateError, TaluError, ValidationError
from talu.router.router import Router
from talu.router.spec import ModelSpec
from talu.types import POOLINGS, Capabilities, Pooling

__all__ = ["AwaitedEmbeds", "Embeds"]


class Embeds:
    """What both clients do without a conversation."""

    _router: Router

    def embed(
        self,
        text: str,
        model: str | None = None,
        pooling: str | None = "last",
        normalize: bool = True,
        *,
        truncate: bool = False,
    ) -> list[float]:
        """The embedding of one text: ``embed_batch`` of it alone, number for number."""
        texts = _alone(text)
        return self.embed_batch(texts, model, pooling, normalize, truncate=truncate)[0]

    def embed_batch(
        self,
        texts: Sequence[str],
        model: str | None = None,
        pooling: str | None = "last",
        normalize: bool = True,
        *,
        truncate: bool = False,
    ) -> list[list[float]]:
        """A vector of ``embedding_dim`` numbers for each text, in the order of the texts.

        They run together, beside whatever else the model does, and a vector does not depend on
        the others. Only vectors of one model and one pooling can be compared.

        Args:
            texts: any number, of any lengths.
            model: one of ``models`` instead of the default one.
            pooling: which hidden states become the vector: ``"last"`` (decoders were trained for
                it), ``"mean"`` or ``"first"`` of them; None for what the model's own
                ``1_Pooling/config.json`` says. Most encoders, MiniLM among them, want ``"mean"``.
            normalize: scale to length 1, so that a dot product is the cosine.
            truncate: cut texts that are longer than the model takes, instead of raising.

        Raises:
            ValidationError: a bad pooling or a text that is none; None where the model names none.
            GenerationError: the model is missing or cannot be used, or a text is too long or has
                no tokens.
            StateError: the client is closed, or was closed meanwhile.
        """
        self._check_open()
        way = _checked(texts, pooling, normalize=normalize, truncate=truncate)
        name = self._router.name_of(model)
        with _failures(name):
            backend = self._router.backend(name)
            return backend.embed(texts, way, normalize=normalize, truncate=truncate)

    def embedding_dim(self, model: str | None = None) -> int:
        """How many numbers an embedding has; opens the model.

        Raises:
            GenerationError: the model is missing or cannot be used.
            StateError: the client is closed.
        """
        self._check_open()
        name = self._router.name_of(model)
        with _failures(name):
            return self._router.backend(name).embedding_dim

    def capabilities(self, model: str | ModelSpec | None = None) -> Capabilities:
        """What a model can be asked for, read from the model that is there; opens it.

        Args:
            model: one of ``models``, the default one for None, or any other reference.

        Raises:
            ValidationError: no reference.
            ModelError: the model is missing or cannot be used.
            StateError: the client is closed.
        """
        self._check_open()
        if model is None or (isinstance(model, str) and model in self._router.models):
            return self._router.backend(model).capabilities
        if not isinstance(model, str | ModelSpec):
            wrong = f"model must be a reference or a ModelSpec, got {model!r}"
            raise ValidationError(wrong, details={"param": "model", "value": model})
        with Router([model]) as other:  # opened for the question; shared if somebody has it open
            return other.backend().capabilities

    def _check_open(self) -> None:
        if self._router.closed:
            raise StateError("the client has been closed", "STATE_CLOSED")


class AwaitedEmbeds(Embeds):
    """What the async client has beside it."""

    async def aembed(
        self,
        text: str,
        model: str | None = None,
        pooling: str | None = "last",
        normalize: bool = True,
        *,
        truncate: bool = False,
    ) -> list[float]:
        """Like ``embed``, awaited: it never blocks the event loop."""
        texts = _alone(text)
        return (await self.aembed_batch(texts, model, pooling, normalize, truncate=truncate))[0]

    async def aembed_batch(
        self,
        texts: Sequence[str],
        model: str | None = None,
        pooling: str | None = "last",
        normalize: bool = True,
        *,
        truncate: bool = False,
    ) -> list[list[float]]:
        """Like ``embed_batch``, awaited; cancelling the task stops the work."""
        self._check_open()
        way = _checked(texts, pooling, normalize=normalize, truncate=truncate)
        name = self._router.name_of(model)
        with _failures(name):
            backend = await self._router.abackend(name)
            return await backend.aembed(texts, way, normalize=normalize, truncate=truncate)


def _alone(text: str) -> list[str]:
    if not isinstance(text, str):
        wrong = f"text must be a str, got {type(text).__name__}; embed_batch takes several"
        raise ValidationError(wrong, details={"param": "text"})
    return [text]


def _checked(texts: Sequence[str], pooling: str | None, **switches: bool) -> Pooling | None:
    for name, switch in switches.items():
        check_boolean(name, switch)
    if pooling is not None and pooling not in POOLINGS:
        raise ValidationError(
            f"Invalid pooling strategy {pooling!r}; choose one of "
            f"{', '.join(map(repr, POOLINGS))}, or None for the model's own",
            details={"param": "pooling", "value": pooling},
        )
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise ValidationError(
            f"texts must be a list of texts, got {type(texts).__name__}; embed takes a single one",
            details={"param": "texts"},
        )
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            wrong = f"text {number} must be a str, got {type(text).__name__}"
            raise ValidationError(wrong, details={"param": "texts", "index": number})
    return pooling


@contextmanager
def _failures(model: str) -> Generator[None]:
    """Promise ``GenerationError`` for a model that is missing or cannot be used."""
    try:
        yield
    except (GenerationError, StateError, ValidationError):
        raise
    except TaluError as error:
        message = f"model {model!r} cannot embed: {error}"
        raise GenerationError(message, error.code, error.details) from error
