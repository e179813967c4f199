"""Lists the models of an endpoint."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from talu.backends.remote.attempts import Waiting
from talu.backends.remote.endpoint import Endpoint
from talu.backends.remote.failures import Failures
from talu.backends.remote.http import http_client, own_headers, tls_of
from talu.backends.remote.options import RemoteBackend
from talu.exceptions import EndpointError

__all__ = ["models_at"]


async def models_at(
    endpoint: Endpoint, options: RemoteBackend, seconds: float
) -> list[dict[str, object]] | None:
    """The entries of the endpoint's list of models; None for JSON of another form.

    Args:
        endpoint: where to ask.
        options: headers of the request.
        seconds: to wait for the answer.

    Raises:
        EndpointError: the endpoint cannot be reached, or refuses.
    """
    answer = await _answer(endpoint, options, seconds)
    if isinstance(answer, EndpointError):
        raise answer
    return answer


async def _answer(
    endpoint: Endpoint, options: RemoteBackend, seconds: float
) -> list[dict[str, object]] | EndpointError | None:
    """The entries, or the error, which is not raised here.

    Its traceback would have this function's variables: the headers that were sent, with the key,
    and what came back, in which some servers repeat it.
    """
    failures = Failures(endpoint, None)
    late = partial(failures.timeout, "the list of models", seconds, "timeout")
    waiting = Waiting(None, None, late)
    headers = own_headers(endpoint, options) | {"accept": "application/json"}
    path = "models" if endpoint.provider.protocol == "openai" else "v1/models"
    tls = await asyncio.to_thread(tls_of, endpoint)
    async with http_client(endpoint, headers, tls) as client:
        try:
            async with waiting.within(seconds, late):
                response = await client.get(f"{endpoint.url}/{path}", timeout=None)
        except Exception as error:  # noqa: BLE001 - returned as a typed error
            return failures.of(error)
    if response.status_code != 200:
        return failures.of_status(response.status_code, response.headers, response.text)
    try:
        answer: object = response.json()
    except (ValueError, RecursionError):
        return failures.bad_answer("its list of models is not JSON")
    if isinstance(answer, Mapping) and answer.get("error"):
        return failures.of_object(answer)
    entries = answer.get("data") if isinstance(answer, Mapping) else answer
    if not isinstance(entries, list):
        return None
    return [_cleaned(entry, failures.safe) for entry in entries if isinstance(entry, Mapping)]


def _cleaned(entry: Mapping[str, object], safe: Callable[[str], str]) -> dict[str, object]:
    """The values of an entry that are not objects, without secrets that the server repeats."""
    return {
        name: safe(value) if isinstance(value, str) else value
        for name, value in entry.items()
        if not isinstance(value, list | Mapping)
    }
