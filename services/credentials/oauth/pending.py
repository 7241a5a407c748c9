"""People who were sent to a provider and have not come back yet. Synchronous: call it from a thread.

What the way back needs waits here under the parameter `state`, which the browser brings back. It is good
once, for the person and login session that it was made for (RFC 9700, sections 2.1 and 4.7).
"""

import hashlib
import secrets
import time

import msgspec
from sqlalchemy import CursorResult, and_, delete, or_
from sqlmodel import Session, col, select

from libs.common.errors import BadRequest
from services.credentials.oauth.domain import Client, Metadata
from services.credentials.oauth.provider import OAuthSettings
from services.credentials.oauth.tables import AuthorizationRow
from services.credentials.store.database import Database
from services.credentials.vault import Envelope

LIFETIME = 900.0  # seconds at the provider
MOST = 10  # of one person; the oldest give way


class UnknownState(BadRequest):
    type, title = (
        "unknown-authorization",
        "This sign-in was not begun here, was finished already, or took too long",
    )


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked of which provider, for whom."""

    slug: str
    owner: str  # a user's id, or `ORGANIZATION`
    account_id: str = ""  # the account to replace
    origin: str  # where the server was
    verifier: str  # RFC 7636
    metadata: Metadata
    client: Client
    settings: OAuthSettings = OAuthSettings()  # as they were then: later ones may be about another provider
    resource: str = ""
    scopes: str = ""

    def __repr__(self) -> str:
        return f"Pending({self.slug!r}, {self.owner!r})"


class Pendings:
    """Those of one vault."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, pending: Pending, user: str, session: str) -> str:
        """Keep it. Returns the value of `state`."""
        state = secrets.token_urlsafe(32)
        key = _key(state)
        data_key = self._database.new_data_key(_name(key))
        envelope = data_key.seal(msgspec.json.encode(pending), _identity(key, user, session))
        with Session(self._database.engine) as connection, connection.begin():
            _make_room(connection, user)
            connection.add(
                AuthorizationRow(
                    state=key,
                    user_id=user,
                    session=session,
                    key_id=envelope.key_id,
                    wrapped_key=envelope.wrapped_key,
                    box=envelope.box,
                    expires_at=time.time() + LIFETIME,
                )
            )
        return state

    def take(self, state: str, user: str, session: str) -> Pending:
        """What was kept under `state` for that person in that session; nobody gets it again. Raises
        `UnknownState`, and as `Vault.open`."""
        key = _key(state)
        with Session(self._database.engine) as connection:
            row = connection.get(AuthorizationRow, key)
        if row is None or (row.user_id, row.session) != (user, session) or row.expires_at < time.time():
            raise UnknownState("Go back to Credentials and connect again.")
        envelope = Envelope(row.key_id, row.wrapped_key, row.box)
        secret = self._database.vault.open(envelope, _name(key), _identity(key, user, session))
        with Session(self._database.engine) as connection, connection.begin():
            taken = connection.execute(delete(AuthorizationRow).where(col(AuthorizationRow.state) == key))
            assert isinstance(taken, CursorResult)
            if not taken.rowcount:
                raise UnknownState("Go back to Credentials and connect again.")
        return msgspec.json.decode(secret, type=Pending)


def _make_room(connection: Session, user: str) -> None:
    """For one more of `user`."""
    row = AuthorizationRow
    kept = select(row.state).where(row.user_id == user).order_by(col(row.expires_at).desc()).limit(MOST - 1)
    too_many = and_(col(row.user_id) == user, col(row.state).not_in(list(connection.exec(kept))))
    connection.execute(delete(row).where(or_(col(row.expires_at) < time.time(), too_many)))


def _key(state: str) -> str:
    return hashlib.sha256(state.encode("utf-8", "replace")).hexdigest()


def _name(key: str) -> str:
    """The name of the record in the vault."""
    return f"authorization/{key}"


def _identity(key: str, user: str, session: str) -> bytes:
    return msgspec.json.encode(["lockgate", "authorization", key, user, session])
