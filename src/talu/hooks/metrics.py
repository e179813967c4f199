"""A hook that counts and measures generations and their tool calls by model."""

from bisect import bisect_left
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from talu.chat.answer import Answer
from talu.chat.observers import Generation, Hook
from talu.exceptions import StateError
from talu.forks import ForkSafeLock
from talu.hooks.ending import finish_reason
from talu.hooks.measures import Histogram, ModelMetrics, ToolMetrics
from talu.hooks.prometheus import exposition
from talu.hooks.tool_labels import ToolLabels
from talu.tools.calls import ToolRun
from talu.types import FinishReason, Handle, Usage

__all__ = ["MetricsHook"]

# The bounds that vLLM uses for the same measure, so that dashboards are comparable.
FIRST_TOKEN_SECONDS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
)  # fmt: skip
TOKENS_PER_SECOND = (
    1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0,
    100.0, 150.0, 200.0, 300.0, 500.0, 1000.0, 2000.0, 5000.0,
)  # fmt: skip


TOOL_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip


class MetricsHook(Hook, Handle):
    """Counts generations, failures, tokens and tool calls, and measures latency, by model.

    One hook can serve any number of clients, threads and event loops; the counts stay exact.
    """

    _instead = "snapshot() returns the counts as values; another process needs a separate hook"

    def __init__(self) -> None:
        self._models: dict[str, _Tally] = {}
        self._labels = ToolLabels()
        self._changes: SimpleQueue[tuple[str, _Change]] = SimpleQueue()
        self._gate = ForkSafeLock(reentrant=True)  # a signal handler may take a snapshot
        self._counting = False

    def for_generation(self, generation: Generation) -> Hook:
        """The hook that counts this generation for its model."""
        return _Observer(lambda change: self._count(generation.model, change), self._labels)

    def snapshot(self) -> dict[str, ModelMetrics]:
        """A consistent copy of the counts so far, by name of the model.

        Raises:
            StateError: called from a signal handler while its thread is counting.
        """
        with self._gate.lock:
            if self._counting:
                raise StateError("the generations are being counted: try again later", "STATE_BUSY")
            self._apply_changes()
            return {model: tally.frozen() for model, tally in self._models.items()}

    def prometheus(self) -> str:
        """The snapshot in Prometheus' text format 0.0.4.

        Serve it as ``text/plain; version=0.0.4; charset=utf-8``. Times are in seconds.
        """
        return exposition(self.snapshot())

    def _count(self, model: str, change: "_Change") -> None:
        # A dropped stream can end in the middle of any code, including this hook's. If this thread
        # is already counting, that call also counts the queued change.
        self._changes.put((model, change))
        lock = self._gate.lock
        if lock.acquire(blocking=False):
            try:
                if not self._counting:
                    self._apply_changes()
            finally:
                lock.release()

    def _apply_changes(self) -> None:
        self._counting = True
        try:
            while True:
                model, change = self._changes.get_nowait()
                change(self._models.setdefault(model, _Tally()))
        except Empty:
            return
        finally:
            self._counting = False


class _Observer(Hook):
    """Counts one generation."""

    def __init__(self, count: "Callable[[_Change], None]", labels: ToolLabels) -> None:
        self._count = count
        self._labels = labels

    def on_generation_start(self, chat: object, input_text: str, *, config: object = None) -> None:
        self._count(_Tally.start)

    def on_first_token(self, chat: object, time_ms: float) -> None:
        self._count(lambda tally: tally.first_token.add(time_ms / 1000))

    def on_tool_run(self, chat: object, run: ToolRun) -> None:
        labels = self._labels  # they are used while nobody else counts
        self._count(lambda tally: tally.tool_run(*labels.of(run), run))

    def on_generation_end(
        self,
        chat: object,
        response: Answer[Any] | None,
        *,
        error: BaseException | None = None,
    ) -> None:
        reason = finish_reason(response, error)
        usage = response.usage if response is not None else None
        timings = response.timings if response is not None else None
        speed = timings.tokens_per_second if timings is not None else None
        self._count(lambda tally: tally.end(reason, usage or Usage(), speed))


class _Buckets:
    """A mutable histogram."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def frozen(self) -> Histogram:
        return Histogram(self._bounds, tuple(self._counts), self._sum)


class _Tally:
    """The mutable counts of one model."""

    def __init__(self) -> None:
        self._started = 0
        self._ended = dict.fromkeys(FinishReason, 0)
        self._prompt_tokens = self._cached_tokens = self._completion_tokens = 0
        self._speed = _Buckets(TOKENS_PER_SECOND)
        self._tools: dict[str, _Calls] = {}
        self.first_token = _Buckets(FIRST_TOKEN_SECONDS)

    def start(self) -> None:
        self._started += 1

    def tool_run(self, tool: str, outcome: str, run: ToolRun) -> None:
        calls = self._tools.setdefault(tool, _Calls())
        calls.outcomes[outcome] = calls.outcomes.get(outcome, 0) + 1
        if run.duration_ms:
            calls.duration.add(run.duration_ms / 1000)

    def end(self, reason: FinishReason, usage: Usage, speed: float | None) -> None:
        self._ended[reason] += 1
        self._prompt_tokens += usage.prompt_tokens or 0
        self._cached_tokens += usage.cached_tokens or 0
        self._completion_tokens += usage.completion_tokens or 0
        if speed is not None:
            self._speed.add(speed)

    def frozen(self) -> ModelMetrics:
        return ModelMetrics(
            started=self._started,
            ended=dict(self._ended),
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            completion_tokens=self._completion_tokens,
            time_to_first_token=self.first_token.frozen(),
            tokens_per_second=self._speed.frozen(),
            tools={name: calls.frozen() for name, calls in self._tools.items()},
        )


class _Calls:
    """The mutable counts of one tool."""

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.duration = _Buckets(TOOL_SECONDS)

    def frozen(self) -> ToolMetrics:
        return ToolMetrics(outcomes=self.outcomes.copy(), duration=self.duration.frozen())


_Change = Callable[[_Tally], None]
