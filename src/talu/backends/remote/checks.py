"""Checks that an answer is what was asked, for what a server may ignore without saying so.

This module is pure.
"""

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from talu.backends.remote.encoding import Body, Target, wanted_logprobs
from talu.backends.remote.tool_checks import ToolChecks, enforced_reports
from talu.engine.stops import StopMatcher
from talu.types import Event, FinishReason, ReasoningDelta, Request, TextDelta, TokenLogprob, Usage

if TYPE_CHECKING:  # loaded when an answer is asked to have a form
    from talu.structured.report import SchemaReport

__all__ = ["Checks", "is_same_model"]

FORMS = {  # fields of a body that ask for a form
    "ebnf",
    "grammar",
    "json_schema",
    "output_config",
    "regex",
    "response_format",
    "structured_outputs",
}
KEEP_STOPS = ("include_stop_str_in_output", "no_stop_trim")  # fields of a body that ask for it
DATE = re.compile(  # at the end of a model's name: 2024-08-06, 20240806, 0806 or 2408
    r"[-@](20\d\d-(0[1-9]|1[0-2])-\d\d|20\d\d(0[1-9]|1[0-2])\d\d"
    r"|(0[1-9]|1[0-2])([0-2]\d|3[01])|2\d(0[1-9]|1[0-2]))$"
)


def is_same_model(asked: str, served: str) -> bool:
    """Whether two names mean one model: the dated name of a version is that of its model."""
    return asked.lower() == served.lower() or _undated(asked) == _undated(served, served=True)


def _undated(name: str, *, served: bool = False) -> str:
    """The name without what may differ between the question and the answer."""
    plain = name.lower().removeprefix("models/")
    plain = plain.removesuffix(":latest").removesuffix("-latest")
    return DATE.sub("", plain) if served else plain


class Checks:
    """Compares the answer to one request with its settings, while it arrives.

    Attributes:
        seed: the seed that was sent.
        report: what becomes of the keywords of the form that was asked for.
        tool_reports: the same for the tools whose arguments the server was asked to enforce.
    """

    def __init__(
        self, request: Request, target: Target, body: Body, *, explained: str | None = None
    ) -> None:
        """Prepare the checks.

        Args:
            request: what was asked.
            target: the model; settings that its provider does not have were left out.
            body: what was sent.
            explained: how the messages explain the form of the answer.
        """
        known = target.provider.settings(raw=request.messages is None)
        asked = {name: value for name, value in request.settings.items() if name in known}
        self._logprobs = wanted_logprobs(asked)
        self._max_tokens: int | None = asked.get("max_tokens")
        keeps = any(body.values.get(name) for name in KEEP_STOPS)
        self._stops = StopMatcher(() if keeps else asked.get("stop_sequences", ()))
        self._default_max_tokens = body.default_max_tokens
        self.seed: int | None = asked.get("seed")
        form = request.config.response_format
        sent = form is not None and not FORMS.isdisjoint(body.values)
        self.report: SchemaReport | None = None
        if form is not None:
            self.report = form.checked_report(
                target.provider.name if sent else None, explained=explained
            )
        self._tools = ToolChecks(request)
        self.tool_reports = enforced_reports(request, target.provider)
        self._has_text = False
        self._has_logprobs = False
        self._most = 0  # alternatives of a token

    @property
    def stopped(self) -> str | None:
        """The stop sequence that the server did not stop at; the text ends before it."""
        return self._stops.matched

    def seen(self, event: Event) -> Event | None:
        """The event as the user gets it: up to a stop sequence, with the alternatives asked for.

        None for a call after one that had to be alone.
        """
        if not self._tools.keeps(event):
            return None
        if isinstance(event, TextDelta | ReasoningDelta):
            self._has_text = self._has_text or bool(event.text)
            event = replace(event, logprobs=tuple(map(self._shown, event.logprobs)))
        if isinstance(event, TextDelta):
            event = replace(event, text=self._stops.push(event.text))
        return event

    def rest(self) -> TextDelta | None:
        """The text that was held back because it could have been a part of a stop sequence."""
        text = self._stops.flush()
        return TextDelta(text) if text else None

    def notes(self, usage: Usage, reason: FinishReason | None) -> tuple[str, ...]:
        """What the server did not do, once the answer has ended.

        Args:
            usage: the server's token counts.
            reason: the server's finish reason.
        """
        notes = self._tools.notes(reason, has_text=self._has_text)
        if (default := self._default_max_tokens) is not None and reason is FinishReason.LENGTH:
            cut = f"the answer was cut at {default} tokens, the default"
            notes.append(f"max_tokens was not set: {cut}, because the protocol needs a limit")
        if self._has_text and self._logprobs is not None:
            if not self._has_logprobs:
                notes.append("the server sent no log-probabilities, which logprobs asked for")
            elif self._most < self._logprobs:
                wanted = f"although top_logprobs is {self._logprobs}"
                notes.append(f"the server sent {self._most} alternatives at most, {wanted}")
        if self.stopped is not None:
            cut = "the answer was cut there"
            if usage.completion_tokens is None:
                cut += ", and its numbers of tokens are unknown"
            notes.append(f"the server did not stop at the stop sequence {self.stopped!r}: {cut}")
        count, most = usage.completion_tokens, self._max_tokens
        if count is not None and most is not None and count > most:
            notes.append(f"the server generated {count} tokens, although max_tokens is {most}")
        return tuple(notes)

    def _shown(self, entry: TokenLogprob) -> TokenLogprob:
        """The entry with as many alternatives as were asked for."""
        self._has_logprobs = True
        if self._logprobs is None:
            return entry
        self._most = max(self._most, len(entry.top_logprobs or ()))
        return replace(entry, top_logprobs=(entry.top_logprobs or [])[: self._logprobs] or None)
