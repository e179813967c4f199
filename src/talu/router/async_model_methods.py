"""Adds to the async client the methods that need no conversation."""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from typing import Any, Literal, Unpack, overload

from talu.protocols import Embedded
from talu.router.abilities import embedder
from talu.router.batches import Progress, abatches, check_texts, reporter, single
from talu.router.embedding_calls import (
    Array,
    Call,
    Collected,
    aafter,
    failures,
)
from talu.router.model_methods import Keywords, ModelMethods
from talu.router.spec import ModelInput
from talu.threads import beside_loop
from talu.types import DEFAULT_POOLING, Capabilities, Embeddings, Pooling

__all__ = ["AsyncModelMethods"]


class AsyncModelMethods(ModelMethods):
    """The methods that the async client adds."""

    async def acapabilities(self, model: ModelInput | None = None) -> Capabilities:
        """Like ``capabilities``, awaited: it never blocks the event loop."""
        return await beside_loop(self.capabilities, model)

    async def aembedding_dim(self, model: str | None = None) -> int:
        """Like ``embedding_dim``, awaited: it never blocks the event loop."""
        return await beside_loop(self.embedding_dim, model)

    async def aembed(
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
        """Like ``embed``, awaited: it never blocks the event loop."""
        vectors = await self.aembed_batch(
            single(text),
            model,
            pooling,
            normalize,
            truncate=truncate,
            prompt=prompt,
            prompt_name=prompt_name,
            timeout=timeout,
        )
        return vectors[0]

    @overload
    async def aembed_batch(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        model: str | None = None,
        pooling: Pooling | None = DEFAULT_POOLING,
        normalize: bool = True,
        *,
        as_numpy: Literal[False] = False,
        **options: Unpack[Keywords],
    ) -> Embeddings: ...

    @overload
    async def aembed_batch(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        model: str | None = None,
        pooling: Pooling | None = DEFAULT_POOLING,
        normalize: bool = True,
        *,
        as_numpy: Literal[True],
        **options: Unpack[Keywords],
    ) -> Array: ...

    async def aembed_batch(
        self,
        texts: Iterable[str] | AsyncIterable[str],
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
        """Like ``embed_batch``, awaited; cancelling the task stops the work.

        ``texts`` may be an asynchronous iterable; others are read on the event loop.
        """
        call = self._call(
            model, pooling, normalize, truncate, prompt, prompt_name, as_numpy, timeout
        )
        check_texts(texts)
        collected = Collected(reporter(progress, texts), as_numpy=as_numpy)
        async for part in self._aembedded(abatches(texts), call):
            collected.add(part)
        return collected.result(lambda: self.embedding_dim(model))

    @overload
    def aembed_iter(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        model: str | None = None,
        pooling: Pooling | None = DEFAULT_POOLING,
        normalize: bool = True,
        *,
        as_numpy: Literal[False] = False,
        **options: Unpack[Keywords],
    ) -> AsyncGenerator[list[float]]: ...

    @overload
    def aembed_iter(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        model: str | None = None,
        pooling: Pooling | None = DEFAULT_POOLING,
        normalize: bool = True,
        *,
        as_numpy: Literal[True],
        **options: Unpack[Keywords],
    ) -> AsyncGenerator[Array]: ...

    def aembed_iter(
        self,
        texts: Iterable[str] | AsyncIterable[str],
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
    ) -> AsyncGenerator[list[float]] | AsyncGenerator[Array]:
        """Like ``embed_iter``, read with ``async for``."""
        call = self._call(
            model, pooling, normalize, truncate, prompt, prompt_name, as_numpy, timeout
        )
        check_texts(texts)
        return self._avectors(abatches(texts), call, reporter(progress, texts), as_numpy=as_numpy)

    async def _aembedded(
        self, texts: AsyncGenerator[list[str]], call: Call
    ) -> AsyncGenerator[Embedded]:
        first = await anext(texts, None)
        if first is None:
            return
        with failures(call.model):
            backend = await self._router.abackend(call.model, deadline=call.options.deadline)
            async for part in embedder(backend).aembed(aafter(first, texts), call.options):
                yield part

    async def _avectors(
        self,
        texts: AsyncGenerator[list[str]],
        call: Call,
        report: Callable[[int], object],
        *,
        as_numpy: bool,
    ) -> AsyncGenerator[Any]:
        done = 0
        async for part in self._aembedded(texts, call):
            for vector in part.vectors if as_numpy else part.vectors.tolist():
                yield vector
            done += len(part.vectors)
            report(done)
