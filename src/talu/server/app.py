"""Wires the application: its layers, its errors and its paths."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from talu.hooks.metrics import MetricsHook
from talu.router.policies import Policy
from talu.router.spec import ModelInput
from talu.server import (
    anthropic_routes,
    openai_routes,
    pages,
    reranking_routes,
    token_routes,
)
from talu.server.bodies import body_failure
from talu.server.failures import Failure
from talu.server.guard import Callers, Keys
from talu.server.logs import Journal, log_failure
from talu.server.models import Models
from talu.server.options import ServerOptions
from talu.server.rates import Rates
from talu.server.refusals import error_body
from talu.server.requests import Requests
from talu.server.responses import Json
from talu.server.service import Service

__all__ = ["create_app"]

ROUTERS = (
    openai_routes.ROUTER,
    anthropic_routes.ROUTER,
    reranking_routes.ROUTER,
    token_routes.ROUTER,
    pages.ROUTER,
)
HEADERS = ["authorization", "x-api-key", "content-type", "anthropic-version", "anthropic-beta"]
HTTP_CODES = {404: "PATH_NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


def create_app(
    models: Sequence[ModelInput],
    options: ServerOptions | None = None,
    *,
    policy: Policy | None = None,
) -> FastAPI:
    """The application that ``talu serve`` runs, for a server of your own.

    Args:
        models: the models that it offers; each is opened by its first request.
        options: what it allows; None for the defaults of ``ServerOptions``.
        policy: chooses among the models, for requests that ask for its name.

    Raises:
        ValidationError: an argument is wrong.
        ModelNotFoundError: there is a budget of memory, and a model is not on this machine.
    """
    options = options or ServerOptions()
    metrics = MetricsHook()
    served = Models(models, [metrics], policy, keep_alive=options.keep_alive, memory=options.memory)
    service = Service(served, options)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        yield
        await service.close()

    app = FastAPI(
        title="talu",
        docs_url=None,  # the page of FastAPI loads scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        middleware=_layers(options),
        separate_input_output_schemas=False,
    )
    app.state.service, app.state.metrics = service, metrics
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(Failure, _failed)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _not_routed)
    return app


def _layers(options: ServerOptions) -> list[Middleware]:
    """What a request passes through, from the outside to the inside."""
    layers = [Middleware(Journal), Middleware(Callers, options=options)]
    if options.cors_origins:
        origins = list(options.cors_origins)
        methods = ["GET", "POST"]
        layers.append(
            Middleware(
                CORSMiddleware, allow_origins=origins, allow_methods=methods, allow_headers=HEADERS
            )
        )
    inner = (Keys, Rates, Requests) if options.requests_per_minute else (Keys, Requests)
    return [*layers, *(Middleware(layer, options=options) for layer in inner)]


def _answer(failure: Failure, request: Request) -> Response:
    body = error_body(failure, request.url.path)
    return Json(body, failure.status, failure.headers)


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, Failure)
    log_failure(error, error.__cause__)
    return _answer(error, request)


async def _not_valid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _answer(body_failure(error.errors(), error.body), request)


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = HTTP_CODES.get(error.status_code, "BAD_REQUEST")
    text = {404: "there is no such path; /docs lists them", 400: "the body is not JSON"}
    message: Any = text.get(error.status_code, error.detail)
    answer = _answer(Failure(error.status_code, code, str(message)), request)
    answer.headers.update(error.headers or {})  # such as the allowed methods
    return answer
