"""What acts for a user: connected clients, logins in browsers. One's own; for administrators anybody's."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from libs.common.control.entries import User as UserEntry
from libs.common.control.owner import Receipt
from libs.common.errors import Forbidden
from libs.common.web.session import Member
from services.auth.api.paging import After, Limit, following, time_of
from services.auth.domain import Grant, Session, UnknownGrant, UnknownSession
from services.auth.parts import AuthParts, address_of

router = APIRouter()

Whose = Annotated[str, Query(description="Whose; one's own unless given.")]


class GrantOut(BaseModel):
    id: str
    user: str
    client_id: str
    client_name: str
    redirect_host: str = Field(description="Where its redirects lead; empty for a grant by device code.")
    document_host: str = Field(description="The host that describes it; empty for one that registered.")
    audience: str = Field(description="What it may reach.")
    scope: str
    created_at: str
    last_used_at: str = Field(description="When it last fetched a token.")


class GrantPage(BaseModel):
    items: list[GrantOut]
    next: str | None


class SessionOut(BaseModel):
    id: str
    user: str
    address: str
    user_agent: str
    created_at: str
    expires_at: str


class SessionPage(BaseModel):
    items: list[SessionOut]
    next: str | None


class Ended(BaseModel):
    id: str
    receipt: Receipt


@router.get("/grants")
async def list_grants(
    member: Member, parts: AuthParts, user: Whose = "", after: After = "", limit: Limit = 100
) -> GrantPage:
    """The clients that act for a user. Administrators may ask about anyone."""
    user = _may_see(member, user)
    grants = await asyncio.to_thread(parts.store.grants.live_of, user, after, limit)
    items = [_grant(grant) for grant in grants]
    return GrantPage(items=items, next=following(items, limit))


@router.delete("/grants/{grant_id}")
async def revoke_grant(
    member: Member, parts: AuthParts, grant_id: str, request: Request, response: Response
) -> Ended:
    """Disconnect a client: its tokens are refused from its next request on."""
    grant = await asyncio.to_thread(parts.store.grants.get, grant_id)
    if grant.user_id != member.id and member.role != "admin":
        raise UnknownGrant
    receipt = await parts.people.revoke_grant(member, grant, address_of(request))
    response.status_code = receipt.status
    return Ended(id=grant.id, receipt=receipt)


@router.get("/sessions")
async def list_sessions(
    member: Member, parts: AuthParts, user: Whose = "", after: After = "", limit: Limit = 100
) -> SessionPage:
    """The browsers in which a user is signed in. Administrators may ask about anyone."""
    user = _may_see(member, user)
    sessions = await asyncio.to_thread(parts.store.sessions.live_of, user, after, limit)
    items = [_session(session) for session in sessions]
    return SessionPage(items=items, next=following(items, limit))


@router.delete("/sessions/{session_id}")
async def end_session(
    member: Member, parts: AuthParts, session_id: str, request: Request, response: Response
) -> Ended:
    """Sign a browser out."""
    session = await asyncio.to_thread(parts.store.sessions.get, session_id)
    if session.user_id != member.id and member.role != "admin":
        raise UnknownSession
    receipt = await parts.people.end_session(member, session, address_of(request))
    response.status_code = receipt.status
    return Ended(id=session.id, receipt=receipt)


@router.post("/sign-out-everywhere")
async def sign_out_everywhere(
    member: Member, parts: AuthParts, request: Request, response: Response
) -> Ended:
    """End all of one's own logins and disconnect all clients, the one that asks for it too."""
    receipt = await parts.people.sign_out_everywhere(member, address_of(request))
    response.status_code = receipt.status
    return Ended(id=member.id, receipt=receipt)


def _may_see(member: UserEntry, user: str) -> str:
    """Whose connections are asked for. Raises `Forbidden`."""
    if user and user != member.id and member.role != "admin":
        raise Forbidden("Other people's logins and connected clients are for administrators to see.")
    return user or member.id


def _grant(grant: Grant) -> GrantOut:
    return GrantOut(
        id=grant.id,
        user=grant.user_id,
        client_id=grant.client_id,
        client_name=grant.client_name,
        redirect_host=grant.redirect_host,
        document_host=grant.document_host,
        audience=grant.audience,
        scope=grant.scope,
        created_at=time_of(grant.created_at),
        last_used_at=time_of(grant.last_used_at),
    )


def _session(session: Session) -> SessionOut:
    return SessionOut(
        id=session.id,
        user=session.user_id,
        address=session.address,
        user_agent=session.agent,
        created_at=time_of(session.created_at),
        expires_at=time_of(session.expires_at),
    )
