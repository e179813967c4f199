"""Spans and metrics as the OpenTelemetry SDK exports them."""

import json
import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from talu.error_text import shown
from talu.exceptions import GenerationError, ValidationError
from talu.hooks import OpenTelemetryHook
from talu.types import Done, FinishReason, ReasoningDelta, Timings, ToolCallEvent, Usage

FAST = Done(FinishReason.LENGTH, Usage(7, 3, 5), Timings(tokens_per_second=60.0), "scripted")
COMMON = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "talu"}


class Telemetry:
    """A program's OpenTelemetry, kept in memory."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])

    def hook(self, **arguments) -> OpenTelemetryHook:
        return OpenTelemetryHook(
            tracer_provider=self.tracers, meter_provider=self.meters, **arguments
        )

    @property
    def spans(self) -> list:
        return list(self.exporter.get_finished_spans())

    @property
    def metrics(self) -> dict[str, list]:
        data = self.reader.get_metrics_data()
        metrics = data.resource_metrics[0].scope_metrics[0].metrics
        return {metric.name: metric.data.data_points for metric in metrics}


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def fails() -> None:
    """Fail."""
    raise OSError("secret")


def test_a_tool_call_is_a_child_span(faces, telemetry) -> None:
    script = [ToolCallEvent("c1", "fails", "{}")]
    for content in (False, True):
        client = faces.client(script, "Well.", hooks=[telemetry.hook(content=content)])
        faces.run(client.ask("Hi", tools=[fails], max_rounds=2))
    tool, whole, with_content, _ = telemetry.spans
    assert (tool.name, tool.parent.span_id) == ("execute_tool fails", whole.context.span_id)
    assert tool.attributes == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "fails",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": "c1",
        "error.type": "TOOL_FAILED",
    }
    assert tool.status.status_code is StatusCode.ERROR
    assert tool.end_time >= tool.start_time
    assert with_content.attributes["gen_ai.tool.call.arguments"] == "{}"
    assert "secret" in with_content.attributes["gen_ai.tool.call.result"]
    points = telemetry.metrics["gen_ai.client.operation.duration"]
    (calls,) = [p for p in points if p.attributes["gen_ai.operation.name"] == "execute_tool"]
    assert (calls.count, calls.attributes["gen_ai.tool.name"]) == (2, "fails")
    assert calls.attributes["error.type"] == "TOOL_FAILED"


def test_a_generation_is_a_span_with_settings_and_results(faces, telemetry) -> None:
    client = faces.client(["one", FAST], hooks=[telemetry.hook()])
    chat = client.chat(session_id="s")
    settings = {"max_tokens": 3, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "seed": 5}
    faces.run(chat.send("Hi", stop_sequences=["."], **settings))
    (span,) = telemetry.spans
    assert (span.name, span.kind, span.parent) == ("chat scripted", SpanKind.INTERNAL, None)
    assert span.status.status_code is StatusCode.UNSET
    assert span.instrumentation_scope.name == "talu"
    assert span.attributes == COMMON | {
        "gen_ai.conversation.id": "s",
        "gen_ai.request.max_tokens": 3,
        "gen_ai.request.model": "scripted",
        "gen_ai.request.seed": 5,
        "gen_ai.request.stop_sequences": (".",),
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_k": 40.0,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.response.model": "scripted",
        "gen_ai.usage.cache_read.input_tokens": 5,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
    }


def test_a_stream_is_marked_and_has_the_time_to_its_first_chunk(faces, telemetry) -> None:
    client = faces.client(["one", FAST], "one", hooks=[telemetry.hook()])
    faces.read(faces.run(client.chat()("Hi")))
    faces.run(client.ask("Hi"))
    streamed, whole = telemetry.spans
    assert streamed.attributes["gen_ai.request.stream"] is True
    (first,) = telemetry.metrics["gen_ai.client.operation.time_to_first_chunk"]
    assert first.sum == streamed.attributes["gen_ai.response.time_to_first_chunk"] > 0
    assert "gen_ai.request.stream" not in whole.attributes
    assert "gen_ai.response.time_to_first_chunk" not in whole.attributes


def test_a_raw_completion_is_a_text_completion(faces, telemetry) -> None:
    faces.run(faces.client("one", hooks=[telemetry.hook()]).raw_complete("Hi"))
    (span,) = telemetry.spans
    assert span.name == "text_completion scripted"
    assert span.attributes["gen_ai.operation.name"] == "text_completion"


def test_a_span_is_a_child_of_the_one_that_is_current(faces, telemetry) -> None:
    client = faces.client("one", hooks=[telemetry.hook()])
    with telemetry.tracers.get_tracer("program").start_as_current_span("request") as request:
        if faces.name == "sync":
            client.ask("Hi")
        else:
            faces.run(client.ask("Hi"))
        assert trace.get_current_span() is request
    assert telemetry.spans[0].parent.span_id == request.get_span_context().span_id


@pytest.mark.parametrize(
    ("script", "kind"),
    [([GenerationError("a secret")], "GENERATION_FAILED"), ([KeyError("a secret")], "KeyError")],
)
def test_an_error_has_its_type_and_not_its_message(faces, telemetry, script, kind) -> None:
    with pytest.raises(type(script[0])):
        faces.run(faces.client(script, hooks=[telemetry.hook()]).ask("Hi"))
    (span,) = telemetry.spans
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert span.attributes["error.type"] == kind
    assert "gen_ai.response.finish_reasons" not in span.attributes
    assert "secret" not in span.to_json()
    (duration,) = telemetry.metrics["gen_ai.client.operation.duration"]
    assert duration.attributes == COMMON | {"gen_ai.request.model": "scripted", "error.type": kind}
    assert "gen_ai.client.token.usage" not in telemetry.metrics


def test_a_cancelled_stream_is_not_an_error(faces, telemetry) -> None:
    faces.run(faces.run(faces.client("one", hooks=[telemetry.hook()]).chat()("Hi")).close())
    (span,) = telemetry.spans
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes["gen_ai.response.finish_reasons"] == ("cancelled",)


def test_duration_and_tokens_are_histograms(faces, telemetry) -> None:
    faces.run(faces.client(["one", FAST], hooks=[telemetry.hook()]).ask("Hi"))
    known = {"gen_ai.request.model": "scripted", "gen_ai.response.model": "scripted"}
    (duration,) = telemetry.metrics["gen_ai.client.operation.duration"]
    assert duration.attributes == COMMON | known
    assert 0 < duration.sum < 10
    assert duration.explicit_bounds == (
        0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92
    )  # fmt: skip
    tokens = telemetry.metrics["gen_ai.client.token.usage"]
    assert {point.attributes["gen_ai.token.type"]: point.sum for point in tokens} == {
        "input": 7,
        "output": 3,
    }
    assert tokens[0].explicit_bounds == (
        1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864
    )  # fmt: skip
    assert "gen_ai.client.operation.time_to_first_chunk" not in telemetry.metrics


def test_content_is_not_recorded_by_default(faces, telemetry) -> None:
    chat = faces.client("a secret", hooks=[telemetry.hook()]).chat(system="a secret")
    faces.run(chat.send("a secret"))
    assert "secret" not in telemetry.spans[0].to_json()


def test_content_is_recorded_on_request(faces, telemetry) -> None:
    script = [ReasoningDelta("Hm"), "süß", ToolCallEvent("c1", "f", '{"x": 1}')]
    client = faces.client(script, [GenerationError("why")], hooks=[telemetry.hook(content=True)])
    faces.run(client.chat(system="S").send("Hi"))
    with pytest.raises(GenerationError):
        faces.run(client.raw_complete("Go"))
    span, failed = telemetry.spans
    assert json.loads(span.attributes["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "S"}]},
        {"role": "user", "parts": [{"type": "text", "content": "Hi"}]},
    ]
    assert json.loads(span.attributes["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "Hm"},
                {"type": "text", "content": "süß"},
                {"type": "tool_call", "id": "c1", "name": "f", "arguments": {"x": 1}},
            ],
            "finish_reason": "tool_call",
        }
    ]
    assert failed.status.description == "why"
    assert json.loads(failed.attributes["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "Go"}]}
    ]


@pytest.mark.parametrize(("seed", "recorded"), [(2**63 - 1, True), (2**63, False)])
def test_a_seed_that_is_too_large_for_an_attribute_is_left_out(
    faces, telemetry, seed, recorded
) -> None:
    faces.run(faces.client("one", hooks=[telemetry.hook()]).ask("Hi", seed=seed))
    assert ("gen_ai.request.seed" in telemetry.spans[0].attributes) is recorded


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("tracer_provider", 5),
        ("tracer_provider", TracerProvider),
        ("tracer_provider", MeterProvider()),
        ("meter_provider", "mine"),
        ("meter_provider", trace.NoOpTracerProvider()),
        ("content", "no"),
    ],
)
def test_a_wrong_argument_is_refused_by_name_when_the_hook_is_made(name, wrong) -> None:
    with pytest.raises(ValidationError, match=f"^{name} must be ") as caught:
        OpenTelemetryHook(**{name: wrong})
    assert caught.value.details["param"] == name
    assert caught.value.details["value"] in (wrong, shown(wrong))


def test_a_program_without_a_provider_records_nothing_and_works(faces) -> None:
    assert faces.run(faces.client("one", hooks=[OpenTelemetryHook()]).ask("Hi")).text == "one"


def test_a_real_generation_is_recorded(faces, telemetry) -> None:
    client = faces.face.client_class("talu/pocket", hooks=[telemetry.hook()])
    answer = faces.run(client.ask("What is 2+2?"))
    (span,) = telemetry.spans
    assert span.name == "chat talu/pocket"
    assert span.attributes["gen_ai.usage.output_tokens"] == answer.usage.completion_tokens
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)


def without_opentelemetry(code: str) -> subprocess.CompletedProcess:
    hide = "import sys; sys.modules['opentelemetry'] = None; "
    return subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True)


def test_without_the_extra_the_error_names_the_install_command() -> None:
    shown = without_opentelemetry(
        "from talu.hooks import OpenTelemetryHook\n"
        "try: OpenTelemetryHook()\n"
        "except ImportError as error: print(type(error).__name__, error.code, error)"
    )
    assert shown.stderr == ""
    assert shown.stdout.startswith("DependencyError MISSING_DEPENDENCY OpenTelemetryHook needs")
    assert "pip install 'talu[otel]'" in shown.stdout


def test_the_other_hooks_do_not_need_the_extra() -> None:
    shown = without_opentelemetry("from talu.hooks import *; MetricsHook(), LoggingHook()")
    assert (shown.returncode, shown.stderr) == (0, "")
