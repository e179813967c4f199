"""OpenAI's responses: answers become items and events.

https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from collections.abc import Sequence
from typing import Any

from talu.chat.answer import Answer
from talu.chat.builder import ReasoningPiece, Token, ToolCallPiece
from talu.server.bodies import without_unset
from talu.server.encoders import Event, Head, about
from talu.server.failures import Failure, openai_error
from talu.server.openai_fields import token_entries
from talu.server.openai_responses_body import ResponseBody
from talu.types import FinishReason, TokenLogprob, Usage

__all__ = ["ResponseEncoder"]

INCOMPLETE = {
    FinishReason.LENGTH: "max_output_tokens",
    FinishReason.CONTENT_FILTER: "content_filter",
}
REASONING, MESSAGE, CALL = "reasoning", "message", "function_call"
PARTS = {REASONING: "reasoning_text", MESSAGE: "output_text"}
DELTAS = {  # the name of the events of a kind of item
    REASONING: "reasoning_text",
    MESSAGE: "output_text",
    CALL: "function_call_arguments",
}
PREFIXES = {REASONING: "rs", MESSAGE: "msg", CALL: "fc"}


class ResponseEncoder:
    """Encodes the answer to a request, whole or in pieces."""

    def __init__(self, body: ResponseBody, head: Head) -> None:
        """Prepare it; the body is repeated in the answer."""
        self._body = body
        self._head = head
        self._items: list[_Item] = []
        self._sequence = 0
        self._logprobs = 0
        self._begun = False

    def whole(self, answers: Sequence[Answer[Any]]) -> dict[str, Any]:
        """The body of the whole answer."""
        (answer,) = answers
        if answer.reasoning is not None:
            self._new(REASONING).add(answer.reasoning)
        if answer.text or not answer.tool_calls:
            self._new(MESSAGE).add(answer.text, self._new_logprobs(answer))
        for call in answer.tool_calls or ():
            self._new(CALL, call_id=call.id, name=call.name).add(call.arguments)
        return self._ended(answer)

    def _new(self, kind: str, **fields: str) -> "_Item":
        number = len(self._items)
        item = _Item(kind, number, f"{PREFIXES[kind]}_{self._head.id}_{number}", fields)
        self._items.append(item)
        return item

    def _new_logprobs(self, answer: Answer[Any]) -> list[TokenLogprob]:
        """The log-probabilities of the tokens since the last piece, if they are wanted."""
        if not self._body.wants_logprobs:
            return []
        known = answer.logprobs or []
        new, self._logprobs = known[self._logprobs :], len(known)
        return new

    def _ended(self, answer: Answer[Any]) -> dict[str, Any]:
        """The response after its end; an item that was cut off is incomplete."""
        reason = INCOMPLETE.get(answer.finish_reason or FinishReason.STOP)
        status = "incomplete" if reason else "completed"
        for item in self._items:
            item.status = status if item is self._items[-1] else "completed"
        response = self._response(status)
        response["incomplete_details"] = {"reason": reason} if reason else None
        return response | {"usage": _usage(answer.usage or Usage()), "talu": about(answer)}

    def _response(self, status: str) -> dict[str, Any]:
        body = self._body
        given = without_unset(body)
        return {
            "id": f"resp_{self._head.id}",
            "object": "response",
            "created_at": self._head.created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": self._head.model,
            "output": [item.shown() for item in self._items],
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": given.get("reasoning", {"effort": None}),
            "store": False,
            "temperature": body.temperature,
            "text": given.get("text", {"format": {"type": "text"}}),
            "tool_choice": given.get("tool_choice", "auto"),
            "tools": given.get("tools", []),
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": None,
        }

    def piece(self, index: int, piece: Token, answer: Answer[Any]) -> list[Event]:
        """The events of a piece of the answer."""
        events: list[Event] = []
        if not self._begun:
            self._begun = True
            response = self._response("in_progress")
            events += [
                self._event("response.created", response=response),
                self._event("response.in_progress", response=response),
            ]
        match piece:
            case ReasoningPiece():
                events += self._delta(self._text_item(REASONING), piece.reasoning, [])
            case ToolCallPiece():
                events += self._call(piece)
            case _ if piece:
                logprobs = self._new_logprobs(answer)
                events += self._delta(self._text_item(MESSAGE), str(piece), logprobs)
        return events

    def _text_item(self, kind: str) -> "_Item":
        """The last item if it is of this kind and open, else a new one."""
        last = self._items[-1] if self._items else None
        return last if last is not None and last.kind == kind else self._new(kind)

    def _call(self, piece: ToolCallPiece) -> list[Event]:
        calls = [item for item in self._items if item.fields.get("call_id") == piece.call_id]
        item = calls[0] if calls else self._new(CALL, call_id=piece.call_id, name=piece.name)
        events = self._delta(item, piece.arguments, [])
        return [*events, *self._done(item)] if piece.complete else events

    def _delta(self, item: "_Item", text: str, logprobs: list[TokenLogprob]) -> list[Event]:
        """The events of a piece of an item; a new one ends texts and reasoning before it."""
        events: list[Event] = []
        if not item.begun:
            for before in self._items[:-1]:
                if before.kind != CALL:
                    events += self._done(before)
            events += self._begin(item)
        item.add(text, logprobs)
        if text:
            more = {"logprobs": token_entries(logprobs)} if item.kind == MESSAGE else {}
            name = f"response.{DELTAS[item.kind]}.delta"
            events.append(self._event(name, item, delta=text, **more))
        return events

    def _begin(self, item: "_Item") -> list[Event]:
        item.begun = True
        events = [self._event("response.output_item.added", **item.placed(empty=True))]
        if item.kind != CALL:
            part = item.part("", [])
            events.append(self._event("response.content_part.added", item, part=part))
        return events

    def _done(self, item: "_Item") -> list[Event]:
        """The events of the end of an item, once."""
        if item.status != "in_progress":
            return []
        item.status = "completed"
        name = f"response.{DELTAS[item.kind]}.done"
        if item.kind == CALL:
            fields = {"name": item.fields["name"], "arguments": item.text}
            events = [self._event(name, item, **fields)]
        else:
            part = item.part(item.text, item.logprobs)
            more = {"logprobs": part["logprobs"]} if item.kind == MESSAGE else {}
            events = [
                self._event(name, item, text=item.text, **more),
                self._event("response.content_part.done", item, part=part),
            ]
        return [*events, self._event("response.output_item.done", **item.placed())]

    def _event(self, kind: str, of: "_Item | None" = None, /, **fields: Any) -> Event:
        """The next event, perhaps of a text or the arguments of an item."""
        if of is not None:
            fields |= {"item_id": of.id, "output_index": of.number}
            if of.kind != CALL:
                fields["content_index"] = 0
        self._sequence += 1
        return Event({"type": kind, "sequence_number": self._sequence - 1, **fields}, kind)

    def end(self, answers: Sequence[Answer[Any]]) -> list[Event]:
        """The events after the last piece."""
        (answer,) = answers
        events: list[Event] = []
        if not self._items:
            events += self._delta(self._new(MESSAGE), "", [])
        for item in self._items:
            events += self._done(item)
        response = self._ended(answer)
        return [*events, self._event(f"response.{response['status']}", response=response)]

    def failed(self, failure: Failure) -> list[Event]:
        """The last events of a stream that breaks; the SDK raises the second one."""
        error = openai_error(failure)["error"]
        response = self._response("failed")
        response["error"] = {"code": failure.code, "message": str(failure)}
        return [
            self._event("response.failed", response=response),
            self._event("error", error=error, message=str(failure), code=failure.code),
        ]


class _Item:
    """An item of the answer while it is written."""

    def __init__(self, kind: str, number: int, item_id: str, fields: dict[str, str]) -> None:
        self.kind = kind
        self.number = number
        self.id = item_id
        self.fields = fields
        self.status = "in_progress"
        self.begun = False
        self.logprobs: list[TokenLogprob] = []
        self._texts: list[str] = []

    def add(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> None:
        self._texts.append(text)
        self.logprobs += logprobs

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def part(self, text: str, logprobs: list[TokenLogprob]) -> dict[str, Any]:
        """The part of a message or of reasoning."""
        part: dict[str, Any] = {"type": PARTS[self.kind], "text": text}
        if self.kind == MESSAGE:
            part |= {"annotations": [], "logprobs": token_entries(logprobs)}
        return part

    def placed(self, *, empty: bool = False) -> dict[str, Any]:
        """The item with its place in the answer."""
        return {"output_index": self.number, "item": self.shown(empty=empty)}

    def shown(self, *, empty: bool = False) -> dict[str, Any]:
        """The item, as it begins or so far."""
        shown: dict[str, Any] = {"id": self.id, "type": self.kind, "status": self.status}
        if self.kind == CALL:
            return {**shown, **self.fields, "arguments": "" if empty else self.text}
        shown["content"] = [] if empty else [self.part(self.text, self.logprobs)]
        more: dict[str, Any] = {"role": "assistant"} if self.kind == MESSAGE else {"summary": []}
        return shown | more


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }
