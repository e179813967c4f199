"""The public names. A change of this list is a change of the API."""

import importlib
import inspect
import subprocess
import sys
from operator import attrgetter
from typing import get_args

import pytest

import talu

SURFACE = {
    "talu": [
        "MCP",
        "AnthropicBackend",
        "AsyncChat",
        "AsyncClient",
        "AsyncResponse",
        "AsyncStreamingResponse",
        "Capabilities",
        "Chat",
        "Choice",
        "Client",
        "CompletionOptions",
        "Conversion",
        "ConvertError",
        "DependencyError",
        "Embeddings",
        "EmptyPromptError",
        "EndpointError",
        "FinishReason",
        "GenerationConfig",
        "GenerationError",
        "Grammar",
        "Hook",
        "HookManager",
        "IOError",
        "IncompleteJSONError",
        "LocalBackend",
        "Marker",
        "ModelDescription",
        "ModelError",
        "ModelNotFoundError",
        "ModelSpec",
        "OpenAICompatibleBackend",
        "Pooling",
        "Profile",
        "PromptTemplate",
        "RankedDocument",
        "Ranking",
        "Regex",
        "ResourceError",
        "Response",
        "Router",
        "SchemaValidationError",
        "Scores",
        "ScriptedModel",
        "StateError",
        "StopFlag",
        "StorageError",
        "StreamingResponse",
        "StructuredOutputError",
        "TaluError",
        "TemplateError",
        "TemplateNotFoundError",
        "TemplateSyntaxError",
        "TemplateUndefinedError",
        "Token",
        "TokenizerError",
        "Tool",
        "ToolCall",
        "ToolExecutionError",
        "ToolServerError",
        "ValidationError",
        "__version__",
        "ask",
        "convert",
        "describe",
        "list_sessions",
        "raw_complete",
        "stream",
        "tool",
    ],
    "talu.client": ["AsyncClient", "Client", "ModelInput"],
    "talu.chat": [
        "AsyncChat",
        "AsyncResponse",
        "AsyncStreamingResponse",
        "Chat",
        "ContentPart",
        "ContentType",
        "ConversationItems",
        "FinishReason",
        "FunctionCallItem",
        "FunctionCallOutputItem",
        "Hook",
        "HookManager",
        "InputText",
        "Item",
        "ItemStatus",
        "ItemType",
        "MessageItem",
        "MessageRole",
        "OutputText",
        "ReasoningItem",
        "ReasoningPiece",
        "ReasoningText",
        "Response",
        "StreamingResponse",
        "Timings",
        "Token",
        "TokenLogprob",
        "ToolCall",
        "ToolCallPiece",
        "ToolRun",
        "ToolRunPiece",
        "Usage",
    ],
    "talu.hooks": [
        "Generation",
        "Histogram",
        "Hook",
        "HookManager",
        "LoggingHook",
        "MetricsHook",
        "ModelMetrics",
        "OpenTelemetryHook",
        "ToolMetrics",
    ],
    "talu.mcp": ["MCP"],
    "talu.profile": ["Profile", "list_sessions", "new_session_id"],
    "talu.router": [
        "AnthropicBackend",
        "Attempt",
        "BackendSpec",
        "ByCapability",
        "Capabilities",
        "Cheapest",
        "CompletionOptions",
        "Fallback",
        "Fastest",
        "First",
        "GenerationConfig",
        "LeastBusy",
        "Limits",
        "LocalBackend",
        "ModelInput",
        "ModelSpec",
        "ModelTarget",
        "OpenAICompatibleBackend",
        "Policy",
        "RemoteModelInfo",
        "RoundRobin",
        "Router",
        "RouterStatus",
        "SamplingParams",
        "Sticky",
        "StopFlag",
        "TargetStatus",
        "check_endpoint",
        "get_model_ids",
        "list_endpoint_models",
    ],
    "talu.server": ["ServerOptions", "create_app", "serve"],
}


@pytest.mark.parametrize("module", SURFACE)
def test_the_public_names_are_listed_here(module: str) -> None:
    assert sorted(importlib.import_module(module).__all__) == sorted(SURFACE[module])


@pytest.mark.parametrize("module", SURFACE)
def test_every_public_name_exists_and_has_a_docstring(module: str) -> None:
    loaded = importlib.import_module(module)
    for name in SURFACE[module]:
        value = getattr(loaded, name)
        assert not inspect.isclass(value) or inspect.getdoc(value), name


def test_only_known_names_are_loaded_lazily() -> None:
    assert set(talu.__all__) <= set(dir(talu))
    with pytest.raises(
        AttributeError, match="'talu' has no attribute 'Clint'; did you mean 'Client'"
    ):
        attrgetter("Clint")(talu)


def test_the_error_for_a_name_in_a_submodule_shows_its_import() -> None:
    expected = "it is in talu.chat: from talu.chat import MessageItem"
    with pytest.raises(AttributeError, match=expected):
        attrgetter("MessageItem")(talu)


def test_public_modules_are_loaded_on_first_use() -> None:
    code = "import talu; print(talu.chat.Hook is talu.Hook, talu.exceptions.TaluError.__name__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "True TaluError\n"


def test_the_choices_of_arguments_are_public_types() -> None:
    assert get_args(talu.Marker) == ("", "pinned", "archived", "deleted")
    assert get_args(talu.Pooling) == ("last", "mean", "first")
