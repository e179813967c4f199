"""Reasoning of a remote model names its provider from its first piece on, also if it is cut off."""

import pytest

from talu import OpenAICompatibleBackend
from talu.backends.remote.anthropic_messages import MessagesDecoder
from talu.backends.remote.encoding import Target
from talu.backends.remote.openai_chat import ChatDecoder
from talu.backends.remote.providers import PROVIDERS
from talu.chat.builder import Builder
from talu.chat.items import ItemStatus

CHAT = [{"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}]
MESSAGES = [
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking"}},
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "thinking_delta", "thinking": "hm"},
    },
]


@pytest.mark.parametrize(
    ("provider", "decoder", "events"),
    [("vllm", ChatDecoder, CHAT), ("anthropic", MessagesDecoder, MESSAGES)],
)
def test_reasoning_that_is_cut_off_names_its_provider(provider, decoder, events) -> None:
    decoding = decoder(Target("m", PROVIDERS[provider], OpenAICompatibleBackend()))
    answer = Builder()
    for data in events:
        for event in decoding.push(data):
            answer.add(event)
    reasoning, _ = answer.items(ItemStatus.INCOMPLETE, {})
    assert (reasoning.text, reasoning.provider_data) == ("hm", {"provider": provider})
