"""Sends requests through the ``openai`` package; no other file imports it.

Its client is asked for plain objects in place of its typed ones: servers deviate from the types.
"""

from typing import Any

import httpx2
from openai import AsyncOpenAI, AsyncStream

from talu.backends.remote.encoding import Body
from talu.backends.remote.endpoint import Endpoint
from talu.backends.remote.generation import Stream

__all__ = ["Client", "headers"]


def headers(endpoint: Endpoint) -> dict[str, str]:
    """The headers of every request, beside those of all endpoints: none."""
    return {}


class Client:
    """The SDK's client of one endpoint, for one event loop."""

    def __init__(self, endpoint: Endpoint, http: httpx2.AsyncClient, timeout: httpx2.Timeout):
        # What is "" here is not read from the environment. The HTTP client sends none of it.
        self._sdk = AsyncOpenAI(
            api_key="unused",
            admin_api_key="",
            organization="",
            project="",
            webhook_secret="",
            base_url=endpoint.url,
            max_retries=0,
            timeout=timeout,
            http_client=http,
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
        return await self._sdk.get(f"/{path}", cast_to=object)

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()
