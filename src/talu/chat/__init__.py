"""Conversations: chats, their items, answers and observers."""

from talu.chat.items import (
    ContentPart,
    ContentType,
    ConversationItems,
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
from talu.chat.response import (
    AsyncResponse,
    AsyncStreamingResponse,
    Response,
    StreamingResponse,
)
from talu.chat.session import AsyncChat, Chat
from talu.chat.token import Token
from talu.chat.tools import ToolCall
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
