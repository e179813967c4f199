"""Defines the client methods that need no conversation: embeddings and capabilities."""

import os
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import fields
from typing import Any, Literal, TypedDict, Unpack, overload

from talu.backends.remote.options import RemoteBackend
from talu.backends.remote.providers import provider_named
from talu.exceptions import StateError
from talu.first_use import loaded
from talu.protocols import Embedded
from talu.router.abilities import embedder
from talu.router.batches import Progress, batches, check_texts, reporter, single
from talu.router.embedding_calls import (
    Array,
    Call,
    Collected,
    after,
    checked_options,
    failures,
)
from talu.router.router import Router
from talu.router.spec import ModelInput, path_reference
from talu.types import DEFAULT_POOLING, Capabilities, Embeddings, Pooling

__all__ = ["Keywords", "ModelMethods"]


class Keywords(TypedDict, total=False):
    """The keywords that the overloads of the methods share; see ``ModelMethods.embed_batch``."""

    truncate: bool
    prompt: str | None
    prompt_name: str | None
    progress: Progress
    timeout: float | None


class ModelMethods:
    """Methods of both clients that need no conversation."""

    _router: Router

    def embed(
        self,
        text: str,
        model: str | None = None,
        pooling: Pooling | None = DEFAULT_POOLING,
        normalize: bool = True,
        *,
        truncate: bool = False,
        prompt: str | None = None,
        prompt_name: str | None = None,
        timeout: float | None = None,
    ) -> list[float]:
        """The embedding of one text, identical to that of ``embed_batch``."""
        return self.embed_batch(
            single(text),
            model,
            pooling,
            normalize,
            truncate=truncate,
            prompt=prompt,
            prompt_name=prompt_name,
            timeout=timeout,
        )[0]

    @overload
    def embed_batch(
        self,
        texts: Iterable[str],
        model: str | None = None,
        pooling: Pooling | None = DEFAULT_POOLING,
        normalize: bool = True,
        *,
        as_numpy: Literal[False] = False,
        **options: Unpack[Keywords],
    ) -> Embeddings: ...

    @overload
    def embed_batch(
        self,
        texts: Iterable[str],
        model: str | None = None,
        pooling: Pooling | None = DEFAULT_POOLING,
        normalize: bool = True,
        *,
        as_numpy: Literal[True],
        **options: Unpack[Keywords],
    ) -> Array: ...

    def embed_batch(
        self,
        texts: Iterable[str],
        model: str | None = None,
        pooling: Pooling | None = DEFAULT_POOLING,
        normalize: bool = True,
        *,
        truncate: bool = False,
        prompt: str | None = None,
        prompt_name: str | None = None,
        as_numpy: bool = False,
        progress: Progress = False,
        timeout: float | None = None,
    ) -> Embeddings | Array:
        """A vector of ``embedding_dim`` numbers for each text, in the order of the texts.

        They are batched and run concurrently with other requests; a vector does not depend on the
        other texts. Only vectors of one model, one pooling and one kind of prompt can be compared.
        The ``notes`` of the result say what differs from the request.

        Args:
            texts: a list, an array, a column of a table, a generator: anything that gives texts.
                They are read in batches.
            model: one of ``models`` instead of the default one.
            pooling: how hidden states become the vector: ``"last"`` (as decoders are trained),
                ``"mean"`` or ``"first"``; None for the pooling in the model's
                ``1_Pooling/config.json``. Most encoders, such as MiniLM, need ``"mean"``.
                ``2_Dense`` modules of the folder are applied after any pooling. A model behind an
                endpoint has the pooling of its server, so that an explicit one is refused.
            normalize: scale to length 1, so that a dot product is the cosine.
            truncate: truncate texts that are too long for the model, instead of raising; the
                indices of these texts are in ``truncated`` of the result.
            prompt: a text to put before each text, such as ``"query: "``. Without it and
                ``prompt_name`` the default prompt of the model's folder is used, if it has one;
                ``""`` uses none.
            prompt_name: one of the prompts of the model's ``config_sentence_transformers.json``;
                ``"query"`` and ``"document"`` are empty if the file does not define them.
            as_numpy: return an array of float32, (texts, embedding_dim), instead of lists; it has
                neither ``truncated`` nor ``notes``.
            progress: True writes the count to stderr; a function is called with the number of
                finished texts, and with the number of all of them or None.
            timeout: seconds that the call may take.

        Raises:
            ValidationError: an argument has the wrong type or an unknown name; ``pooling=None``
                although the model names no pooling; the model has no such prompt.
            GenerationError: the model is missing or cannot be used; a text is too long or has no
                tokens; a vector is not finite; the timeout expired (code ``GENERATION_TIMEOUT``).
            StateError: the client is closed, or was closed during the call.
        """
        call = self._call(
            model, pooling, normalize, truncate, prompt, prompt_name, as_numpy, timeout
        )
        check_texts(texts)
        collected = Collected(reporter(progress, texts), as_numpy=as_numpy)
        with closing(self._embedded(batches(texts), call)) as parts:
            for part in parts:
                collected.add(part)
        return collected.result(lambda: self.embedding_dim(model))

    @overload
    def embed_iter(
        self,
        texts: Iterable[str],
        model: str | None = None,
        pooling: Pooling | None = DEFAULT_POOLING,
        normalize: bool = True,
        *,
        as_numpy: Literal[False] = False,
        **options: Unpack[Keywords],
    ) -> Generator[list[float]]: ...

    @overload
    def embed_iter(
        self,
        texts: Iterable[str],
        model: str | None = None,
        pooling: Pooling | None = DEFAULT_POOLING,
        normalize: bool = True,
        *,
        as_numpy: Literal[True],
        **options: Unpack[Keywords],
    ) -> Generator[Array]: ...

    def embed_iter(
        self,
        texts: Iterable[str],
        model: str | None = None,
        pooling: Pooling | None = DEFAULT_POOLING,
        normalize: bool = True,
        *,
        truncate: bool = False,
        prompt: str | None = None,
        prompt_name: str | None = None,
        as_numpy: bool = False,
        progress: Progress = False,
        timeout: float | None = None,
    ) -> Generator[list[float]] | Generator[Array]:
        """Like ``embed_batch``, one vector after the other: a list, or an array with ``as_numpy``.

        Texts are read in batches of 512, one batch ahead, so that memory does not grow with their
        number. Closing or dropping the generator stops the work. ``timeout`` counts from the call
        to the last vector, including the time that the caller takes between vectors.
        """
        call = self._call(
            model, pooling, normalize, truncate, prompt, prompt_name, as_numpy, timeout
        )
        check_texts(texts)
        return self._vectors(batches(texts), call, reporter(progress, texts), as_numpy=as_numpy)

    def embedding_dim(self, model: str | None = None) -> int:
        """The length of an embedding; opens the model.

        Raises:
            GenerationError: the model is missing or cannot be used.
            StateError: the client is closed.
        """
        self._check_open()
        name = self._router.name_of(model)
        with failures(name):
            return embedder(self._router.backend(name)).embedding_dim

    def capabilities(self, model: ModelInput | None = None) -> Capabilities:
        """What a model supports; opens one that runs in this process.

        A policy supports what one of its models does. A provider's model is known without asking.
        An endpoint of which only the address is known is asked for its models, whose owner tells
        what kind of server it is; one that does not list them is taken for a plain server with
        OpenAI's protocol.

        Args:
            model: one of ``models``, the default one for None, or any other reference.

        Raises:
            ValidationError: ``model`` is not a valid reference.
            ModelError: the model is missing or cannot be used.
            StateError: the client is closed.
        """
        self._check_open()
        name = path_reference(model) if isinstance(model, os.PathLike) else model
        if name is None or (isinstance(name, str) and name in self._router.names):
            return _capabilities(self._router, name)
        with Router([name]) as other:  # opened temporarily; shared if it is open elsewhere
            return _capabilities(other, None)

    def _check_open(self) -> None:
        if self._router.closed:
            raise StateError("the client has been closed", "STATE_CLOSED")

    def _call(
        self,
        model: str | None,
        pooling: Pooling | None,
        normalize: bool,
        truncate: bool,
        prompt: str | None,
        prompt_name: str | None,
        as_numpy: bool,
        timeout: float | None,
    ) -> Call:
        self._check_open()
        options = checked_options(
            pooling, normalize, truncate, prompt, prompt_name, as_numpy=as_numpy, timeout=timeout
        )
        return Call(self._router.name_of(model), options)

    def _embedded(self, texts: Generator[list[str]], call: Call) -> Generator[Embedded]:
        """The vectors of each batch; a failing model raises ``GenerationError``."""
        first = next(texts, None)
        if first is None:
            return
        with failures(call.model):
            backend = self._router.backend(call.model, deadline=call.options.deadline)
            yield from embedder(backend).embed(after(first, texts), call.options)

    def _vectors(
        self,
        texts: Generator[list[str]],
        call: Call,
        report: Callable[[int], object],
        *,
        as_numpy: bool,
    ) -> Generator[Any]:
        done = 0
        for part in self._embedded(texts, call):
            yield from part.vectors if as_numpy else part.vectors.tolist()
            done += len(part.vectors)
            report(done)


def _capabilities(router: Router, model: str | None) -> Capabilities:
    if models := router.models_of(model):
        each = [_capabilities(router, name) for name in models]
        names = [field.name for field in fields(Capabilities)]
        return Capabilities(**{name: any(getattr(one, name) for one in each) for name in names})
    target = router.resolve(model)
    if target.provider is not None and isinstance(target.backend, RemoteBackend):
        capabilities_of = loaded("talu.router.discovery", "capabilities_of")
        found: Capabilities = capabilities_of(provider_named(target.provider), target.backend)
        return found
    return router.backend(model).capabilities
