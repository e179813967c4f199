"""Asks one question to several models, and decides which answer wins a race."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

from talu.chat.answering import Answering, Draft
from talu.chat.async_chat import AsyncChat, AsyncResponse
from talu.chat.questions import conversation_of, draft_of, single
from talu.chat.racer import Racer
from talu.chat.sync_chat import Chat, Response
from talu.chat.user_message import Message, user_items
from talu.config import GenerationConfig, GenerationSettings, merged
from talu.deadline import Deadline
from talu.error_text import shown
from talu.exceptions import StateError, TaluError, ValidationError
from talu.router.failures import no_answer
from talu.router.router import Router
from talu.types import Attempt, FinishReason, StopFlag

__all__ = ["Contest", "Questions"]

MAX_MODELS = 1000


class Questions:
    """One question to several models, each in a chat that is used for nothing else.

    Attributes:
        models: the names of the models.
        config: the settings of the call.
    """

    def __init__(
        self,
        client: Any,
        method: str,
        prompt: Message,
        models: Sequence[str] | None,
        config: GenerationConfig | None,
        settings: GenerationSettings,
        system: str | None,
        timeout: float | None,
    ) -> None:
        """Check the arguments, which are those of ``ask_all`` or ``race``, by the method's name.

        Raises:
            ValidationError: one is wrong.
            StateError: the client is closed.
        """
        self.config = merged(config, settings=settings)
        self._router: Router = client._router
        if self._router.closed:
            raise StateError("the client has been closed", "STATE_CLOSED")
        names = self._router.models if models is None else models
        many = not isinstance(names, str) and isinstance(names, Sequence)
        if not many or not 0 < len(names) <= MAX_MODELS:
            wrong = f"models must be a list of 1 to {MAX_MODELS:,} names of models, got "
            raise ValidationError(wrong + shown(models), details={"param": "models"})
        question = single(prompt, method)
        if conversation_of(question) is None:
            user_items(question)  # a wrong one is an error here, and not the answer of every model
        self.models = [self._router.name_of(name) for name in names]
        self._is_race = method == "race"
        self._client, self._question, self._system = client, question, system
        self._deadline = Deadline.after(timeout)
        self._racers: dict[int, Racer] = {}

    def ask(self, number: int, stop_flag: StopFlag | None) -> Response:
        """The answer of one of the models."""
        chat = Chat(**self._arguments(number))
        return chat._answer(self._draft(chat, number, stop_flag), stream=False)

    async def aask(self, number: int, stop_flag: StopFlag | None) -> AsyncResponse:
        """Like ``ask``, awaited."""
        chat = AsyncChat(**self._arguments(number))
        return await chat._answer(self._draft(chat, number, stop_flag), stream=False)

    def attempts(self, number: int) -> tuple[Attempt, ...]:
        """The attempts at one of the models so far."""
        racer = self._racers.get(number)
        return () if racer is None else racer.attempts()

    def lost(self, winner: int) -> None:
        """The other models are cancelled because this one was faster."""
        for number, racer in self._racers.items():
            racer.lost = number != winner

    def _arguments(self, number: int) -> dict[str, Any]:
        messages = conversation_of(self._question, self._deadline)
        return {
            "model": self.models[number],
            "client": self._client,
            "system": self._system,
            "messages": messages,
        }

    def _draft(self, chat: Answering, number: int, stop_flag: StopFlag | None) -> Draft:
        draft = draft_of(
            chat, self._question, self.config, stop_flag=stop_flag, timeout=self._deadline
        )
        if not self._is_race:
            return draft
        racer = self._racers[number] = Racer(partial(self._location, self.models[number]))
        return draft._replace(racer=racer)

    def _location(self, model: str) -> str | None:
        return self._router.resolve(model).location


class Contest:
    """The models that answer one question, and what has become of each."""

    def __init__(self, asked: Questions) -> None:
        """Begin; an answer of ``max_tokens`` tokens is complete if the call has set it."""
        self.models = asked.models
        self._asked = asked
        self._may_be_cut = asked.config.given.get("max_tokens") is not None
        self._began_at = perf_counter()
        self._results: dict[int, Any] = {}
        self._times_ms: dict[int, float] = {}
        self._winner: int | None = None
        self._unfinished = ("SLOWER", "another model was faster")

    def add(self, number: int, result: Any) -> bool:
        """Record an answer or an error; returns whether it is a complete answer."""
        self._results[number] = result
        self._times_ms[number] = (perf_counter() - self._began_at) * 1000
        return not isinstance(result, BaseException) and self._flaw(result) is None

    def _flaw(self, answer: Any) -> str | None:
        """What an answer lacks; None for a complete one."""
        reason = answer.finish_reason
        if reason is FinishReason.CANCELLED:  # the caller has stopped all of them
            return None
        if reason is FinishReason.LENGTH and not self._may_be_cut:
            return "its answer was cut, and max_tokens was not set"
        if reason not in (FinishReason.STOP, FinishReason.TOOL_CALLS, FinishReason.LENGTH):
            return f"its answer ended with the finish reason {str(reason)!r}"
        if not answer.text.strip() and not answer.tool_calls:
            return "its answer is empty"
        return None

    def result(self) -> Any:
        """The first answer when none is complete, one with text if there is any.

        Raises:
            TaluError: no model answered.
        """
        numbers = [n for n, one in self._results.items() if not isinstance(one, BaseException)]
        if not numbers:
            raise self._failure()
        best = next((n for n in numbers if self._results[n].text.strip()), numbers[0])
        answer = self.winner(best)
        answer._add_note(f"no model gave a complete answer: {self._flaw(answer)}")
        return answer

    def winner(self, number: int) -> Any:
        """The answer of this model, with the attempts of all."""
        self._winner = number
        answer = self._results[number]
        if answer.finish_reason is FinishReason.CANCELLED:
            self._unfinished = ("CANCELLED", "the request was cancelled")
        else:
            self._asked.lost(number)
        answer._set_attempts(self._attempts())
        return answer

    def _failure(self) -> TaluError:
        """The error when no model answered."""
        errors = [self._results[number] for number in range(len(self.models))]
        return no_answer(self._attempts(), errors)

    def _attempts(self) -> tuple[Attempt, ...]:
        """The attempts at all models; those of a policy are several."""
        each = [self._attempts_of(number) for number in range(len(self.models))]
        return tuple(attempt for attempts in each for attempt in attempts)

    def _attempts_of(self, number: int) -> list[Attempt]:
        ended = (perf_counter() - self._began_at) * 1000
        known = self._asked.attempts(number)
        *before, last = known or [
            Attempt(model=self.models[number], duration_ms=self._times_ms.get(number, ended))
        ]
        if last.error not in (None, "CANCELLED"):  # it has failed, whoever has won since
            return [*before, last]
        error, reason = self._ending(number)
        return [*before, replace(last, error=error, reason=reason)]

    def _ending(self, number: int) -> tuple[str | None, str | None]:
        """The error and the reason of the last attempt at a model."""
        result = self._results.get(number)
        error, reason = self._unfinished
        if isinstance(result, BaseException):
            error = result.code if isinstance(result, TaluError) else type(result).__name__
            reason = str(result)
        elif result is not None:
            flaw = None if number == self._winner else self._flaw(result)
            return (None, None) if flaw is None else ("INCOMPLETE", flaw)
        return error, reason
