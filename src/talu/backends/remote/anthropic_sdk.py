"""Makes clients of the ``anthropic`` package; no other file imports it."""

import httpx2
from anthropic import AsyncAnthropic, AsyncStream

from talu.backends.remote.endpoint import Endpoint
from talu.backends.remote.sdk import SdkClient

__all__ = ["client"]


def client(endpoint: Endpoint, http: httpx2.AsyncClient, timeout: httpx2.Timeout) -> SdkClient:
    """A client that sends requests over ``http``, once each."""
    # A given key keeps the SDK from looking for others; the HTTP client does not send it.
    sdk = AsyncAnthropic(
        api_key="unused",
        webhook_key="",
        base_url=endpoint.url,
        max_retries=0,
        timeout=timeout,
        http_client=http,
        open_telemetry=False,
    )
    return SdkClient(sdk, AsyncStream[object])
