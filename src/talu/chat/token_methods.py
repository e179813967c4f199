"""The clients' methods that tokenize, detokenize and count tokens."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from talu.chat.messages import messages_from_items
from talu.chat.parsing import items_from_messages
from talu.checks import check_boolean, check_token_ids
from talu.error_text import shown
from talu.exceptions import ValidationError
from talu.router.abilities import counter, vocabulary
from talu.router.model_methods import ModelMethods
from talu.threads import beside_loop
from talu.types import Request

__all__ = ["AsyncTokenMethods", "TokenMethods"]

Countable = str | Iterable[Mapping[str, Any]]


class _Checks(ModelMethods):
    """Argument checks shared by the sync and async methods, made before a model is opened."""

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
        return check_token_ids("ids", ids, ordered=True)

    def _counted(self, text: Countable) -> Request:
        """The request to count."""
        self._check_open()
        if isinstance(text, str):
            return Request(prompt=text)
        return Request(messages=tuple(messages_from_items(items_from_messages(text))))


class TokenMethods(_Checks):
    """The sync token methods."""

    def tokenize(
        self, text: str, model: str | None = None, *, special_tokens: bool = True
    ) -> list[int]:
        """The token ids of a text, as used by ``embed`` and ``raw_complete``; opens the model.

        Args:
            text: any text.
            model: one of ``models`` instead of the default one.
            special_tokens: include the special tokens that the tokenizer adds at the ends.

        Raises:
            ValidationError: an argument is of the wrong type, or the model is unknown.
            TokenizerError: the text is not valid Unicode.
            StateError: the client is closed.
            ModelError: the model is missing or cannot be used.
        """
        self._check_text(text, special_tokens=special_tokens)
        backend = vocabulary(self._router.backend(model))
        return backend.tokenize(text, special_tokens=special_tokens)

    def detokenize(
        self, ids: Sequence[int], model: str | None = None, *, skip_special_tokens: bool = True
    ) -> str:
        """The text of token ids, with U+FFFD for invalid bytes; opens the model.

        Args:
            ids: token ids of the model: a list, a tuple, or an array with one dimension.
            model: one of ``models`` instead of the default one.
            skip_special_tokens: leave out special tokens.

        Raises:
            ValidationError: an argument is of the wrong type, or the model has no such id.
            StateError: the client is closed.
            ModelError: the model is missing or cannot be used.
        """
        tokens = self._check_ids(ids, skip_special_tokens=skip_special_tokens)
        backend = vocabulary(self._router.backend(model))
        return backend.detokenize(tokens, skip_special_tokens=skip_special_tokens)

    def count_tokens(self, text: Countable, model: str | None = None) -> int:
        """The number of tokens of a text or a conversation; opens the model.

        Args:
            text: a text, counted as in ``embed`` and ``raw_complete``, including the special tokens
                at its ends; or OpenAI-style dictionaries, counted as the prompt that ``ask``
                renders from them.
            model: one of ``models`` instead of the default one.

        Raises:
            ValidationError: an argument is of the wrong type, or the model is unknown.
            StateError: the client is closed.
            ModelError: the model is missing or cannot be used.
            TemplateError: messages are counted, and the model has no chat template.
        """
        request = self._counted(text)
        return counter(self._router.backend(model)).count(request)


class AsyncTokenMethods(_Checks):
    """The async token methods."""

    async def tokenize(
        self, text: str, model: str | None = None, *, special_tokens: bool = True
    ) -> list[int]:
        """Like ``Client.tokenize``, awaited; runs in a worker thread."""
        self._check_text(text, special_tokens=special_tokens)
        backend = vocabulary(await self._router.abackend(model))
        return await beside_loop(backend.tokenize, text, special_tokens=special_tokens)

    async def detokenize(
        self, ids: Sequence[int], model: str | None = None, *, skip_special_tokens: bool = True
    ) -> str:
        """Like ``Client.detokenize``, awaited."""
        tokens = self._check_ids(ids, skip_special_tokens=skip_special_tokens)
        backend = vocabulary(await self._router.abackend(model))
        return await beside_loop(
            backend.detokenize, tokens, skip_special_tokens=skip_special_tokens
        )

    async def count_tokens(self, text: Countable, model: str | None = None) -> int:
        """Like ``Client.count_tokens``, awaited; runs in a worker thread."""
        request = self._counted(text)
        backend = counter(await self._router.abackend(model))
        return await beside_loop(backend.count, request)
