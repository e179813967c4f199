"""The methods of the clients that turn texts into tokens and back, and count them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from talu.chat.messages import items_from_messages, messages_from_items
from talu.config import check_boolean, check_token_ids
from talu.error_text import shown
from talu.exceptions import ValidationError
from talu.protocols import Backend
from talu.router.model_methods import ModelMethods
from talu.threads import beside_loop
from talu.types import Request

__all__ = ["AsyncTokenMethods", "TokenMethods"]

Countable = str | Iterable[Mapping[str, Any]]


class _Checks(ModelMethods):
    """What both faces check before a model is opened."""

    def _check_text(self, text: str, *, special_tokens: bool) -> None:
        self._check_open()
        check_boolean("special_tokens", special_tokens)
        if not isinstance(text, str):
            raise ValidationError(
                f"text must be a str, got {shown(text)}", details={"param": "text"}
            )

    def _check_ids(self, ids: Sequence[int], *, skip_special_tokens: bool) -> list[int]:
        self._check_open()
        check_boolean("skip_special_tokens", skip_special_tokens)
        return check_token_ids("ids", ids)

    def _counted(self, text: Countable) -> Request | None:
        """What is to be rendered and counted; None for a text, which is tokenized."""
        self._check_open()
        if isinstance(text, str):
            return None
        return Request(messages=tuple(messages_from_items(items_from_messages(text))))


class TokenMethods(_Checks):
    """Tokens, for callers that block."""

    def tokenize(
        self, text: str, model: str | None = None, *, special_tokens: bool = True
    ) -> list[int]:
        """The token ids of a text, as ``embed`` and ``raw_complete`` read it; opens the model.

        Args:
            text: any text.
            model: one of ``models`` instead of the default one.
            special_tokens: with those that the tokenizer puts at the ends.

        Raises:
            ValidationError: an argument is of a wrong type or name.
            TokenizerError: the text is no valid Unicode.
            StateError: the client is closed.
            ModelError: the model is missing or cannot be used.
        """
        self._check_text(text, special_tokens=special_tokens)
        return self._router.backend(model).tokenize(text, special_tokens=special_tokens)

    def detokenize(
        self, ids: Sequence[int], model: str | None = None, *, skip_special_tokens: bool = True
    ) -> str:
        """The text of token ids; bytes that form no character come as U+FFFD; opens the model.

        Args:
            ids: token ids of the model.
            model: one of ``models`` instead of the default one.
            skip_special_tokens: leave out the tokens that are no text.

        Raises:
            ValidationError: an argument is of a wrong type, or the model has no such id.
            StateError: the client is closed.
            ModelError: the model is missing or cannot be used.
        """
        tokens = self._check_ids(ids, skip_special_tokens=skip_special_tokens)
        backend = self._router.backend(model)
        return backend.detokenize(tokens, skip_special_tokens=skip_special_tokens)

    def count_tokens(self, text: Countable, model: str | None = None) -> int:
        """How many tokens a text or a conversation has; opens the model.

        Args:
            text: a text, counted as ``embed`` and ``raw_complete`` read it, special tokens at its
                ends included; or OpenAI-style dictionaries, counted as the prompt that ``ask``
                makes of them.
            model: one of ``models`` instead of the default one.

        Raises:
            ValidationError: an argument is of a wrong type or name.
            StateError: the client is closed.
            ModelError: the model is missing or cannot be used.
            TemplateError: messages are counted, and the model has no chat template.
        """
        request = self._counted(text)
        backend = self._router.backend(model)
        return _count(backend, text, request)


class AsyncTokenMethods(_Checks):
    """Tokens, for callers on an event loop."""

    async def tokenize(
        self, text: str, model: str | None = None, *, special_tokens: bool = True
    ) -> list[int]:
        """Like ``Client.tokenize``, awaited; it runs in a thread beside the loop."""
        self._check_text(text, special_tokens=special_tokens)
        backend = await self._router.abackend(model)
        return await beside_loop(backend.tokenize, text, special_tokens=special_tokens)

    async def detokenize(
        self, ids: Sequence[int], model: str | None = None, *, skip_special_tokens: bool = True
    ) -> str:
        """Like ``Client.detokenize``, awaited."""
        tokens = self._check_ids(ids, skip_special_tokens=skip_special_tokens)
        backend = await self._router.abackend(model)
        return await beside_loop(
            backend.detokenize, tokens, skip_special_tokens=skip_special_tokens
        )

    async def count_tokens(self, text: Countable, model: str | None = None) -> int:
        """Like ``Client.count_tokens``, awaited; it runs in a thread beside the loop."""
        request = self._counted(text)
        backend = await self._router.abackend(model)
        return await beside_loop(_count, backend, text, request)


def _count(backend: Backend, text: Countable, request: Request | None) -> int:
    """Tokens of a text, or of the prompt of a request."""
    if request is not None:
        return len(backend.render(request)[1])
    assert isinstance(text, str)
    return len(backend.tokenize(text))
