"""The base class of hooks, and the hooks for logging and metrics that come with talu."""

from talu.chat.observers import Generation, Hook, HookManager
from talu.hooks.logs import LoggingHook
from talu.hooks.measures import Histogram, ModelMetrics, ToolMetrics
from talu.hooks.metrics import MetricsHook
from talu.hooks.otel import OpenTelemetryHook

__all__ = [
    "Generation",
    "Histogram",
    "Hook",
    "HookManager",
    "LoggingHook",
    "MetricsHook",
    "ModelMetrics",
    "OpenTelemetryHook",
    "ToolMetrics",
]
