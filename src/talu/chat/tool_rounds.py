"""Carries out the tool calls of a turn between its requests to the model."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from talu.chat.io import IO
from talu.chat.outcome import Outcome
from talu.deadline import Deadline
from talu.error_text import shown
from talu.exceptions import ToolExecutionError, ValidationError
from talu.first_use import loaded
from talu.json_values import json_object
from talu.tools.calls import ToolCall, ToolRun, failed
from talu.tools.use import ToolUse, by_name, is_source
from talu.types import FinishReason, Request, StopFlag

__all__ = ["ToolRounds"]

REFUSED = "the call was refused"
IN_THE_MIDDLE = "the answer was stopped before the call had ended; it may have had effects"
BEFORE = "the answer was stopped before the call began"
SOURCES: WeakKeyDictionary[StopFlag, WeakSet[Any]] = WeakKeyDictionary()  # that a client closes


class ToolRounds:
    """The tools of one turn, and the calls that it carries out.

    Attributes:
        requests: how many requests have been made to the model.
    """

    def __init__(self, use: ToolUse) -> None:
        """Prepare the tools; nothing is opened before ``prepare``."""
        self.requests = 0
        self._use = use
        self._runs: Any = None
        self._waiting: set[str] = set()  # ids of calls that stay open
        self._stopped = False
        self._cut_short = False
        self._fields: dict[str, Any] = {}
        self._choice: str | None = None  # of the last request

    async def prepare(self, io: IO, outcome: Outcome[Any], closing: StopFlag) -> None:
        """Open the sources of tools, which the client closes.

        Raises:
            ValidationError: two tools have the same name, or ``tool_choice`` names none of them.
        """
        if not self._use.tools:
            return
        tools: list[Any] = []
        for entry in self._use.tools:
            if not is_source(entry):
                tools.append(entry)
                continue
            tools += await io.open_source(entry)
            for note in _notes(entry):
                outcome.note(note)
            known = SOURCES.setdefault(closing, WeakSet())
            if entry not in known:
                known.add(entry)
                closing.when_signalled(entry.close)
        outcome.tools = by_name(tools)
        self._use.check_choice(outcome.tools)
        self._fields = {
            "tools": tuple(tool.definition for tool in outcome.tools.values()),
            "tool_choice": self._use.tool_choice,
            "parallel_tool_calls": self._use.parallel_tool_calls,
        }

    def offered(self, request: Request) -> Request:
        """The request with the tools; after the first one the model is free not to call any."""
        if not self._fields:
            return request
        choice = self._fields["tool_choice"]
        if self.requests and choice not in (None, "none"):
            choice = "auto"
        self._choice = choice
        return replace(request, **{**self._fields, "tool_choice": choice})

    def to_carry_out(self, outcome: Outcome[Any]) -> list[ToolCall]:
        """The calls of the last answer, if they are to be carried out here."""
        why = None
        if self.requests >= self._use.rounds and _calls(outcome):
            why = f"max_rounds={self._use.rounds} requests were made"
        elif (reason := _cut_off_after_calls(outcome)) is not None:
            why = f"the answer was cut off ({reason})"
        if why is not None and self._use.rounds > 1:
            outcome.note(
                f"{why}: the calls of the last answer were not carried out; resume() or "
                "submit_tool_results() goes on"
            )
        return self._unfinished(outcome)

    def _unfinished(self, outcome: Outcome[Any]) -> list[ToolCall]:
        """The calls that are to be carried out, or are being carried out, and have no result."""
        if self.requests >= self._use.rounds or not _calls(outcome):
            return []
        return [call for call in outcome.calls if call.id not in self._waiting]

    async def run(
        self, calls: Sequence[ToolCall], io: IO, outcome: Outcome[Any], deadline: Deadline | None
    ) -> AsyncGenerator[ToolRun]:
        """Carry out the calls, and yield each as it ends; some may have to wait and stay open."""
        self._runs, self._waiting = None, set()
        ready: list[tuple[ToolCall, dict[str, Any]]] = []
        for call in calls:
            if self._stopped:
                return
            if self._breaks_choice(call):
                reason = f"{REFUSED}: tool_choice is {self._choice!r}"
                outcome.note(f"the call of {shown(call.name)} was not carried out: {reason}")
                yield failed(call, reason, "TOOL_REFUSED")
                continue
            try:
                arguments = _arguments(call, outcome.tools)
            except ToolExecutionError as error:
                yield failed(call, str(error), error.code)
                continue
            decision = await self._decision(call, io, outcome)
            if decision is True:
                ready.append((call, arguments))
            elif decision is None:
                self._waiting.add(call.id)
            else:
                reason = f"{REFUSED}: {decision}" if decision else REFUSED
                yield failed(call, reason, "TOOL_REFUSED")
        self._runs = loaded("talu.tools.execution", "Runs")(ready)
        while not self._stopped:
            run = await io.next_run(self._runs.next, deadline)
            if run is None:
                return
            yield run

    def _breaks_choice(self, call: ToolCall) -> bool:
        """Whether the last request forbade this call; those of the history answer no request."""
        if not self.requests or self._choice in (None, "auto", "required"):
            return False
        return call.name != self._choice

    async def _decision(self, call: ToolCall, io: IO, outcome: Outcome[Any]) -> bool | str | None:
        """Whether a call is carried out, or why it is refused; None if it stays open."""
        approve = self._use.approve
        if call.tool is None or not call.tool.runs:
            outcome.note(f"the call of {call.name!r} waits for its result: it has no function here")
            return None
        decision: object = None if call.needs_approval else True
        if approve is not None:
            decision = await io.call(approve, call)
        if decision is None:
            outcome.note(f"the call of {call.name!r} waits for an approval: see resume()")
            return None
        if not isinstance(decision, bool | str):
            raise ValidationError(
                "approve must return True (carry it out), False or a text (refuse it) or None "
                f"(leave it open), got {shown(decision)}",
                details={"param": "approve"},
            )
        return decision

    def cancel(self) -> None:
        """Stop waiting for calls; from any thread. Threads of functions go on."""
        self._stopped = True
        if self._runs is not None:
            self._runs.cancel()

    def is_cut_short(self, outcome: Outcome[Any]) -> bool:
        """Whether the turn ends before all calls that were to be carried out have ended."""
        self._cut_short = self._cut_short or bool(self._unfinished(outcome))
        return self._cut_short

    def end(self, outcome: Outcome[Any], *, only_begun: bool = False) -> None:
        """Record the calls that have not ended as failed; after an interrupt, go on with that.

        Args:
            outcome: of the turn, which gets the records, and a note for each.
            only_begun: let those that had not begun stay open.
        """
        self.cancel()
        begun = self._runs.begun if self._runs is not None else set()
        for call in self._unfinished(outcome):
            if call.id not in begun and only_begun:
                continue
            why = IN_THE_MIDDLE if call.id in begun else BEFORE
            outcome.note(f"the call of {shown(call.name)} was cancelled: {why}")
            outcome.runs.append(failed(call, why, "TOOL_CANCELLED"))


def _notes(source: object) -> list[str]:
    """What a source of tools says about its last opening."""
    notes = getattr(source, "notes", ())
    return [str(note) for note in notes] if isinstance(notes, list | tuple) else []


def _arguments(call: ToolCall, tools: Mapping[str, Any]) -> dict[str, Any]:
    """The checked arguments of a call; none if somebody else carries it out.

    Raises:
        ToolExecutionError: there is no such tool, or the arguments do not fit.
    """
    if call.tool is None:
        known = ", ".join(tools) or "none"
        wrong = f"there is no tool {shown(call.name)}; there are: {known}"
        raise ToolExecutionError(wrong, "TOOL_UNKNOWN")
    return call.parsed_arguments() if call.tool.runs else {}


def _calls(outcome: Outcome[Any]) -> bool:
    """Whether an answer has ended with calls, and was not cut off."""
    done = outcome.builder.done
    ended = done is not None and done.finish_reason in (FinishReason.TOOL_CALLS, FinishReason.STOP)
    return ended and bool(outcome.builder.calls)


def _cut_off_after_calls(outcome: Outcome[Any]) -> FinishReason | None:
    """Why an answer was cut off after a complete call, which stays open; None if it was not."""
    done = outcome.builder.done
    if done is None or done.finish_reason not in (FinishReason.LENGTH, FinishReason.CONTENT_FILTER):
        return None
    is_whole = any(json_object(call.arguments) is not None for call in outcome.builder.calls)
    return done.finish_reason if is_whole else None
