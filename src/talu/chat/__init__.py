"""The public names for conversations: chats, items, answers and hooks.

They are loaded on first use.
"""

from typing import TYPE_CHECKING

from talu.first_use import on_first_use

if TYPE_CHECKING:
    from talu.chat.async_chat import AsyncChat, AsyncResponse, AsyncStreamingResponse
    from talu.chat.builder import ReasoningPiece, Token, ToolCallPiece, ToolRunPiece
    from talu.chat.item_view import ConversationItems
    from talu.chat.items import (
        ContentPart,
        ContentType,
        FunctionCallItem,
        FunctionCallOutputItem,
        InputText,
        Item,
        ItemStatus,
        ItemType,
        MessageItem,
        MessageRole,
        OutputText,
        ReasoningItem,
        ReasoningText,
    )
    from talu.chat.observers import Hook, HookManager
    from talu.chat.sync_chat import Chat, Response, StreamingResponse
    from talu.tools.calls import ToolCall, ToolRun
    from talu.types import FinishReason, Timings, TokenLogprob, Usage

__all__ = [
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
]

HOMES = {
    "talu.chat.async_chat": ("AsyncChat", "AsyncResponse", "AsyncStreamingResponse"),
    "talu.chat.builder": ("ReasoningPiece", "Token", "ToolCallPiece", "ToolRunPiece"),
    "talu.chat.item_view": ("ConversationItems",),
    "talu.chat.items": (
        "ContentPart",
        "ContentType",
        "FunctionCallItem",
        "FunctionCallOutputItem",
        "InputText",
        "Item",
        "ItemStatus",
        "ItemType",
        "MessageItem",
        "MessageRole",
        "OutputText",
        "ReasoningItem",
        "ReasoningText",
    ),
    "talu.chat.observers": ("Hook", "HookManager"),
    "talu.chat.sync_chat": ("Chat", "Response", "StreamingResponse"),
    "talu.tools.calls": ("ToolCall", "ToolRun"),
    "talu.types": ("FinishReason", "Timings", "TokenLogprob", "Usage"),
}

if not TYPE_CHECKING:
    __getattr__ = on_first_use(__name__, HOMES)


def __dir__() -> list[str]:
    return __all__
