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
from talu.tools.calls import ToolCall, ToolRun, failed
from talu.tools.use import ToolUse, by_name
from talu.types import Done, FinishReason, Request, StopFlag

__all__ = ["ToolRounds"]

REFUSED = "the call was refused"
SOURCES: WeakKeyDictionary[StopFlag, WeakSet[Any]] = WeakKeyDictionary()  # that a client closes


class ToolRounds:
    """The tools of one turn, and the calls that it carries out.

    Attributes:
        requests: how many requests have been made to the model.
        under_way: the calls that are being carried out, and have no result yet.
    """

    def __init__(self, use: ToolUse) -> None:
        """Prepare the tools; nothing is opened before ``prepare``."""
        self.requests = 0
        self.under_way: list[ToolCall] = []
        self._use = use
        self._runs: Any = None
        self._stopped = False
        self._fields: dict[str, Any] = {}

    async def prepare(self, io: IO, outcome: Outcome[Any], closing: StopFlag) -> None:
        """Open the sources of tools, which the client closes.

        Raises:
            ValidationError: two tools have the same name, or ``tool_choice`` names none of them.
        """
        if not self._use.tools:
            return
        tools: list[Any] = []
        for entry in self._use.tools:
            if hasattr(entry, "definition"):
                tools.append(entry)
                continue
            tools += await io.open_source(entry)
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
        return replace(request, **{**self._fields, "tool_choice": choice})

    def to_carry_out(self, outcome: Outcome[Any]) -> list[ToolCall]:
        """The calls of the last answer, if they are to be carried out here."""
        done = outcome.builder.done
        if not outcome.builder.calls or not _calls(done):
            return []
        if self.requests < self._use.rounds:
            return outcome.calls
        if self._use.rounds > 1:
            outcome.note(
                f"max_rounds={self._use.rounds} requests were made: the calls of the last answer "
                "were not carried out; resume() or submit_tool_results() goes on"
            )
        return []

    async def run(
        self, calls: Sequence[ToolCall], io: IO, outcome: Outcome[Any], deadline: Deadline | None
    ) -> AsyncGenerator[ToolRun]:
        """Carry out the calls, and yield each as it ends; some may have to wait and stay open."""
        self.under_way = list(calls)
        ready: list[ToolCall] = []
        for call in calls:
            if self._stopped:
                return
            run = self._unsuitable(call, outcome.tools)
            if run is None and await self._waits(call, io, outcome):
                self.under_way.remove(call)
                continue
            run = run or self._refusal
            if run is None:
                ready.append(call)
                continue
            yield self._ended(run)
        self._runs = loaded("talu.tools.execution", "Runs")(ready)
        while not self._stopped:
            run = await io.next_run(self._runs.next, deadline)
            if run is None:
                return
            yield self._ended(run)

    def _ended(self, run: ToolRun) -> ToolRun:
        self.under_way.remove(run.call)
        return run

    def _unsuitable(self, call: ToolCall, tools: Mapping[str, Any]) -> ToolRun | None:
        """The failure of a call that cannot be carried out; None if it can."""
        self._refusal: ToolRun | None = None
        if call.tool is None:
            known = ", ".join(tools) or "none"
            wrong = f"there is no tool {shown(call.name)}; there are: {known}"
            return failed(call, wrong, "TOOL_UNKNOWN")
        if not call.tool.runs:
            return None
        try:
            call.parsed_arguments()
        except ToolExecutionError as error:
            return failed(call, str(error), error.code)
        return None

    async def _waits(self, call: ToolCall, io: IO, outcome: Outcome[Any]) -> bool:
        """Whether a call stays open: for somebody who carries it out, or for an approval."""
        approve = self._use.approve
        if call.tool is None or not call.tool.runs:
            outcome.note(f"the call of {call.name!r} waits for its result: it has no function here")
            return True
        if approve is None:
            if call.needs_approval:
                outcome.note(f"the call of {call.name!r} waits for an approval: see resume()")
            return call.needs_approval
        decision = await io.call(approve, call)
        if decision is None:
            outcome.note(f"the call of {call.name!r} waits for an approval: see resume()")
            return True
        if decision is True:
            return False
        if decision is not False and not isinstance(decision, str):
            raise ValidationError(
                "approve must return True (carry it out), False or a text (refuse it) or None "
                f"(leave it open), got {shown(decision)}",
                details={"param": "approve"},
            )
        reason = f"{REFUSED}: {decision}" if decision else REFUSED
        self._refusal = failed(call, reason, "TOOL_REFUSED")
        return False

    def cancel(self) -> None:
        """Stop waiting for calls; from any thread. Threads of functions go on."""
        self._stopped = True
        if self._runs is not None:
            self._runs.cancel()

    def cancelled(self) -> list[ToolRun]:
        """The calls that were under way, as failed; afterwards none is."""
        self.cancel()
        calls, self.under_way = self.under_way, []
        why = "the answer was stopped before the call had ended; it may have had effects"
        return [failed(call, why, "TOOL_CANCELLED") for call in calls]


def _calls(done: Done | None) -> bool:
    """Whether an answer has ended with its calls, and was not cut off."""
    reasons = (FinishReason.TOOL_CALLS, FinishReason.STOP)
    return done is not None and done.finish_reason in reasons
