"""A hook that records generations as OpenTelemetry spans and metrics.

The names are those of the GenAI semantic conventions, release 1.41, which OpenTelemetry's own
instrumentations and their dashboards use:
https://github.com/open-telemetry/semantic-conventions/tree/v1.41.0/docs/gen-ai
"""

import importlib
import json
import time
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

from talu.chat.answer import Answer
from talu.chat.observers import Generation, Hook
from talu.checks import check_boolean
from talu.error_text import shown
from talu.exceptions import DependencyError, ValidationError
from talu.hooks.ending import error_type, finish_reason
from talu.hooks.otel_messages import input_messages, output_messages
from talu.hooks.tool_labels import ToolLabels
from talu.tools.calls import ToolRun
from talu.types import Handle

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["OpenTelemetryHook"]

SCHEMA = "https://opentelemetry.io/schemas/1.41.0"
SECONDS = [0.01 * 2**power for power in range(14)]
TOKENS = [4**power for power in range(14)]
SETTINGS = ("max_tokens", "temperature", "top_p", "seed", "stop_sequences")
MAX_INTEGER = 2**63 - 1  # largest integer attribute

Attributes = dict[str, Any]


class OpenTelemetryHook(Hook, Handle):
    """Records a span for every generation, and histograms of durations and tokens.

    The span ``chat {model}``, or ``text_completion {model}`` for a raw completion, is a child of
    the span that is current when the generation starts, and never current itself. Its attributes
    are the given settings, the model, the finish reason and the token counts. ``error.type`` is
    the code of a talu error, or the class of any other. A cancelled generation is not an error:
    its finish reason is ``cancelled``. A seed of 2**63 or more does not fit an attribute and is
    left out.

    Each tool call that talu carries out is a child span ``execute_tool {name}``.

    The histograms are ``gen_ai.client.operation.duration``, also of tool calls, and, for streams,
    ``gen_ai.client.operation.time_to_first_chunk`` in seconds, and ``gen_ai.client.token.usage``.

    Requires ``pip install "talu[otel]"``, which installs OpenTelemetry's API; the program chooses
    the SDK and the exporter.

    Args:
        content: also record content: the messages to and from the model, the arguments and results
            of tool calls, and error messages, which may quote them.
        tracer_provider: replaces the global one.
        meter_provider: replaces the global one.

    Raises:
        DependencyError: OpenTelemetry's API is not installed.
        ValidationError: an argument is of the wrong type.
    """

    _instead = "share the hook itself; another process needs a separate one"

    def __init__(
        self,
        *,
        content: bool = False,
        tracer_provider: "TracerProvider | None" = None,
        meter_provider: "MeterProvider | None" = None,
    ) -> None:
        self._trace, metrics = _api("trace"), _api("metrics")
        self._content = check_boolean("content", content)
        _check_provider("tracer_provider", tracer_provider, self._trace.TracerProvider)
        _check_provider("meter_provider", meter_provider, metrics.MeterProvider)
        release = version("talu")
        self._tracer = self._trace.get_tracer("talu", release, tracer_provider, SCHEMA)
        self._instruments = _Instruments(metrics.get_meter("talu", release, meter_provider, SCHEMA))

    def for_generation(self, generation: Generation) -> Hook:
        """The hook that records this generation."""
        return _Observer(
            generation, self._trace, self._tracer, self._instruments, content=self._content
        )


class _Instruments:
    """The histograms, created once, and the labels of tools in them."""

    def __init__(self, meter: Any) -> None:
        self.labels = ToolLabels()
        self.duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self.first_chunk = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            unit="s",
            description="Time to receive the first chunk of a stream.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self.tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKENS,
        )


class _Observer(Hook):
    """Records one generation."""

    def __init__(
        self,
        generation: Generation,
        trace: ModuleType,
        tracer: Any,
        instruments: _Instruments,
        *,
        content: bool,
    ) -> None:
        self._generation = generation
        self._trace = trace
        self._tracer = tracer
        self._instruments = instruments
        self._content = content
        self._common: Attributes = {
            "gen_ai.operation.name": generation.operation,
            "gen_ai.provider.name": "talu",
            "gen_ai.request.model": generation.model,
        }
        self._span: Span | None = None

    def on_generation_start(self, chat: object, input_text: str, *, config: object = None) -> None:
        generation = self._generation
        self._span = span = self._tracer.start_span(
            f"{generation.operation} {generation.model}",
            kind=self._trace.SpanKind.INTERNAL,  # the model runs in this process
            attributes=self._common | _request(generation),
        )
        if self._content and span.is_recording():
            span.set_attribute("gen_ai.input.messages", _json(input_messages(generation)))

    def on_first_token(self, chat: object, time_ms: float) -> None:
        if self._generation.stream:
            seconds = time_ms / 1000
            self._instruments.first_chunk.record(seconds, self._common)
            if self._span is not None:
                self._span.set_attribute("gen_ai.response.time_to_first_chunk", seconds)

    def on_tool_run(self, chat: object, run: ToolRun) -> None:
        ended: Attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": run.name,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": run.call.id,
        }
        if run.error is not None:
            ended["error.type"] = run.error.code
        if self._content:
            ended["gen_ai.tool.call.arguments"] = run.call.arguments
            ended["gen_ai.tool.call.result"] = run.output
        parent = None if self._span is None else self._trace.set_span_in_context(self._span)
        span = self._tracer.start_span(
            f"execute_tool {run.name}",
            context=parent,
            kind=self._trace.SpanKind.INTERNAL,
            attributes=ended,
            start_time=run.began_ns,
        )
        if run.error is not None:
            message = str(run.error) if self._content else None
            span.set_status(self._trace.StatusCode.ERROR, message)
        span.end(run.began_ns + int(run.duration_ms * 1e6))
        tool, outcome = self._instruments.labels.of(run)
        measured = {**self._common, "gen_ai.operation.name": "execute_tool"}
        measured["gen_ai.tool.name"] = tool
        if run.error is not None:
            measured["error.type"] = outcome
        self._instruments.duration.record(run.duration_ms / 1000, measured)

    def on_generation_end(
        self,
        chat: object,
        response: Answer[Any] | None,
        *,
        error: BaseException | None = None,
    ) -> None:
        seconds = time.perf_counter() - self._generation.began_at
        ended = self._common.copy()
        if response is not None:
            ended["gen_ai.response.model"] = response.model
        if isinstance(error, Exception):
            ended["error.type"] = error_type(error)
        if self._span is not None:
            try:
                self._describe(self._span, ended, response, error)
            finally:
                self._span.end()
        self._instruments.duration.record(seconds, ended)
        if response is not None and response.usage is not None:
            tokens, usage = self._instruments.tokens, response.usage
            kinds = {"input": usage.prompt_tokens, "output": usage.completion_tokens}
            for kind, count in kinds.items():
                if count is not None:
                    tokens.record(count, ended | {"gen_ai.token.type": kind})

    def _describe(
        self,
        span: "Span",
        attributes: Attributes,
        response: Answer[Any] | None,
        error: BaseException | None,
    ) -> None:
        span.set_attributes(attributes)
        if isinstance(error, Exception):
            message = str(error) if self._content else None
            span.set_status(self._trace.StatusCode.ERROR, message)
        else:
            reason = str(finish_reason(response, error))
            span.set_attribute("gen_ai.response.finish_reasons", [reason])
        if response is not None:
            span.set_attributes(_usage(response))
            if self._content and span.is_recording():
                span.set_attribute("gen_ai.output.messages", _json(output_messages(response)))


def _api(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"opentelemetry.{name}")
    except ModuleNotFoundError as missing:
        raise DependencyError(
            "OpenTelemetryHook needs OpenTelemetry's API, which is not installed: "
            "pip install 'talu[otel]'"
        ) from missing


def _check_provider(name: str, value: object, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        wrong = f"{name} must be a {kind.__name__} of OpenTelemetry, got {shown(value)}"
        raise ValidationError(wrong, details={"param": name, "value": value})


def _request(generation: Generation) -> Attributes:
    """Attributes for the settings given by call and chat."""
    attributes: Attributes = {}
    given = generation.config.given
    for name in SETTINGS:
        if given.get(name) is not None:
            attributes[f"gen_ai.request.{name}"] = given[name]
    if attributes.get("gen_ai.request.seed", 0) > MAX_INTEGER:
        del attributes["gen_ai.request.seed"]
    if "top_k" in given:
        attributes["gen_ai.request.top_k"] = float(given["top_k"])
    if generation.stream:
        attributes["gen_ai.request.stream"] = True
    if generation.chat is not None and generation.chat.session_id is not None:
        attributes["gen_ai.conversation.id"] = generation.chat.session_id
    return attributes


def _usage(response: Answer[Any]) -> Attributes:
    usage = response.usage
    if usage is None:
        return {}
    counts = {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
    }
    return {name: count for name, count in counts.items() if count is not None}


def _json(messages: list[dict[str, Any]]) -> str:
    return json.dumps(messages, ensure_ascii=False)
