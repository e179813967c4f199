"""Lists the models of an endpoint."""

import asyncio
from collections.abc import Mapping
from functools import partial

from talu.backends.remote.attempts import Waiting
from talu.backends.remote.endpoint import Endpoint
from talu.backends.remote.failures import Failures
from talu.backends.remote.http import http_client, own_headers, tls_of
from talu.backends.remote.options import RemoteBackend
from talu.exceptions import EndpointError

__all__ = ["models_at"]


async def models_at(endpoint: Endpoint, options: RemoteBackend, seconds: float) -> object:
    """The JSON of the endpoint's list of models.

    Args:
        endpoint: where to ask.
        options: headers of the request.
        seconds: to wait for the answer.

    Raises:
        EndpointError: the endpoint cannot be reached, or refuses.
    """
    failures = Failures(endpoint, None)
    late = partial(failures.timeout, "the list of models", seconds, "timeout")
    waiting = Waiting(None, None, late)
    headers = own_headers(endpoint, options) | {"accept": "application/json"}
    path = "models" if endpoint.provider.protocol == "openai" else "v1/models"
    tls = await asyncio.to_thread(tls_of, endpoint)
    failure: EndpointError | None = None
    async with http_client(endpoint, headers, tls) as client:
        try:
            async with waiting.within(seconds, late):
                response = await client.get(f"{endpoint.url}/{path}", timeout=None)
        except Exception as error:  # noqa: BLE001 - raised below, as a typed error
            failure = failures.of(error)
    if failure is not None:  # after the handler, so that a request with the key is not attached
        raise failure
    if response.status_code != 200:
        raise failures.of_status(response.status_code, response.headers, response.text)
    try:
        answer: object = response.json()
    except (ValueError, RecursionError):
        raise failures.bad_answer("its list of models is not JSON") from None
    if isinstance(answer, Mapping) and answer.get("error"):
        raise failures.of_object(answer)
    return answer
