"""Formats the metrics of models in Prometheus' text exposition format, version 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Iterator, Mapping
from itertools import accumulate

from talu.hooks.measures import Histogram, ModelMetrics

__all__ = ["exposition"]

COUNTERS = {
    "prompt_tokens": "Tokens of prompts.",
    "cached_tokens": "Tokens of prompts that came from the prefix cache.",
    "completion_tokens": "Tokens sampled.",
}
HISTOGRAMS = {
    "time_to_first_token": (
        "_seconds",
        "Seconds from the start of a generation to its first token.",
    ),
    "tokens_per_second": ("", "Tokens per second of a generation after its first token."),
}


def exposition(models: Mapping[str, ModelMetrics]) -> str:
    """The metrics of all models as families with the label ``model``."""
    return "".join(f"{line}\n" for line in _lines(models))


def _lines(models: Mapping[str, ModelMetrics]) -> Iterator[str]:
    labels = {model: f'model="{_escaped(model)}"' for model in models}
    yield from _head("talu_generations_started_total", "counter", "Generations that started.")
    for model, metrics in models.items():
        yield f"talu_generations_started_total{{{labels[model]}}} {metrics.started}"
    yield from _head("talu_generations_ended_total", "counter", "Generations, by how they ended.")
    for model, metrics in models.items():
        for reason, count in metrics.ended.items():
            label = f'{labels[model]},finish_reason="{reason}"'
            yield f"talu_generations_ended_total{{{label}}} {count}"
    for field, help_text in COUNTERS.items():
        name = f"talu_{field}_total"
        yield from _head(name, "counter", help_text)
        for model, metrics in models.items():
            yield f"{name}{{{labels[model]}}} {getattr(metrics, field)}"
    for field, (unit, help_text) in HISTOGRAMS.items():
        name = f"talu_{field}{unit}"
        yield from _head(name, "histogram", help_text)
        for model, metrics in models.items():
            yield from _histogram(name, labels[model], getattr(metrics, field))
    if any(metrics.tools for metrics in models.values()):
        yield from _tool_lines(models, labels)


def _tool_lines(models: Mapping[str, ModelMetrics], labels: Mapping[str, str]) -> Iterator[str]:
    calls = [
        (f'{labels[model]},tool="{_escaped(name)}"', tool)
        for model, metrics in models.items()
        for name, tool in metrics.tools.items()
    ]
    yield from _head("talu_tool_calls_total", "counter", "Tool calls, by their outcome.")
    for label, tool in calls:
        for outcome, count in tool.outcomes.items():
            yield f'talu_tool_calls_total{{{label},outcome="{outcome}"}} {count}'
    yield from _head("talu_tool_duration_seconds", "histogram", "Seconds of a tool call.")
    for label, tool in calls:
        yield from _histogram("talu_tool_duration_seconds", label, tool.duration)


def _head(name: str, kind: str, help_text: str) -> Iterator[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"


def _histogram(name: str, label: str, histogram: Histogram) -> Iterator[str]:
    bounds = [*map(repr, histogram.bounds), "+Inf"]
    for bound, count in zip(bounds, accumulate(histogram.counts), strict=True):
        yield f'{name}_bucket{{{label},le="{bound}"}} {count}'
    yield f"{name}_sum{{{label}}} {histogram.sum!r}"
    yield f"{name}_count{{{label}}} {histogram.count}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
