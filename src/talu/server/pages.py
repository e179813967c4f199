"""The paths for people and for the programs that watch the server."""

from html import escape
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from talu.server.refusals import OPENAI_ERRORS
from talu.server.responses import Json
from talu.server.service import Service

__all__ = ["ROUTER"]

ROUTER = APIRouter(tags=["Server"], responses=OPENAI_ERRORS)
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>talu server</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: auto; padding: 1rem }}
  code {{ font-family: ui-monospace, monospace }}
  td {{ padding: .2rem 1rem .2rem 0; vertical-align: top }}
</style>
<h1>talu server</h1>
<p>The bodies of the requests are described in <a href="/openapi.json">/openapi.json</a>.</p>
{sections}
"""


@ROUTER.get("/health")
async def health() -> Response:
    """Tell that the server answers."""
    return Json({"status": "ok"})


@ROUTER.get(
    "/metrics",
    response_class=Response,
    responses={200: {"description": "Prometheus' text format", "content": {"text/plain": {}}}},
)
async def metrics(request: Request) -> Response:
    """Count requests, tokens and times by model, for Prometheus."""
    service: Service = request.app.state.service
    text = request.app.state.metrics.prometheus()
    running = (
        "# HELP talu_requests_running Answers that run or wait.\n"
        "# TYPE talu_requests_running gauge\n"
        f"talu_requests_running {service.running}\n"
    )
    return PlainTextResponse(text + running, media_type=EXPOSITION)


@ROUTER.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """List all paths; the page loads nothing from elsewhere."""
    described: dict[str, Any] = request.app.openapi()["paths"]
    rows: dict[str, list[str]] = {}
    for path, methods in described.items():
        for method, about in methods.items():
            cells = f"<code>{method.upper()} {escape(path)}</code>", escape(about["description"])
            row = "".join(f"<td>{cell}</td>" for cell in cells)
            rows.setdefault(about["tags"][0], []).append(f"<tr>{row}</tr>")
    sections = "".join(
        f"<h2>{escape(tag)}</h2><table>{''.join(lines)}</table>\n" for tag, lines in rows.items()
    )
    headers = {"content-security-policy": POLICY}
    return HTMLResponse(PAGE.format(sections=sections), headers=headers)
