"""`/healthz` and `/readyz` of all services together: well if each of them says so."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import structlog
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger(__name__)

ANSWER_WITHIN = 2.0  # seconds for one service


class Health:
    """Asks each app for its own `/healthz` or `/readyz` and answers for all: 200, or 503 if any is not well.

    The body is `{"status": ..., "services": {<name>: <its body>}}`.
    """

    paths = frozenset({"/healthz", "/readyz"})
    _words: Mapping[str, tuple[str, str]] = {
        "/healthz": ("ok", "failing"),
        "/readyz": ("ready", "not ready"),
    }

    def __init__(self, apps: Mapping[Any, ASGIApp]) -> None:
        self._apps = apps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        answers = await asyncio.gather(*(_ask(app, scope, path) for app in self._apps.values()))
        well = all(status == 200 for status, _ in answers)
        services = {name: body for name, (_, body) in zip(self._apps, answers, strict=True)}
        good, bad = self._words[path]
        response = JSONResponse({"status": good if well else bad, "services": services}, 200 if well else 503)
        await response(scope, receive, send)


async def _ask(app: ASGIApp, scope: Scope, path: str) -> tuple[int, Any]:
    """Status and decoded body of `GET path` at `app`; an app that raises or is late counts as failing."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            return await _get(app, scope, path)
    except TimeoutError:
        return 503, {"status": "no answer in time"}
    except Exception as error:
        log.exception("health_check_failed", path=path)
        return 503, {"status": f"failed: {type(error).__name__}"}


async def _get(app: ASGIApp, scope: Scope, path: str) -> tuple[int, Any]:
    status, body = 503, b""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status, body
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            body += message.get("body", b"")

    request = {
        **scope,
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
    }
    await app(request, receive, send)
    return status, json.loads(body) if body else None
