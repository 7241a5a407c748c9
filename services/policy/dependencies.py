"""What routes ask for in their signatures."""

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request

from libs.common.control.entries import User
from libs.common.control.tables import Tables
from libs.common.errors import BadRequest
from libs.common.journal import Journal
from services.policy.changes import Changes
from services.policy.confirmation import Confirmation
from services.policy.domain import Precondition, UnknownUser
from services.policy.explain import Explainer
from services.policy.replay import Replays
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
    confirmation: Confirmation
    upstreams: Upstreams
    explainer: Explainer
    replays: Replays
    journal: Journal


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


async def _tables(request: Request) -> Tables:
    tables: Tables = request.app.state.follower.tables
    return tables


def known_user(tables: Tables, user: str) -> User:
    """The user, as the control log says. Raises `UnknownUser`."""
    found = tables.users.get(user)
    if found is None:
        raise UnknownUser(f"Nobody has the id {user[:80]!r}.")
    return found


Work = Annotated[Parts, Depends(_parts)]
Known = Annotated[Tables, Depends(_tables)]  # what the control log says, of people too
IfMatch = Annotated[Precondition, Depends(_precondition)]
