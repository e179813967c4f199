"""Talk to language models, in this process or behind an endpoint, through one API.

The names are loaded on first use, so that ``import talu`` costs nothing.
"""

import importlib

TYPE_CHECKING = False  # as in typing, which would be most of what this import costs
if TYPE_CHECKING:
    from talu.backends.scripted import ScriptedModel
    from talu.chat.async_chat import AsyncChat
    from talu.chat.sync_chat import Chat
    from talu.client import AsyncClient, Client
    from talu.config import GenerationConfig
    from talu.exceptions import (
        GenerationError,
        IOError,
        ModelError,
        StateError,
        StorageError,
        TaluError,
        TemplateError,
        TokenizerError,
        ValidationError,
    )
    from talu.oneshot import ask, raw_complete, stream
    from talu.profile import Profile, list_sessions
    from talu.router.spec import (
        CompletionOptions,
        LocalBackend,
        ModelSpec,
        OpenAICompatibleBackend,
    )
    from talu.template.prompt_template import PromptTemplate
    from talu.types import StopFlag

__all__ = [
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
]

__version__ = "0.1.0"

HOMES = {
    "talu.backends.scripted": ("ScriptedModel",),
    "talu.chat.async_chat": ("AsyncChat",),
    "talu.chat.sync_chat": ("Chat",),
    "talu.client": ("AsyncClient", "Client"),
    "talu.config": ("GenerationConfig",),
    "talu.exceptions": (
        "GenerationError",
        "IOError",
        "ModelError",
        "StateError",
        "StorageError",
        "TaluError",
        "TemplateError",
        "TokenizerError",
        "ValidationError",
    ),
    "talu.oneshot": ("ask", "raw_complete", "stream"),
    "talu.profile": ("Profile", "list_sessions"),
    "talu.router.spec": (
        "CompletionOptions",
        "LocalBackend",
        "ModelSpec",
        "OpenAICompatibleBackend",
    ),
    "talu.template.prompt_template": ("PromptTemplate",),
    "talu.types": ("StopFlag",),
}


if not TYPE_CHECKING:  # a type checker would take any name for granted

    def __getattr__(name: str) -> object:
        for module, names in HOMES.items():
            if name in names:
                value: object = getattr(importlib.import_module(module), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module 'talu' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
