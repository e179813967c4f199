"""Makes clients of the ``openai`` package; no other file imports it."""

import httpx2
from openai import AsyncOpenAI, AsyncStream

from talu.backends.remote.endpoint import Endpoint
from talu.backends.remote.sdk import SdkClient

__all__ = ["client"]


def client(endpoint: Endpoint, http: httpx2.AsyncClient, timeout: httpx2.Timeout) -> SdkClient:
    """A client that sends requests over ``http``, once each."""
    # What is "" here is not read from the environment. The HTTP client sends none of it.
    sdk = AsyncOpenAI(
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
    return SdkClient(sdk, AsyncStream[object])
