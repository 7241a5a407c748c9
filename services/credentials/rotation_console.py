"""The page /credentials/master-key: which key wraps the vault, and going over to another one."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from libs.common.errors import LockgateError
from libs.common.web import notices
from libs.common.web.frame import Pages
from libs.common.web.notices import Notice
from libs.common.web.session import Administrator
from services.credentials.dependencies import Parts, Work
from services.credentials.words import install_words

PATH = "/credentials/master-key"

router = APIRouter(include_in_schema=False)
pages = Pages(Path(__file__).parent / "pages")
install_words(pages)


@router.get(PATH)
async def show_master_key(request: Request, admin: Administrator, work: Work) -> Response:
    return await _page(request, work)


@router.post(PATH)
async def rotate(
    request: Request, admin: Administrator, work: Work, key: Annotated[str, Form()] = ""
) -> Response:
    try:
        await work.rotation.begin(admin, key)
    except LockgateError as error:
        return await _page(request, work, error)
    return notices.redirect(PATH, Notice(f"Records go over to {key} from now on."), work.settings)


async def _page(request: Request, work: Parts, error: LockgateError | None = None) -> Response:
    state = await work.rotation.state()
    problem = Notice(f"{error.title}. {error.detail}", "bad") if error else None
    response = pages.render(
        request,
        "master_key.html",
        status=error.status if error else 200,
        notice=problem or notices.waiting(request),
        state=state,
        candidates=[key for key in work.rotation.known if key != state.key_id],
    )
    if not state.complete:
        response.headers["Refresh"] = "2"  # seconds; the page follows the progress
    return notices.shown(response, request)
