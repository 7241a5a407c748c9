"""Pages: a service's templates inside one frame, with the headers that every page has.

pages = Pages(Path(__file__).parent / "pages")
return pages.render(request, "servers.html", servers=servers)
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fastapi import FastAPI, Request
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from libs.common.control.entries import Role
from libs.common.errors import LockgateError, NotSignedIn, of_http, problem

HERE = Path(__file__).parent / "pages"
STYLE = (HERE / "frame.css").read_text()


@dataclass(frozen=True, slots=True)
class Place:
    """An entry of the navigation."""

    title: str
    path: str
    roles: tuple[Role, ...] = ("admin", "auditor", "member")


NAVIGATION = (
    Place("Activity", "/activity"),
    Place("Servers", "/servers", ("admin",)),
    Place("Groups", "/groups", ("admin",)),
    Place("Users", "/users", ("admin",)),
    Place("Credentials", "/credentials"),
    Place("Account", "/account"),
)


def security_headers(nonce: str, form_action: str = "") -> dict[str, str]:
    """Headers of every page. `form_action` names origins that a form may lead to beside our own."""
    policy = [
        "default-src 'none'",
        f"style-src 'nonce-{nonce}'",
        f"script-src 'nonce-{nonce}'",
        "img-src 'self' data:",
        f"form-action 'self' {form_action}".rstrip(),
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
    return {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


class Pages:
    """Renders the templates of one service."""

    def __init__(self, directory: Path | None = None) -> None:
        folders = [directory] if directory else []
        self._templates = Environment(
            loader=ChoiceLoader([FileSystemLoader(folder) for folder in [*folders, HERE]]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    @property
    def filters(self) -> dict[str, object]:
        """The templates' filters, for a service to add its own."""
        return self._templates.filters

    def render(
        self, request: Request, template: str, *, status: int = 200, form_action: str = "", **values: object
    ) -> Response:
        """`template` in the frame. It extends `frame.html` and sees `user` (None before login) and `path`."""
        nonce = secrets.token_urlsafe(16)
        user = getattr(request.state, "user", None)
        places = [place for place in NAVIGATION if user and user.role in place.roles]
        body = self._templates.get_template(template).render(
            user=user, places=places, path=request.url.path, nonce=nonce, style=STYLE, **values
        )
        return HTMLResponse(body, status, security_headers(nonce, form_action))


def wants_page(request: Request) -> bool:
    """Whether a person looks at the answer, rather than a program."""
    is_api = request.url.path.startswith(("/api/", "/oauth/", "/.well-known/"))
    return not is_api and "text/html" in request.headers.get("accept", "")


def install_pages(app: FastAPI) -> None:
    """Show errors of this app as pages to people, and send them to the login when they need one.

    Call it after `errors.install`, which it extends.
    """
    pages = Pages()

    async def on_error(request: Request, error: Exception) -> Response:
        known = of_http(error) if isinstance(error, HTTPException) else error
        assert isinstance(known, LockgateError)
        if not wants_page(request):
            return problem(known)
        if isinstance(known, NotSignedIn):
            return RedirectResponse(login_url(request), 303)
        return pages.render(request, "error.html", status=known.status, error=known)

    app.add_exception_handler(LockgateError, on_error)
    app.add_exception_handler(HTTPException, on_error)


def login_url(request: Request) -> str:
    """Where to sign in and come back. A form sent too late leads to the start page, not to its action."""
    target = request.url.path
    if request.method != "GET":
        target = "/"
    elif request.url.query:
        target += f"?{request.url.query}"
    return f"/login?next={quote(target, safe='')}"
