"""Talk to language models, in this process or behind an endpoint, through one API.

The names are loaded on first use, so that ``import talu`` costs nothing.
"""

import importlib

TYPE_CHECKING = False  # as in typing, which would be most of what this import costs
if TYPE_CHECKING:
    from talu.backends.scripted import ScriptedModel
    from talu.chat.async_chat import AsyncChat, AsyncResponse, AsyncStreamingResponse
    from talu.chat.builder import Token
    from talu.chat.observers import Hook, HookManager
    from talu.chat.sync_chat import Chat, Response, StreamingResponse
    from talu.client import AsyncClient, Client
    from talu.config import GenerationConfig
    from talu.descriptions import Conversion, ModelDescription
    from talu.exceptions import (
        ConvertError,
        DependencyError,
        EmptyPromptError,
        EndpointError,
        GenerationError,
        IncompleteJSONError,
        IOError,
        ModelError,
        ModelNotFoundError,
        ResourceError,
        SchemaValidationError,
        StateError,
        StorageError,
        StructuredOutputError,
        TaluError,
        TemplateError,
        TemplateNotFoundError,
        TemplateSyntaxError,
        TemplateUndefinedError,
        TokenizerError,
        ToolExecutionError,
        ToolServerError,
        ValidationError,
    )
    from talu.mcp import MCP
    from talu.oneshot import ask, raw_complete, stream
    from talu.profile import Profile, list_sessions
    from talu.ranking import RankedDocument, Ranking, Scores
    from talu.router.conversion import convert
    from talu.router.description import describe
    from talu.router.router import Router
    from talu.router.spec import (
        AnthropicBackend,
        CompletionOptions,
        ModelSpec,
        OpenAICompatibleBackend,
    )
    from talu.structured.values import Choice, Grammar, Regex
    from talu.template.prompt_template import PromptTemplate
    from talu.tools.calls import ToolCall
    from talu.tools.definition import Tool
    from talu.tools.functions import tool
    from talu.types import (
        Capabilities,
        Embeddings,
        FinishReason,
        LocalBackend,
        Marker,
        Pooling,
        StopFlag,
    )

__all__ = [
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
]

__version__ = "0.1.0"

HOMES = {
    "talu.backends.scripted": ("ScriptedModel",),
    "talu.chat.async_chat": ("AsyncChat", "AsyncResponse", "AsyncStreamingResponse"),
    "talu.chat.builder": ("Token",),
    "talu.chat.observers": ("Hook", "HookManager"),
    "talu.chat.sync_chat": ("Chat", "Response", "StreamingResponse"),
    "talu.client": ("AsyncClient", "Client"),
    "talu.config": ("GenerationConfig",),
    "talu.descriptions": ("Conversion", "ModelDescription"),
    "talu.exceptions": (
        "ConvertError",
        "DependencyError",
        "EmptyPromptError",
        "EndpointError",
        "GenerationError",
        "IOError",
        "IncompleteJSONError",
        "ModelError",
        "ModelNotFoundError",
        "ResourceError",
        "SchemaValidationError",
        "StateError",
        "StorageError",
        "StructuredOutputError",
        "TaluError",
        "TemplateError",
        "TemplateNotFoundError",
        "TemplateSyntaxError",
        "TemplateUndefinedError",
        "TokenizerError",
        "ToolExecutionError",
        "ToolServerError",
        "ValidationError",
    ),
    "talu.mcp": ("MCP",),
    "talu.oneshot": ("ask", "raw_complete", "stream"),
    "talu.profile": ("Profile", "list_sessions"),
    "talu.ranking": ("RankedDocument", "Ranking", "Scores"),
    "talu.router.conversion": ("convert",),
    "talu.router.description": ("describe",),
    "talu.router.router": ("Router",),
    "talu.router.spec": (
        "AnthropicBackend",
        "CompletionOptions",
        "ModelSpec",
        "OpenAICompatibleBackend",
    ),
    "talu.structured.values": ("Choice", "Grammar", "Regex"),
    "talu.template.prompt_template": ("PromptTemplate",),
    "talu.tools.calls": ("ToolCall",),
    "talu.tools.definition": ("Tool",),
    "talu.tools.functions": ("tool",),
    "talu.types": (
        "Capabilities",
        "Embeddings",
        "FinishReason",
        "LocalBackend",
        "Marker",
        "Pooling",
        "StopFlag",
    ),
}
MODULES = (
    "chat",
    "exceptions",
    "hooks",
    "mcp",
    "profile",
    "router",
    "template",
    "tools",
    "types",
)  # public ones


if not TYPE_CHECKING:  # a type checker would take any name for granted

    def __getattr__(name: str) -> object:
        for module, names in HOMES.items():
            if name in names:
                value: object = getattr(importlib.import_module(module), name)
                globals()[name] = value
                return value
        if name in MODULES:
            return importlib.import_module(f"talu.{name}")
        hint = "" if name.startswith("_") else _hint(name)
        raise AttributeError(f"module 'talu' has no attribute {name!r}{hint}")


def _hint(name: str) -> str:
    """Where a name is that is not here, or the known name that looks most like it."""
    other_names = importlib.import_module("talu.other_names")
    if name in other_names.OTHER_NAMES["talu"]:
        return f"; use {other_names.OTHER_NAMES['talu'][name]}"
    known = {}
    for module in MODULES:
        public = importlib.import_module(f"talu.{module}").__all__
        known.update(dict.fromkeys(public, f"talu.{module}"))
    if name in known:
        return f"; it is in {known[name]}: from {known[name]} import {name}"
    hint: str = other_names.nearest(name, [*__all__, *known])
    return hint


def __dir__() -> list[str]:
    return sorted(__all__)
