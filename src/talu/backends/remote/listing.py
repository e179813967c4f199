"""Lists the models of an endpoint."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import httpx2

from talu.backends.remote.attempts import Waiting
from talu.backends.remote.endpoint import Endpoint
from talu.backends.remote.events import Part
from talu.backends.remote.failures import Failures
from talu.backends.remote.http import http_client, own_headers, tls_of
from talu.backends.remote.options import RemoteBackend
from talu.backends.remote.proxies import proxy_of
from talu.exceptions import EndpointError
from talu.threads import in_daemon_thread

__all__ = ["models_at"]


MAX_MODELS = 100_000
MAX_PAGES = 1_000
MAX_ID = 1_000  # characters
PAGE = 1_000  # models of a page, where the protocol has pages


async def models_at(
    endpoint: Endpoint, options: RemoteBackend, seconds: float, *, first_page: bool = False
) -> list[dict[str, object]] | None:
    """The entries of the endpoint's list of models; None for JSON of another form.

    Args:
        endpoint: where to ask.
        options: headers of the request.
        seconds: to wait for each page.
        first_page: leave the further pages out.

    Raises:
        EndpointError: the endpoint cannot be reached, refuses, or lists too many models.
    """
    answer = await _answer(endpoint, options, seconds, first_page=first_page)
    if isinstance(answer, EndpointError):
        raise answer
    return answer


@dataclass(frozen=True, slots=True)
class _Page:
    """A part of the list.

    Attributes:
        last: after what the next page begins; None for the last page.
    """

    entries: list[dict[str, object]]
    last: str | None


async def _answer(
    endpoint: Endpoint, options: RemoteBackend, seconds: float, *, first_page: bool
) -> list[dict[str, object]] | EndpointError | None:
    """The entries, or the error, which is not raised here.

    Its traceback would have this function's variables: the headers that were sent, with the key,
    and what came back, in which some servers repeat it.
    """
    failures = Failures(endpoint, None, proxy_of(endpoint))
    headers = own_headers(endpoint, options) | {"accept": "application/json"}
    is_openai = endpoint.provider.protocol == "openai"
    path, after = ("models", "after") if is_openai else ("v1/models", "after_id")
    query = {} if is_openai else {"limit": str(PAGE)}
    entries: list[dict[str, object]] = []
    tls = await in_daemon_thread("talu-tls", tls_of, endpoint)
    async with http_client(endpoint, headers, tls) as client:
        for _ in range(MAX_PAGES):
            url = httpx2.URL(f"{endpoint.url}/{path}", params=query)
            page = await _page(client, url, failures, seconds)
            if not isinstance(page, _Page):
                return page
            entries += page.entries
            if len(entries) > MAX_MODELS:
                return failures.bad_answer(f"it has more than {MAX_MODELS:,} models")
            if first_page or page.last is None:
                return entries
            if page.last == query.get(after):
                break
            query = {**query, after: page.last}
    return failures.bad_answer("it has further pages, which the server does not send")


async def _page(
    client: httpx2.AsyncClient, url: httpx2.URL, failures: Failures, seconds: float
) -> _Page | EndpointError | None:
    """A page of the list, the error that it is, or None for JSON of another form."""
    late = partial(failures.timeout, "the list of models", seconds, "timeout")
    try:
        async with Waiting(None, None, late).within(seconds, late):
            response = await client.get(url, timeout=None)
    except Exception as error:  # noqa: BLE001 - returned as a typed error
        return failures.of(error)
    if response.status_code != 200:
        return failures.of_status(response.status_code, response.headers, response.text)
    answer = failures.read(Part(response.content, is_event=False))
    if isinstance(answer, EndpointError):
        return answer
    found = answer.get("data") if isinstance(answer, Mapping) else answer
    if not isinstance(found, list):
        return None
    entries = [_cleaned(entry, failures.safe) for entry in found]
    return _Page(entries, _last(answer, entries) if isinstance(answer, Mapping) else None)


def _last(answer: Mapping[str, object], entries: list[dict[str, object]]) -> str | None:
    """After what the next page begins; None for the last page."""
    if answer.get("has_more") is not True or not entries:
        return None
    last = answer.get("last_id") or entries[-1].get("id")
    return last[:MAX_ID] if isinstance(last, str) else None


def _cleaned(entry: object, safe: Callable[[str], str]) -> dict[str, object]:
    """The values of an entry that are not objects, without secrets that the server repeats."""
    if not isinstance(entry, Mapping):
        return {}
    return {
        name: safe(value) if isinstance(value, str) else value
        for name, value in entry.items()
        if not isinstance(value, list | Mapping)
    }
