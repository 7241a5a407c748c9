"""Errors that reach a caller of the HTTP APIs, and the one place that renders them.

    LockgateError
    ├── BadRequest            400   the request cannot be understood or is not allowed by its own rules
    ├── NotSignedIn           401   no valid session or access token
    ├── Forbidden             403   signed in, but the role does not allow it
    ├── NotFound              404
    ├── Conflict              409   somebody else changed it, or the name is taken
    └── Unavailable           503   a part that is needed does not answer; try again

Answers are problem details (RFC 9457): `{"type", "title", "status", "detail", ...}`.
"""

from collections.abc import Mapping
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

log = structlog.get_logger(__name__)

TYPE_PREFIX = "urn:lockgate:error:"


class LockgateError(Exception):
    """Base of every expected error. `type` is stable and meant for programs, `detail` for people."""

    status = 500
    type = "internal"
    title = "Something went wrong on our side"

    def __init__(
        self, detail: str = "", *, headers: Mapping[str, str] | None = None, **extra: object
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = extra


class BadRequest(LockgateError):
    status, type, title = 400, "bad-request", "The request cannot be carried out as it is"


class NotSignedIn(LockgateError):
    status, type, title = 401, "not-signed-in", "Sign in first"


class Forbidden(LockgateError):
    status, type, title = 403, "forbidden", "Your role does not allow this"


class NotFound(LockgateError):
    status, type, title = 404, "not-found", "There is no such thing here"


class Conflict(LockgateError):
    status, type, title = 409, "conflict", "This conflicts with what is there now"


class Unavailable(LockgateError):
    status, type, title = 503, "unavailable", "A part that this needs does not answer; try again"


def problem(error: LockgateError) -> Response:
    """The error as problem details (RFC 9457, section 3)."""
    body = {"type": TYPE_PREFIX + error.type, "title": error.title, "status": error.status, **error.extra}
    if error.detail:
        body["detail"] = error.detail
    return JSONResponse(body, error.status, error.headers, media_type="application/problem+json")


async def _on_lockgate_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, LockgateError)
    return problem(error)


def of_http(error: HTTPException) -> LockgateError:
    """A framework's own error (no such route, wrong method) as one of the family."""
    known = LockgateError(headers=error.headers)
    known.status, known.type, known.title = error.status_code, "http", str(error.detail)
    return known


async def _on_http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(of_http(error))


async def _on_invalid(_: Request, error: Exception) -> Response:
    errors: list[dict[str, Any]] = getattr(error, "errors", list)()
    fields = [
        {"field": ".".join(map(str, e["loc"][1:])) or str(e["loc"][0]), "problem": e["msg"]} for e in errors
    ]
    detail = "; ".join(f"{f['field']}: {f['problem']}" for f in fields)
    return problem(BadRequest(detail, errors=fields))


async def _on_unexpected(request: Request, error: Exception) -> Response:
    log.error("unexpected_error", path=request.url.path, exc_info=error)
    return problem(LockgateError())


def install(app: Starlette) -> None:
    """Make `app` answer every error as problem details. Call once, in the service's factory."""
    app.add_exception_handler(LockgateError, _on_lockgate_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected)
    try:
        from fastapi.exceptions import RequestValidationError
    except ImportError:  # a service without the console extra has no FastAPI routes
        return
    app.add_exception_handler(RequestValidationError, _on_invalid)
