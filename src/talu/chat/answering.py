"""Runs the turns of a chat: checks the arguments of a call, claims the history, and answers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

from talu.chat.answer import Answer
from talu.chat.conversation import Conversation
from talu.chat.interrupts import Claim
from talu.chat.io import IO
from talu.chat.items import Item, MessageItem, MessageRole, distinct
from talu.chat.observers import is_async
from talu.chat.open_calls import ends_with, open_calls, outputs_of
from talu.chat.outcome import Outcome
from talu.chat.racer import Racer
from talu.chat.requests import check_answerable
from talu.chat.transaction import Transaction
from talu.chat.turn import OnToken, Present, Turn
from talu.chat.user_message import Message, user_items
from talu.config import GenerationConfig, merged
from talu.deadline import Deadline
from talu.error_text import shown
from talu.exceptions import StateError, ValidationError
from talu.json_values import json_copy
from talu.tools.calls import ToolCall
from talu.tools.use import ToolUse
from talu.types import StopFlag, ToolCallEvent, check_stop_flag

__all__ = ["NO_TOOLS", "Answering", "Draft"]


NO_TOOLS = ToolUse()
CODE = "STATE_OPEN_CALLS"
OPEN = (
    "the tool calls {} wait for a result: give them to submit_tool_results, let resume() carry "
    "them out, or remove them (pop)"
)
NO_FUNCTIONS = (
    "the open tool calls of {} have no functions: give tools=[…] as well, or give their results to "
    "submit_tool_results"
)
NO_CALLS = "there is no open tool call to submit a result for"


class Draft(NamedTuple):
    """The checked arguments of a turn that has not started.

    Attributes:
        question: the user's items.
        on_token: called with each piece that has text.
        stop_flag: the stop flag of the caller.
        deadline: the time by which the answer has to be finished.
        replaces: the first item that the turn replaces; None appends to the history.
        racer: see ``Turn``.
        tools: the tools of the turn.
        resumes: the turn goes on where the history ends, without a question.
    """

    question: tuple[MessageItem, ...]
    config: GenerationConfig
    on_token: OnToken | None
    stop_flag: StopFlag | None
    deadline: Deadline | None = None
    replaces: MessageItem | None = None
    racer: Racer | None = None
    tools: ToolUse = NO_TOOLS
    resumes: bool = False


class Answering(Conversation):
    """The base of ``Chat`` and ``AsyncChat``, which answer messages."""

    def _draft(
        self,
        message: Message,
        config: GenerationConfig | None,
        settings: Mapping[str, object],
        *,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | Deadline | None = None,
        use: ToolUse = NO_TOOLS,
    ) -> Draft:
        self._host()
        deadline = Deadline.after(timeout)
        given, settings = ToolUse.of(settings, allow_async=self._async_hooks)
        use = given.over(use).over(self._tools)
        use.check()
        full = merged(self.config, config, settings=settings)
        if self._persistence is not None:  # the settings are stored with the answer
            json_copy("config", full.to_dict(only_given=True))
        check_stop_flag(stop_flag)
        if on_token is not None:
            self._check_on_token(on_token)
        question = tuple(user_items(message))
        return Draft(question, full, on_token, stop_flag, deadline, tools=use)

    def _continued(
        self,
        config: GenerationConfig | None,
        settings: Mapping[str, object],
        *,
        outcome: Outcome[Any] | None = None,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
    ) -> Draft:
        """A draft with the settings and tools of the answer with which the history ends."""
        items = self._history.items
        last = self._latest.outcome if outcome is None else outcome
        use, before = NO_TOOLS, None
        if last is not None and last.past and ends_with(items, last.past[-1]):
            use, before = replace(last.use, tool_choice=None), last.config
        full = merged(before, config)
        return self._draft(
            "",
            full,
            settings,
            on_token=on_token,
            stop_flag=stop_flag,
            timeout=timeout,
            use=use,
        )

    def _resuming(self, draft: Draft) -> Draft:
        """The draft of a turn that goes on where the history ends."""
        waiting = open_calls(self._history.items)
        if not waiting:
            check_answerable(self._history.items, "the chat")
        elif not draft.tools.tools:
            wrong = NO_FUNCTIONS.format(", ".join(shown(call.name) for call in waiting))
            raise ValidationError(wrong, details={"param": "tools"})
        return draft._replace(question=(), resumes=True)

    def _with_results(self, draft: Draft, results: object) -> Draft:
        """Put the results of open calls into the history; the draft of the turn that goes on.

        Raises:
            ValidationError: an id is unknown, its call has a result, or a result is missing.
        """
        found = outputs_of(self._history.items, results)
        given = {item.call_id for item in found}
        missing = [c.call_id for c in open_calls(self._history.items) if c.call_id not in given]
        if missing or not found:
            what = ", ".join(map(shown, missing))
            wrong = f"results lacks those of the open calls {what}" if missing else NO_CALLS
            raise ValidationError(wrong, details={"param": "results", "missing": missing})
        self._add_results(results)
        return self._resuming(draft)

    def _add_results(self, results: object) -> bool:
        """Put results of open calls into the history; whether no call is open any more."""

        def change(items: list[Item]) -> None:
            items += outputs_of(items, results)

        self._edit(change)
        return not open_calls(self._history.items)

    def _check_on_token(self, on_token: OnToken) -> None:
        if not callable(on_token):
            wrong = f"on_token must be a function of one piece of text, got {shown(on_token)}"
        elif is_async(on_token) and not self._async_hooks:
            wrong = (
                f"{shown(on_token)} is async: give it to AsyncClient, or make it a plain function"
            )
        else:
            return
        raise ValidationError(wrong, details={"param": "on_token"})

    def _to_regenerate(self, message: Message | None) -> tuple[MessageItem, Message]:
        """The last user message, and the message that replaces it: a copy of it for None."""
        messages = self.items.filter_by_role(MessageRole.USER)
        if not messages:
            wrong = "there is no user message to answer again"
            raise StateError(wrong, "STATE_REGENERATE_NO_USER")
        last = messages[-1]
        copy = MessageItem.create(last.role, last.content, hidden=last.hidden)
        return last, copy if message is None else message

    @property
    def open_calls(self) -> list[ToolCall]:
        """The tool calls at the end of the history that wait for a result.

        Also those of a stored chat, which may have been under way when its process ended. They
        have functions if the chat was made with ``tools``.
        """
        tools = self._tools.described
        return [
            ToolCall(item.call_id, item.name, item.arguments, tools.get(item.name))
            for item in open_calls(self.items)
        ]

    def _close(self) -> None:
        """Mark the chat as closed, and stop an answer that is being generated."""
        self._closed = True
        self._history.stop()

    async def _answered(
        self, draft: Draft, io: IO, claim: Claim, present: Present, *, stream: bool
    ) -> Answer[Any]:
        """Claim the history, and run a turn; the response of a stream has only started."""
        turn = self._claimed(draft, io, claim, present, stream=stream)
        try:
            await turn.start()
            answer = await turn.respond()
        except BaseException:
            if turn.outcome.past:  # it broke off, or could not be stored
                self._latest.set(turn.presented())
            raise
        self._latest.set(answer)
        return answer

    def _claimed(
        self, draft: Draft, io: IO, claim: Claim, present: Present, *, stream: bool
    ) -> Turn[Self]:
        """A turn that holds the claim on the history."""
        client = self._host()
        self._history.claim(claim)
        try:
            items = self._history.items
            keep = _index_of(draft.replaces, items) if draft.replaces else len(items)
            waiting = open_calls(items[:keep])
            if waiting and draft.question:
                raise StateError(OPEN.format(", ".join(shown(c.call_id) for c in waiting)), CODE)
            question = tuple(distinct(draft.question, items))
            return Turn(
                outcome=Outcome(chat=self, model=client.router.name_of(self._model)),
                request=self._request([*items[:keep], *question], draft.config, draft.deadline),
                input_text="\n".join(item.text for item in question),
                io=io,
                hooks=client.hooks,
                claim=claim,
                closing=client.router.closing,
                present=present,
                stream=stream,
                changes=Transaction(
                    history=self._history,
                    keep=keep,
                    question=question,
                    save=self._save if self._persistence is not None else None,
                ),
                on_token=draft.on_token,
                stop_flag=draft.stop_flag,
                racer=draft.racer,
                tools=draft.tools,
                open_calls=tuple(ToolCallEvent(c.call_id, c.name, c.arguments) for c in waiting),
                again=lambda items: self._request(items, draft.config, draft.deadline),
                on_end=self._latest.loosen,
            )
        except BaseException:
            claim.release()
            raise


def _index_of(replaced: Item, items: Sequence[Item]) -> int:
    for place in reversed(range(len(items))):
        if items[place] is replaced:
            return place
    wrong = "the message to answer again was removed from the chat"
    raise StateError(wrong, "STATE_REGENERATE_NO_USER")
