"""Sends requests through a client of either SDK, whose common base is generated code.

The answers are read without the SDK: servers deviate from its types, and from its event streams.
"""

from typing import Any

import httpx2

from talu.backends.remote.encoding import Body
from talu.backends.remote.events import Part
from talu.backends.remote.reading import Reading

__all__ = ["SdkClient"]


class SdkClient:
    """An SDK's client of one endpoint, for one event loop.

    Args:
        sdk: the client.
        stream_class: the SDK's class of streams of plain objects.
    """

    def __init__(self, sdk: Any, stream_class: Any) -> None:
        self._sdk = sdk
        self._stream_class = stream_class

    async def stream(self, body: Body) -> Reading:
        """Send a request whose answer is streamed."""
        answer = await self._sdk.post(
            f"/{body.path}",
            cast_to=object,
            body=body.values,
            stream=True,
            stream_cls=self._stream_class,
        )
        return Reading(answer.response)

    async def post(self, body: Body) -> Part:
        """Send a request; returns the whole answer."""
        answer = await self._sdk.post(f"/{body.path}", cast_to=httpx2.Response, body=body.values)
        return Part(answer.content, is_event=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()
