"""The public names for conversations: chats, items, answers and hooks."""

from talu.chat.async_chat import AsyncChat, AsyncResponse, AsyncStreamingResponse
from talu.chat.builder import Token
from talu.chat.fields import ToolCall
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
    "ReasoningText",
    "Response",
    "StreamingResponse",
    "Timings",
    "Token",
    "TokenLogprob",
    "ToolCall",
    "Usage",
]
