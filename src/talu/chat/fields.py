"""The properties of answers and streams that are read from what a turn has produced."""

from abc import ABC
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from talu.chat.outcome import Outcome
from talu.exceptions import StateError
from talu.tools.calls import ToolCall, ToolRun
from talu.types import Attempt, FinishReason, Timings, TokenLogprob, Usage

if TYPE_CHECKING:  # loaded when an answer is asked to have a form
    from talu.structured.report import SchemaReport

__all__ = ["ResultFields"]


class ResultFields(ABC):
    """The properties of every answer and stream.

    Before a stream has ended, they show what has arrived; usage, timings, notes, attempts and all
    else that the model says at the end are known then.
    """

    __slots__ = ()
    _outcome: Outcome[Any]

    @property
    def text(self) -> str:
        """The answer's text, without reasoning and tool calls.

        That of the model's last answer, if tools were carried out before it: what it wrote before
        is in the items of the chat, and in the pieces of a stream.
        """
        return self._outcome.builder.text

    @property
    def reasoning(self) -> str | None:
        """The model's reasoning before the answer; None when there is none."""
        return self._outcome.builder.reasoning or None

    @property
    def parsed(self) -> Any:
        """The value of the answer, in the type that ``response_format`` asked for.

        An instance of the type, a plain value for a JSON Schema, a text for ``Regex`` and
        ``Grammar``, an option for ``Choice``; None without a format. It is made at each access.

        Raises:
            IncompleteJSONError: the answer ended before its value did.
            SchemaValidationError: the answer does not have the form.
            StateError: the stream has not ended, or the answer has open tool calls.
        """
        outcome = self._outcome
        if outcome.form is None:
            return None
        if outcome.calls:
            raise StateError(
                "the answer is made of tool calls, which are open: its value comes after their "
                "results (submit_tool_results)",
                "STATE_OPEN_CALLS",
            )
        if outcome.finish_reason is None:
            raise StateError(
                "the answer has not ended, so that its value is not known yet: read the stream "
                "first, or take partial"
            )
        return outcome.form.read(self.text, outcome.ending)

    @property
    def partial(self) -> Any:
        """What is known of the value while the answer is generated, as plain data.

        Objects and arrays have what has arrived, and a string its first characters; None before
        anything is known, and without a ``response_format``. Nothing is checked.
        """
        outcome = self._outcome
        if outcome.form is None:
            return None
        ended = outcome.ending == FinishReason.STOP
        return outcome.form.partial(outcome.builder.text, ended=ended)

    @property
    def schema_report(self) -> "SchemaReport | None":
        """Which keywords of ``response_format`` were enforced, checked or ignored.

        None without a format, and before the end.
        """
        done, form = self._outcome.builder.done, self._outcome.form
        if done is None or form is None:
            return None
        return done.schema_report or form.checked_report()

    @property
    def tool_reports(self) -> "dict[str, SchemaReport]":
        """Which keywords of the schema of each tool were enforced in its calls, or only checked.

        By the name of the tool; empty without tools, and before the end. Arguments are checked
        before a call is carried out, whatever was enforced.
        """
        return dict(self._outcome.tool_reports)

    @property
    def tokens(self) -> list[int]:
        """Ids of all sampled tokens, including reasoning tokens and the end token."""
        return list(self._outcome.builder.tokens)

    @property
    def logprobs(self) -> list[TokenLogprob] | None:
        """One entry per token; None when they were not requested."""
        return list(self._outcome.builder.logprobs) or None

    @property
    def tool_calls(self) -> list[ToolCall] | None:
        """The tool calls that wait for a result; None when there are none.

        These are the calls of the last answer of the model without those that were carried out.
        """
        return self._outcome.calls or None

    @property
    def tool_runs(self) -> list[ToolRun]:
        """The tool calls that were carried out, in the order in which they ended."""
        return list(self._outcome.runs)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer ended; None while it has not, and when it failed.

        ``error`` for a partial answer whose time ran out or whose connection broke.
        """
        return self._outcome.finish_reason

    @property
    def stop_sequence(self) -> str | None:
        """The stop sequence that ended the answer, if one did."""
        done = self._outcome.builder.done
        return done.stop_sequence if done else None

    @property
    def usage(self) -> Usage | None:
        """Token counts; None before the end, and when the answer failed or was never read.

        For a stream that was stopped early, they count what the model generated until then, which
        may be more than was read. They are the sums of all requests, if tools were carried out or
        an answer was asked for again.
        """
        return self._outcome.usage

    @property
    def timings(self) -> Timings | None:
        """Durations of the last request; available whenever ``usage`` is."""
        done = self._outcome.builder.done
        return done.timings if done else None

    @property
    def model(self) -> str | None:
        """The name, in the client, of the model that answered."""
        return self._outcome.answered_by

    @property
    def prompt(self) -> str | None:
        """The rendered prompt; None before the end and when the backend does not report it."""
        done = self._outcome.builder.done
        return done.prompt if done else None

    @property
    def seed(self) -> int | None:
        """The seed that was given or drawn; repeating the request with it repeats the answer.

        Of a remote model the one that was sent: the server decides whether the answer is the same.
        None before the end, and when it is unknown.
        """
        done = self._outcome.builder.done
        return done.seed if done else None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that describe each deviation from the request."""
        return self._outcome.notes

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The models that a policy asked for this answer, in order.

        Without a policy, the requests to a remote model if they were repeated, else nothing.
        """
        done = self._outcome.builder.done
        return done.attempts if done else ()

    def to_dict(self) -> dict[str, Any]:
        """The answer as a dictionary for JSON: text, finish reason and all other known values."""
        known: dict[str, Any] = {
            "text": self.text,
            "finish_reason": str(reason) if (reason := self._outcome.finish_reason) else None,
            "model": self.model,
            "reasoning": self.reasoning,
            "stop_sequence": self.stop_sequence,
            "notes": list(self.notes) or None,
            "attempts": [asdict(attempt) for attempt in self.attempts] or None,
            "prompt": self.prompt,
            "tokens": self.tokens or None,
            "seed": self.seed,
        }
        if done := self._outcome.builder.done:
            usage = self._outcome.usage or done.usage
            known["usage"] = asdict(usage) | {"total_tokens": usage.total_tokens}
            known["timings"] = asdict(done.timings) | {"total_ms": done.timings.total_ms}
        if self.schema_report is not None:
            known["schema_report"] = asdict(self.schema_report)
        if reports := self.tool_reports:
            known["tool_reports"] = {name: asdict(report) for name, report in reports.items()}
        if self.logprobs is not None:
            known["logprobs"] = [_plain(entry) for entry in self.logprobs]
        if self.tool_calls is not None:
            known["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        if self.tool_runs:
            known["tool_runs"] = [run.to_dict() for run in self.tool_runs]
        always = ("text", "finish_reason")
        return {name: value for name, value in known.items() if name in always or value is not None}


def _plain(entry: TokenLogprob) -> dict[str, Any]:
    top = [list(other) for other in entry.top_logprobs or ()]
    return {**asdict(entry), "top_logprobs": top or None}
