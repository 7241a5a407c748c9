"""Auth's part of the control log: users, keys, revocations. What the database says becomes entries."""

import asyncio
from collections.abc import Collection, Mapping

from libs.common.control.entries import AnyEntry, Keys, Revoked, key_of
from libs.common.control.entries import User as UserEntry
from services.auth.domain import User
from services.auth.keys import SigningKeys
from services.auth.store import Store

KINDS = ("user", "keys", "revoked")


def user_key(user_id: str) -> str:
    return f"user.{user_id}"


def revoked_key(grant: str) -> str:
    """The key of a grant's or login session's revocation."""
    return f"revoked.{grant}"


class Entries:
    """What `libs.common.control.owner.Owner` asks for."""

    def __init__(self, store: Store, keys: SigningKeys, issuer: str) -> None:
        self._store, self._keys, self._issuer = store, keys, issuer

    async def desired(self, wanted: Collection[str] | None) -> Mapping[str, AnyEntry]:
        """The entries that `wanted` should have; all of ours for None."""
        return await asyncio.to_thread(self._read, wanted)

    def _read(self, wanted: Collection[str] | None) -> Mapping[str, AnyEntry]:
        users = self._store.users.some(_names(wanted, "user"))
        revoked = self._store.revocations.recent(_names(wanted, "revoked"))
        entries: list[AnyEntry] = [user_entry(user) for user in users]
        entries += [Revoked(version=1, grant=grant, at=at) for grant, at in revoked.items()]
        if wanted is None or "keys" in wanted:
            self._keys.load()
            version = self._store.keys.version()
            entries.append(Keys(version=version, issuer=self._issuer, keys=list(self._keys.public())))
        return {key_of(entry): entry for entry in entries}


def _names(wanted: Collection[str] | None, kind: str) -> list[str] | None:
    if wanted is None:
        return None
    return [name for key in wanted for found, _, name in [key.partition(".")] if found == kind]


def user_entry(user: User) -> UserEntry:
    return UserEntry(
        version=user.version,
        id=user.id,
        email=user.email,
        name=user.name,
        role=user.role,
        active=user.active,
        tokens_valid_from=user.tokens_valid_from,
    )
