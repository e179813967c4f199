"""Sends requests through the ``anthropic`` package; no other file imports it."""

from typing import Any

import httpx2
from anthropic import AsyncAnthropic, AsyncStream

from talu.backends.remote.encoding import Body
from talu.backends.remote.endpoint import Endpoint
from talu.backends.remote.generation import Stream

__all__ = ["Client", "headers"]

VERSION = "2023-06-01"  # of the protocol, which every server knows


def headers(endpoint: Endpoint) -> dict[str, str]:
    """The headers of every request, beside those of all endpoints."""
    # Servers of others look for the key in the older header only.
    own = endpoint.key is not None and endpoint.url != endpoint.provider.base_url
    return {"anthropic-version": VERSION} | ({"x-api-key": str(endpoint.key)} if own else {})


class Client:
    """The SDK's client of one endpoint, for one event loop."""

    def __init__(self, endpoint: Endpoint, http: httpx2.AsyncClient, timeout: httpx2.Timeout):
        # A given key keeps the SDK from looking for others; the HTTP client does not send it.
        self._sdk = AsyncAnthropic(
            api_key="unused",
            webhook_key="",
            base_url=endpoint.url,
            max_retries=0,
            timeout=timeout,
            http_client=http,
            open_telemetry=False,
        )

    async def stream(self, body: Body) -> Stream:
        """Send a request whose answer is streamed."""
        return await self._sdk.post(
            f"/{body.path}",
            cast_to=object,
            body=body.values,
            stream=True,
            stream_cls=AsyncStream[object],
        )

    async def post(self, body: Body) -> Any:
        """Send a request; returns the JSON of the answer."""
        return await self._sdk.post(f"/{body.path}", cast_to=object, body=body.values)

    async def get(self, path: str) -> Any:
        """The JSON at a path."""
        return await self._sdk.get(f"/v1/{path}", cast_to=object)

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()
