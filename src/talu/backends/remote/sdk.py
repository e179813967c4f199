"""Sends requests through a client of either SDK, whose common base is generated code.

The client is asked for plain objects in place of its typed ones: servers deviate from the types.
"""

from typing import Any

from talu.backends.remote.encoding import Body
from talu.backends.remote.generation import Stream

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

    async def stream(self, body: Body) -> Stream:
        """Send a request whose answer is streamed."""
        answer: Stream = await self._sdk.post(
            f"/{body.path}",
            cast_to=object,
            body=body.values,
            stream=True,
            stream_cls=self._stream_class,
        )
        return answer

    async def post(self, body: Body) -> object:
        """Send a request; returns the JSON of the answer."""
        answer: object = await self._sdk.post(f"/{body.path}", cast_to=object, body=body.values)
        return answer

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()
