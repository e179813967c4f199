"""The public names, written down: a change of this list is a change of the API."""

import importlib
import inspect
from operator import attrgetter

import pytest

import talu

SURFACE = {
    "talu": [
        "AsyncChat",
        "AsyncClient",
        "Chat",
        "Client",
        "CompletionOptions",
        "GenerationConfig",
        "GenerationError",
        "IOError",
        "LocalBackend",
        "ModelError",
        "ModelSpec",
        "OpenAICompatibleBackend",
        "Profile",
        "PromptTemplate",
        "ScriptedModel",
        "StateError",
        "StopFlag",
        "StorageError",
        "TaluError",
        "TemplateError",
        "TokenizerError",
        "ValidationError",
        "__version__",
        "ask",
        "list_sessions",
        "raw_complete",
        "stream",
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
        "ReasoningText",
        "Response",
        "StreamingResponse",
        "Timings",
        "Token",
        "TokenLogprob",
        "ToolCall",
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
    ],
    "talu.profile": ["Profile", "list_sessions", "new_session_id"],
    "talu.router": [
        "BackendSpec",
        "Capabilities",
        "CompletionOptions",
        "GenerationConfig",
        "LocalBackend",
        "ModelInput",
        "ModelSpec",
        "ModelTarget",
        "OpenAICompatibleBackend",
        "Router",
        "SamplingParams",
        "StopFlag",
    ],
}


@pytest.mark.parametrize("module", SURFACE)
def test_the_public_names_are_these(module: str) -> None:
    assert sorted(importlib.import_module(module).__all__) == sorted(SURFACE[module])


@pytest.mark.parametrize("module", SURFACE)
def test_every_public_name_exists_and_says_what_it_is(module: str) -> None:
    loaded = importlib.import_module(module)
    for name in SURFACE[module]:
        value = getattr(loaded, name)
        assert not inspect.isclass(value) or inspect.getdoc(value), name


def test_the_lazy_door_opens_for_known_names_only() -> None:
    assert set(talu.__all__) <= set(dir(talu))
    with pytest.raises(AttributeError, match="'talu' has no attribute 'Clint'"):
        attrgetter("Clint")(talu)
