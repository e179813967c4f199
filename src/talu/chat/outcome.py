"""The state of a turn, and what it has produced: all that an answer refers to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from talu.chat.builder import Builder
from talu.chat.items import Item
from talu.config import GenerationConfig
from talu.first_use import loaded
from talu.tools.calls import ToolCall, ToolRun
from talu.tools.use import ToolUse
from talu.types import FinishReason, Usage

if TYPE_CHECKING:  # loaded when an answer is asked to have a form, or tools are given
    from talu.structured.formats import ResponseFormat
    from talu.structured.report import SchemaReport
    from talu.tools.definition import Tool

__all__ = ["ChatT", "Outcome", "State"]


class Continuable(Protocol):
    """A chat, as an answer sees it."""

    def _ending_with(self, past: Sequence[Item], *, results: bool = False) -> Self:
        """This chat if its history ends with the last of these items, else a fork that does.

        Args:
            past: the history of an answer.
            results: results of its calls may follow it.
        """


ChatT = TypeVar("ChatT", bound=Continuable)


class State(Enum):
    """How far a turn is; it goes through some of these states, in this order."""

    STARTING = "its model is being opened"
    UNREAD = "it has started, and no piece was read"
    READING = "its first piece was asked for"
    ENDING = "its end is decided, and is being stored and reported"
    FINISHED = "the model has finished"
    CANCELLED = "it was cancelled; what had been read was kept"
    SUPERSEDED = "it was cancelled unread, because its chat was used or edited again"
    FAILED = "it failed"


ENDED = (State.FINISHED, State.CANCELLED, State.SUPERSEDED, State.FAILED)


@dataclass(slots=True, kw_only=True, eq=False)
class Outcome(Generic[ChatT]):
    """What a turn has produced so far.

    Attributes:
        chat: the chat of the turn, None if it has none.
        model: the name of the model or the policy that was asked.
        rounds: what each round of the turn has built; the last one may still grow.
        state: how far the turn is.
        finish_reason: None until the end is decided, and when it failed without a partial answer.
        past: the history up to and including the turn; empty before the commit.
        form: the form that the answer was asked to have.
        config: the settings of the turn; None in a copy.
        use: the tools of the turn as they were given.
        tools: the tools by name; empty in a copy for another process.
        runs: the calls that were carried out, in the order in which they ended.
        earlier_runs: how many of them belong to earlier rounds, whose ids may be the same.
    """

    chat: ChatT | None
    model: str
    rounds: list[Builder] = field(default_factory=lambda: [Builder()])
    state: State = State.STARTING
    finish_reason: FinishReason | None = None
    past: tuple[Item, ...] = ()
    form: "ResponseFormat | None" = None
    config: GenerationConfig | None = None
    use: ToolUse = field(default_factory=ToolUse)
    tools: "Mapping[str, Tool]" = field(default_factory=dict)
    runs: list[ToolRun] = field(default_factory=list)
    earlier_runs: int = 0
    _notes: tuple[str, ...] = ()
    _tool_reports: "Mapping[str, SchemaReport] | None" = None  # of a copy

    @property
    def builder(self) -> Builder:
        """What the latest round has built."""
        return self.rounds[-1]

    @property
    def unread(self) -> bool:
        """Whether the turn has started and no piece was read."""
        return self.state is State.UNREAD

    @property
    def ended(self) -> bool:
        """Whether nothing changes any more."""
        return self.state in ENDED

    @property
    def ending(self) -> str | None:
        """Why the text ends: a finish reason or ``"stop_sequence"``; None before its end."""
        done = self.builder.done
        if done is None:
            return self.finish_reason
        if done.stop_sequence is not None:
            return "stop_sequence"
        return self.finish_reason or done.finish_reason

    @property
    def answered_by(self) -> str:
        """The name, in the client, of the model that answered: of a policy's, the chosen one."""
        done = self.builder.done
        return done.model if done is not None and done.attempts else self.model

    @property
    def usage(self) -> Usage | None:
        """The sums of the counts of all rounds; None before the end of the last one."""
        if self.builder.done is None:
            return None
        usages = [each.done.usage for each in self.rounds if each.done is not None]
        counts: dict[str, int | None] = {}
        for each in fields(Usage):
            values = [getattr(usage, each.name) for usage in usages]
            counts[each.name] = None if None in values else sum(values)
        return Usage(**counts)

    def note(self, note: str) -> None:
        """Add a note about the turn."""
        self._notes = (*self._notes, note)

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of all rounds and of the turn, each once; none before the end."""
        if self.builder.done is None:
            return ()
        of_rounds = [note for each in self.rounds if each.done for note in each.done.notes]
        return tuple(dict.fromkeys((*of_rounds, *self._notes)))

    @property
    def tool_reports(self) -> "Mapping[str, SchemaReport]":
        """What became of the keywords of the schema of each tool; empty before the end."""
        if self._tool_reports is not None:
            return self._tool_reports
        done = self.builder.done
        if done is None:
            return {}
        return {
            name: done.tool_reports[name]
            if name in done.tool_reports
            else loaded("talu.structured.report", "checked_report")(tool.parameters)
            for name, tool in self.tools.items()
        }

    @property
    def calls(self) -> list[ToolCall]:
        """The calls of the last round that have no result."""
        done = [run.call.id for run in self.runs[self.earlier_runs :]]
        found = []
        for event in self.builder.calls:
            if event.call_id in done:
                done.remove(event.call_id)
                continue
            tool = self.tools.get(event.name)
            found.append(ToolCall(event.call_id, event.name, event.arguments, tool))
        return found

    def for_copies(self) -> "Outcome[ChatT]":
        """A copy without the chat and the functions, which stay in this process."""
        runs = [run._replace(call=replace(run.call, tool=None)) for run in self.runs]
        return replace(
            self.of_chat(None),
            config=None,
            use=ToolUse(),
            tools={},
            runs=runs,
            _tool_reports=self.tool_reports,
        )

    def of_chat(self, chat: ChatT | None) -> "Outcome[ChatT]":
        """A copy for this chat; without a chat it has no history either."""
        return replace(self, chat=chat, past=() if chat is None else self.past)
