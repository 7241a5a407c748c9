"""What routes ask for in their signatures."""

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request

from libs.common.errors import BadRequest
from services.policy.changes import Changes
from services.policy.domain import Precondition
from services.policy.settings import PolicySettings
from services.policy.store import PolicyStore
from services.policy.upstream import Upstreams

_ETAG = re.compile(r'"(\d{1,18})"')


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes work with. One per app, in `app.state.parts`."""

    settings: PolicySettings
    store: PolicyStore
    changes: Changes
    upstreams: Upstreams


async def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


async def _precondition(
    if_match: Annotated[str | None, Header()] = None, if_none_match: Annotated[str | None, Header()] = None
) -> Precondition:
    """`If-Match: "<version>"` or `If-None-Match: *` (RFC 9110, section 13.1)."""
    if if_none_match not in {None, "*"}:
        raise BadRequest("If-None-Match takes only * here")
    if if_match is None:
        return Precondition(absent=if_none_match is not None)
    matched = _ETAG.fullmatch(if_match)
    if not matched:
        raise BadRequest('If-Match takes one ETag as GET gave it, such as "7"')
    return Precondition(version=int(matched[1]), absent=if_none_match is not None)


Work = Annotated[Parts, Depends(_parts)]
IfMatch = Annotated[Precondition, Depends(_precondition)]
